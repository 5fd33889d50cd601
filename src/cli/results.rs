//! `--json` and `--junit`: what the runs of one command came to, written once, when the last of
//! them has ended or none is to follow.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use crate::evidence::StopReason;
use crate::plan::Plan;
use crate::report::outcome::Outcome;
use crate::report::{self, Inconclusive, Run, junit};

use super::options::{OnInconclusive, Outputs};
use super::{Failure, output};

/// Outcomes in the order of the runs.
pub(super) struct Results {
    outputs: Outputs,
    inconclusive: Inconclusive,
    outcomes: Vec<Outcome>,
    suites: Vec<junit::TestSuite>,
}

impl Results {
    /// None yet, to be written where the flags say.
    ///
    /// # Errors
    ///
    /// When a flag names a place that cannot hold a file: better now than after the runs.
    pub(super) fn new(outputs: &Outputs) -> Result<Results, Failure> {
        check("--json", outputs.json.as_ref())?;
        check("--junit", outputs.junit.as_ref())?;
        let inconclusive = match outputs.inconclusive {
            OnInconclusive::Fail => Inconclusive::Fail,
            OnInconclusive::Warn => Inconclusive::Warn,
        };
        Ok(Results {
            outputs: outputs.clone(),
            inconclusive,
            outcomes: Vec::new(),
            suites: Vec::new(),
        })
    }

    /// How many runs it knows of.
    pub(super) fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// What a run came to.
    pub(super) fn add(&mut self, run: &Run<'_>) {
        self.outcomes.push(Outcome::of(run));
        self.suites.push(junit::suite(run, self.inconclusive));
    }

    /// A scenario that there is no judged run of, and why: it must not be missing, and not read as
    /// a success.
    pub(super) fn add_not_run(&mut self, plan: &Plan, ended: StopReason, why: &str) {
        self.outcomes.push(Outcome::not_run(plan, ended, why));
        self.suites.push(junit::not_run(plan, why));
    }

    /// Writes what the flags ask for.
    ///
    /// # Errors
    ///
    /// The first file that cannot be written, after trying the other one.
    pub(super) fn write(self) -> Result<(), Failure> {
        let json = self.outputs.json.as_ref().map(|path| {
            let bytes = report::outcome::render_all(&self.outcomes);
            output::write_to(path, &bytes.map_err(Failure::not_carried_out)?)
        });
        let xml = self.outputs.junit.as_ref().map(|path| {
            let bytes = junit::render(self.suites);
            output::write_to(path, &bytes.map_err(Failure::not_carried_out)?)
        });
        json.unwrap_or(Ok(())).and(xml.unwrap_or(Ok(())))
    }
}

fn check(flag: &str, path: Option<&PathBuf>) -> Result<(), Failure> {
    let Some(path) = path else {
        return Ok(());
    };
    let shown = path.display();
    if path.is_dir() {
        return Err(Failure::usage(anyhow!("`{flag} {shown}` is a folder")));
    }
    match path.parent() {
        Some(folder) if folder != Path::new("") && !folder.is_dir() => {
            Err(Failure::usage(anyhow!(
                "`{flag} {shown}`: there is no folder `{}`",
                folder.display()
            )))
        }
        _ => Ok(()),
    }
}
