//! `chaos explain`: what a property or a fault means, with its formula and an example.

use crate::terminal::Environment;

use super::{Failure, Result};

/// Flags of `chaos explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A property or fault, like `breaker` or `blackhole`
    #[arg(value_name = "NAME")]
    pub name: String,
}

const AFTER_HELP: &str = "\
Example:
  chaos explain breaker";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    let meanwhile = "`chaos plan FILE` shows the arithmetic of each property";
    Err(Failure::not_supported("explain", meanwhile))
}
