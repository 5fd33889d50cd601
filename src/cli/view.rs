//! `chaos view`: opens the report of a run.

use std::path::PathBuf;

use crate::terminal::Environment;

use super::{Failure, Result, options};

/// Flags of `chaos view`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run folder, a run id, or `latest`
    #[arg(value_name = "RUN", default_value = "latest")]
    pub run: PathBuf,

    #[command(flatten)]
    pub reports: options::Reports,
}

const AFTER_HELP: &str = "\
Example:
  chaos view latest";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    Err(Failure::not_supported("view"))
}
