//! `chaos keeper`: parent of a run's processes, started by the coordinator with one end of a
//! socket pair as its standard input.

use std::ffi::OsString;
use std::os::fd::AsFd as _;

use anyhow::Context as _;

use super::{Failure, Result};
use crate::exit::Exit;
use crate::keeper::{ServeOptions, serve};

/// Flags of `chaos keeper`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run; children carry it as CHAOS_RUN
    #[arg(long, value_name = "ID")]
    pub run_id: String,

    /// Command to become when the coordinator vanished and nothing is left running
    #[arg(long, value_name = "ARGV", num_args = 1.., allow_hyphen_values = true)]
    pub at_eof: Vec<OsString>,
}

pub(super) fn execute(args: Args) -> Result {
    let stdin = std::io::stdin();
    rustix::net::sockopt::socket_type(&stdin)
        .context("`chaos keeper` is started by `chaos run`, not by people")
        .map_err(Failure::usage)?;
    let socket = stdin
        .as_fd()
        .try_clone_to_owned()
        .map_err(Failure::not_carried_out)?;
    let options = ServeOptions {
        run_id: args.run_id,
        at_eof: args.at_eof,
    };
    serve(&options, socket).map_err(Failure::not_carried_out)?;
    Ok(Exit::Held)
}
