//! `chaos up`: boots a system with its proxies and no load, until Ctrl-C.

use std::path::PathBuf;

use crate::terminal::Environment;

use super::{Failure, Result, options};

/// Flags of `chaos up`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The system file
    #[arg(value_name = "SYSTEM")]
    pub system: PathBuf,

    #[command(flatten)]
    pub reports: options::Reports,
}

const AFTER_HELP: &str = "\
Example:
  chaos up sample-system/system.yaml";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    let meanwhile = "`chaos run` boots the system, drives load and ends";
    Err(Failure::not_supported("up", meanwhile))
}
