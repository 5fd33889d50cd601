//! `chaos worker`: a load worker that dials out to a coordinator.

use crate::exit::Exit;
use crate::load::worker;
use crate::terminal::Environment;

use super::{Failure, Result};

/// Flags of `chaos worker`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Where the coordinator listens
    #[arg(long, value_name = "URL", env = "CHAOS_CONNECT")]
    pub connect: String,

    /// What proves to the coordinator that this worker belongs to the run
    #[arg(
        long,
        value_name = "TOKEN",
        env = crate::load::wire::TOKEN_VARIABLE,
        hide_env_values = true
    )]
    pub token: String,
}

const AFTER_HELP: &str = "\
A local worker is started by `chaos run` and ends with it.";

pub(super) fn execute(args: Args, _environment: &Environment) -> Result {
    // goose would install a logger of its own and write a line per failed request.
    let _ = tracing_subscriber::fmt()
        .with_env_filter("warn,goose=off")
        .with_writer(std::io::stderr)
        .try_init();
    match worker::execute(&args.connect, &args.token) {
        Ok(()) => Ok(Exit::Held),
        Err(error) => Err(Failure::not_carried_out(error)),
    }
}
