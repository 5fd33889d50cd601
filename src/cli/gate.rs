//! `chaos gate`: runs scenarios for CI.

use std::path::PathBuf;

use crate::terminal::Environment;

use super::{Failure, Result, options};

/// Flags of `chaos gate`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Scenario files, or folders of them
    #[arg(value_name = "FILE|DIR")]
    pub scenarios: Vec<PathBuf>,

    #[command(flatten)]
    pub outputs: options::Outputs,
}

const AFTER_HELP: &str = "\
Example:
  chaos gate scenarios --junit junit.xml";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    let meanwhile = "`chaos run DIR --junit FILE` runs scenarios and exits for a gate";
    Err(Failure::not_supported("gate", meanwhile))
}
