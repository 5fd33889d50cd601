//! `chaos run`: runs scenarios, one after another.

use std::path::PathBuf;

use crate::terminal::Environment;

use super::{Failure, Result, options};

/// Flags of `chaos run`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Scenario files, or folders of them
    #[arg(required = true, value_name = "FILE|DIR")]
    pub scenarios: Vec<PathBuf>,

    #[command(flatten)]
    pub changes: options::Changes,

    #[command(flatten)]
    pub reports: options::Reports,

    #[command(flatten)]
    pub outputs: options::Outputs,

    /// After the report, keep the system running until Ctrl-C
    #[arg(long, env = "CHAOS_KEEP_RUNNING")]
    pub keep_running: bool,

    /// How to show how far the run is
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "HOW",
        env = "CHAOS_PROGRESS"
    )]
    pub progress: options::Progress,
}

const AFTER_HELP: &str = "\
Examples:
  chaos run scenarios/payment-outage.yaml
  chaos run scenarios --seed 7 --junit junit.xml
  chaos run my.yaml --set phases.baseline=10s --only orders-answered

SIGUSR1 prints the current state of the run.";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    Err(Failure::not_supported("run"))
}
