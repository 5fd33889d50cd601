//! `chaos plan`: what a scenario would do: processes, links, timeline, arithmetic; touches nothing.

use std::path::PathBuf;

use crate::terminal::Environment;

use super::{Failure, Result, options};

/// Flags of `chaos plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The scenario file
    #[arg(value_name = "FILE")]
    pub scenario: PathBuf,

    #[command(flatten)]
    pub changes: options::Changes,

    /// Write the plan as JSON to this file; `-` is standard output
    #[arg(long, value_name = "FILE", env = "CHAOS_JSON")]
    pub json: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  chaos plan scenarios/payment-outage.yaml
  chaos plan scenarios/payment-outage.yaml --json - --seed 7";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    Err(Failure::not_supported("plan"))
}
