//! `chaos init`: writes a commented scenario and system file to start from.

use std::path::PathBuf;

use crate::terminal::Environment;

use super::{Failure, Result};

/// Flags of `chaos init`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Folder to write into; nothing in it is overwritten
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
}

const AFTER_HELP: &str = "\
Example:
  chaos init chaos";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    let meanwhile =
        "copy `scenarios/` and `sample-system/system.yaml` of the repository to start from";
    Err(Failure::not_supported("init", meanwhile))
}
