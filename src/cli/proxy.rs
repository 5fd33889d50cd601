//! `chaos proxy`: a standalone Toxiproxy-compatible server.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::exit::Exit;
use crate::terminal::Environment;
use crate::toxiproxy::server::{ServerOptions, serve};

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
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// End when standard input does, so that a parent never leaves the server behind
    #[arg(long)]
    pub end_at_eof: bool,
}

const AFTER_HELP: &str = "\
Prints one line of JSON with its address when it answers.

Examples:
  chaos proxy
  chaos proxy --port 0 --config toxiproxy.json";

pub(super) fn execute(args: Args, _environment: &Environment) -> Result {
    // Two for each connection; where the limit stays low, the proxy says so when it meets it.
    crate::run::ports::raise_descriptor_limit();
    let options = ServerOptions {
        host: args.host,
        port: args.port,
        config: args.config,
        seed: args.seed,
        end_at_eof: args.end_at_eof,
        announce: Some(Box::new(std::io::stdout())),
        ..ServerOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .map_err(Failure::not_carried_out)?;
    let served = runtime.block_on(serve(options));
    // Toxics may still hold connections open; they end with the process.
    runtime.shutdown_background();
    served
        .map(|()| Exit::Held)
        .map_err(Failure::not_carried_out)
}
