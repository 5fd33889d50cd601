//! `chaos clean`: clears what a killed run left.

use std::path::PathBuf;

use crate::terminal::Environment;

use super::{Failure, Result, options};

/// Flags of `chaos clean`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Only this run, instead of every run found under the report folder
    #[arg(long, value_name = "DIR")]
    pub run_folder: Option<PathBuf>,

    #[command(flatten)]
    pub reports: options::Reports,
}

const AFTER_HELP: &str = "\
Every `chaos run` does this first; it is also safe while other runs are under way.

Example:
  chaos clean";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    Err(Failure::not_supported("clean"))
}
