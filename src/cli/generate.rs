//! `chaos generate`: schemas, shell completions and man pages.

use std::path::PathBuf;

use crate::terminal::Environment;

use super::{Failure, Result};

/// Flags of `chaos generate`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// What to write
    #[command(subcommand)]
    pub what: What,
}

const AFTER_HELP: &str = "\
Examples:
  chaos generate schema schema
  chaos generate completions bash > chaos.bash
  chaos generate man man";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    Err(Failure::not_supported("generate"))
}

/// What `chaos generate` can write.
#[derive(Debug, clap::Subcommand)]
pub(super) enum What {
    /// JSON Schemas of the files people write and of the outcome
    Schema {
        /// Folder to write into
        #[arg(value_name = "DIR", default_value = "schema")]
        dir: PathBuf,
    },
    /// Completions for a shell, on standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// One man page per subcommand
    Man {
        /// Folder to write into
        #[arg(value_name = "DIR", default_value = "man")]
        dir: PathBuf,
    },
}
