//! `chaos keeper`: parent of a run's processes, started by the coordinator.

use super::{Failure, Result};

/// Flags of `chaos keeper`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run; children carry it as CHAOS_RUN
    #[arg(long, value_name = "ID")]
    pub run_id: String,

    /// Command to become when the coordinator vanished and nothing is left running
    #[arg(long, value_name = "ARGV", num_args = 1.., allow_hyphen_values = true)]
    pub at_eof: Vec<String>,
}

pub(super) fn execute(_args: Args) -> Result {
    Err(Failure::not_supported("keeper"))
}
