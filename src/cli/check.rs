//! `chaos check`: checks scenarios without running them, for editors and hooks.

use std::io::Write as _;
use std::path::PathBuf;

use crate::exit::Exit;
use crate::terminal::Environment;

use super::{Result, options, planning};

/// Flags of `chaos check`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Scenario files, or folders of them, whose system files are passed over
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
    let planned = planning::plan_all(&args.scenarios, &args.changes, environment)?;
    let files = match planned.len() {
        1 => "1 scenario".to_owned(),
        count => format!("{count} scenarios"),
    };
    for planned in &planned {
        for line in planned.plan.uncounted() {
            let _ = writeln!(
                std::io::stderr(),
                "note: {}: a Toxiproxy does not count, so inconclusive: {line}",
                planned.plan.name
            );
        }
    }
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr(), "{files} checked, no mistakes");
    Ok(Exit::Held)
}
