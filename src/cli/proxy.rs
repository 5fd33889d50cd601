//! `chaos proxy`: a standalone Toxiproxy-compatible server.

use std::path::PathBuf;

use crate::terminal::Environment;

use super::{Failure, Result};

/// Flags of `chaos proxy`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Address the API listens on
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    pub host: String,

    /// Port the API listens on; 0 takes a free one and prints it
    #[arg(long, value_name = "PORT", default_value_t = 8474)]
    pub port: u16,

    /// JSON file of proxies to create at the start
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Seed of whatever toxics draw at random
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

const AFTER_HELP: &str = "\
Examples:
  chaos proxy
  chaos proxy --port 0 --config toxiproxy.json";

pub(super) fn execute(_args: Args, _environment: &Environment) -> Result {
    Err(Failure::not_supported("proxy"))
}
