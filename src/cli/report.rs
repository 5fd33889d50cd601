//! `chaos report`: judges and renders a stored run again, without any system.

use std::path::PathBuf;

use crate::terminal::Environment;

use super::{Failure, Result, options};

/// Flags of `chaos report`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run folder, a run id, or `latest`
    #[arg(value_name = "RUN", default_value = "latest")]
    pub run: PathBuf,

    /// Judge by the limits of this edited scenario, and say which ones changed
    #[arg(long, value_name = "SCENARIO")]
    pub with: Option<PathBuf>,

    #[command(flatten)]
    pub reports: options::Reports,

    #[command(flatten)]
    pub outputs: options::Outputs,
}

const AFTER_HELP: &str = "\
Examples:
  chaos report latest
  chaos report reports/2026-11-21-0423-7f3a --with stricter.yaml --json -";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    Err(Failure::not_supported("report"))
}
