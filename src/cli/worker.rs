//! `chaos worker`: a load worker that dials out to a coordinator.

use crate::terminal::Environment;

use super::{Failure, Result};

/// Flags of `chaos worker`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Where the coordinator listens
    #[arg(long, value_name = "URL", env = "CHAOS_COORDINATOR")]
    pub coordinator: String,

    /// What proves to the coordinator that this worker belongs to the run
    #[arg(
        long,
        value_name = "TOKEN",
        env = "CHAOS_TOKEN",
        hide_env_values = true
    )]
    pub token: String,
}

const AFTER_HELP: &str = "\
A local worker is started by `chaos run` and ends with it.";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    Err(Failure::not_supported("worker"))
}
