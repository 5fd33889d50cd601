//! `chaos plan`: what a scenario would do: processes, links, timeline, arithmetic; touches nothing.

use std::path::PathBuf;

use crate::exit::Exit;
use crate::plan::describe::describe;
use crate::terminal::Environment;

use super::{Failure, Rendered, Result, options, output, planning};

/// Flags of `chaos plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The scenario file
    #[arg(value_name = "FILE")]
    pub scenario: PathBuf,

    /// Write the plan as JSON to this file instead; `-` is standard output
    #[arg(long, value_name = "FILE", env = "CHAOS_JSON")]
    pub json: Option<PathBuf>,

    #[command(flatten)]
    pub changes: options::Changes,
}

const AFTER_HELP: &str = "\
Examples:
  chaos plan scenarios/payment-outage.yaml
  chaos plan scenarios/payment-outage.yaml --seed 7 --json - | jq .faults

The plan goes to standard output, mistakes go to standard error.";

pub(super) fn execute(args: Args, environment: &Environment) -> Result {
    let planned = planning::plan(&args.scenario, &args.changes, environment);
    let plan = planned
        .map_err(|mistakes| Failure::usage(Rendered(mistakes)))?
        .plan;
    match args.json {
        Some(path) => output::write_to(&path, (plan.to_json() + "\n").as_bytes())?,
        None => output::print(describe(&plan).as_bytes())?,
    }
    Ok(Exit::Held)
}
