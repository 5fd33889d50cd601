//! `chaos sample`: one service of the bundled system. The only file that names `sample_system`.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};

use crate::exit::Exit;
use crate::terminal::Environment;

use super::{Failure, Result};

/// Flags of `chaos sample`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Which service, like `orders`
    #[arg(value_name = "SERVICE")]
    pub service: String,
}

const AFTER_HELP: &str = "\
Services read their addresses from the environment; `sample-system/system.yaml`
shows which.

Example:
  chaos sample orders";

pub(super) fn execute(args: Args, environment: &Environment) -> Result {
    let names = sample_system::names();
    if !names.contains(&args.service.as_str()) {
        return Err(Failure::usage(anyhow!(
            "no service `{}`; there are {}",
            args.service,
            names.join(", ")
        )));
    }
    let variables: BTreeMap<String, String> = environment
        .variables()
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned())))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")
        .map_err(Failure::not_carried_out)?;
    let ended = runtime.block_on(sample_system::run(&args.service, variables));
    ended
        .map(|()| Exit::Held)
        .with_context(|| format!("service `{}`", args.service))
        .map_err(Failure::not_carried_out)
}
