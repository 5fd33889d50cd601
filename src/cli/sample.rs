//! `chaos sample`: one service of the bundled system.

use crate::terminal::Environment;

use super::{Failure, Result};

/// Flags of `chaos sample`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Which service, like `orders`
    #[arg(value_name = "SERVICE")]
    pub service: String,

    /// What the service itself understands
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARG"
    )]
    pub args: Vec<String>,
}

const AFTER_HELP: &str = "\
Services read their addresses from the environment; `sample-system/system.yaml` shows which.";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    Err(Failure::not_supported("sample"))
}
