//! `chaos check`: checks scenarios without running them, for editors and hooks.

use std::path::PathBuf;

use crate::terminal::Environment;

use super::{Failure, Result, options};

/// Flags of `chaos check`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Scenario files, or folders of them
    #[arg(required = true, value_name = "FILE|DIR")]
    pub scenarios: Vec<PathBuf>,

    #[command(flatten)]
    pub changes: options::Changes,
}

const AFTER_HELP: &str = "\
Examples:
  chaos check scenarios
  chaos check my.yaml --system staging.yaml";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    Err(Failure::not_supported("check"))
}
