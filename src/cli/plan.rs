//! `chaos plan`: what a scenario would do: processes, links, timeline, arithmetic; touches nothing.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::exit::Exit;
use crate::plan::Plan;
use crate::plan::describe::describe;
use crate::terminal::Environment;

use super::{Failure, Rendered, Result, options, planning};

/// Flags of `chaos plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The scenario file
    #[arg(value_name = "FILE")]
    pub scenario: PathBuf,

    #[command(flatten)]
    pub changes: options::Changes,

    /// Write the plan as JSON to this file; `-` is standard output
    #[arg(long, value_name = "FILE", env = "CHAOS_JSON")]
    pub json: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  chaos plan scenarios/payment-outage.yaml
  chaos plan scenarios/payment-outage.yaml --json - --seed 7";

pub(super) fn execute(args: Args, environment: &Environment) -> Result {
    let planned = planning::plan(&args.scenario, &args.changes, environment);
    let plan = planned
        .map_err(|mistakes| Failure::usage(Rendered(mistakes)))?
        .plan;
    match args.json {
        Some(path) => write_json(&plan, &path)?,
        // Nobody is left to tell when standard error is gone.
        None => drop(std::io::stderr().write_all(describe(&plan).as_bytes())),
    }
    Ok(Exit::Held)
}

fn write_json(plan: &Plan, path: &Path) -> std::result::Result<(), Failure> {
    let text = plan.to_json() + "\n";
    let written = match path == Path::new("-") {
        true => std::io::stdout().write_all(text.as_bytes()),
        false => std::fs::write(path, text),
    };
    written
        .with_context(|| format!("cannot write the plan to `{}`", path.display()))
        .map_err(Failure::not_carried_out)
}
