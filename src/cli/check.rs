//! `chaos check`: checks scenarios without running them, for editors and hooks.

use std::path::PathBuf;

use crate::diagnostic::{Diagnostics, Sources};
use crate::exit::Exit;
use crate::terminal::Environment;

use super::{Result, files, options, plan};

/// Flags of `chaos check`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Scenario files, or folders of them
    #[arg(required = true, value_name = "FILE|DIR")]
    pub scenarios: Vec<PathBuf>,

    #[command(flatten)]
    pub changes: options::Changes,
}

const AFTER_HELP: &str = "\
Examples:
  chaos check scenarios
  chaos check my.yaml --system staging.yaml";

pub(super) fn execute(args: Args, environment: &Environment) -> Result {
    let scenarios = match files::scenarios_of(&args.scenarios) {
        Ok(scenarios) => scenarios,
        Err(mistake) => {
            let mistakes = Diagnostics::one(Sources::default(), *mistake);
            return Ok(plan::show_mistakes(&mistakes, environment));
        }
    };
    let mut exit = Exit::Held;
    let mut mistakes_seen = 0;
    for scenario in &scenarios {
        if let Err(mistakes) = files::plan_of(scenario, &args.changes, environment) {
            mistakes_seen += mistakes.list.len();
            exit = plan::show_mistakes(&mistakes, environment);
        }
    }
    let (files, total) = (counted(scenarios.len(), "scenario"), mistakes_seen);
    let found = match total {
        0 => "no mistakes".to_owned(),
        total => counted(total, "mistake"),
    };
    plan::tell(&format!("{files} checked, {found}\n"));
    Ok(exit)
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
