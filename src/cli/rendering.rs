//! From a run folder to its verdicts and reports: what `run` does at its end and `report` again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;

use crate::evidence::folder::{FolderError, RunFolder};
use crate::evidence::{Evidence, StopReason};
use crate::exit::Exit;
use crate::plan::Plan;
use crate::report::{FORMATS, Run};
use crate::verdict::{Status, Verdicts, judge};

use super::Failure;
use super::options::OnInconclusive;
use super::results::Results;

/// What came of judging a run folder.
pub(super) struct Judged {
    /// The verdicts.
    pub(super) verdicts: Verdicts,
    /// From the first to the last event.
    pub(super) lasted: Duration,
    /// Whether teardown left something behind.
    pub(super) left: bool,
}

/// The copies of the user's files in a run folder, by the names that the plan uses.
pub(super) fn texts(folder: &Path, plan: &Plan) -> BTreeMap<String, String> {
    let copies = [
        (&plan.scenario_file, "scenario.yaml"),
        (&plan.system_file, "system.yaml"),
    ];
    copies
        .into_iter()
        // A copy that cannot be read costs the report a line of context, nothing else.
        .filter_map(|(name, copy)| {
            Some((
                name.clone(),
                std::fs::read_to_string(folder.join(copy)).ok()?,
            ))
        })
        .collect()
}

/// How the command exits because of a run.
pub(super) fn exit_of(judged: &Judged, inconclusive: OnInconclusive) -> Exit {
    match exit_of_verdicts(&judged.verdicts, inconclusive) {
        // What held is worth nothing to those who have to clean up.
        Exit::Held if judged.left => Exit::NotCarriedOut,
        exit => exit,
    }
}

fn exit_of_verdicts(verdicts: &Verdicts, inconclusive: OnInconclusive) -> Exit {
    match (exit_of_stop(verdicts.ended), verdicts.status()) {
        (exit @ (Exit::Interrupted | Exit::Terminated), _) => exit,
        // A violated property is never hidden by what went wrong later.
        (_, Status::Fail) => Exit::Violated,
        (Exit::Held, Status::Inconclusive) if inconclusive == OnInconclusive::Fail => {
            Exit::Inconclusive
        }
        (exit, _) => exit,
    }
}

/// How the command exits because of how a run ended, whatever its verdicts.
pub(super) fn exit_of_stop(reason: StopReason) -> Exit {
    match reason {
        StopReason::Finished => Exit::Held,
        StopReason::Failed => Exit::NotCarriedOut,
        StopReason::Interrupt | StopReason::SecondInterrupt => Exit::Interrupted,
        StopReason::Terminate | StopReason::SecondTerminate => Exit::Terminated,
    }
}

fn cannot_keep(error: FolderError, folder: &RunFolder) -> Failure {
    if !error.is_full() {
        return Failure::not_carried_out(error);
    }
    Failure::not_carried_out(anyhow!(
        "{error}\n  help: make room; `chaos report {}` then judges what was kept",
        folder.path().display()
    ))
}

/// Judges what the folder holds, writes every report into it, under names with this prefix, and
/// adds it to the results.
pub(super) fn judge_and_render(
    folder: &RunFolder,
    prefix: &str,
    plan: &Plan,
    texts: &BTreeMap<String, String>,
    results: &mut Results,
) -> Result<Judged, Failure> {
    let evidence = Evidence::read(folder.path()).map_err(Failure::not_carried_out)?;
    let verdicts = judge(plan, &evidence);
    let run = Run {
        plan,
        evidence: &evidence,
        verdicts: &verdicts,
        files: texts,
    };
    // First: what was judged must not be hidden by a disk that is full.
    results.add(&run);
    for (name, render) in FORMATS {
        let bytes = render(&run).map_err(Failure::not_carried_out)?;
        folder
            .write(&format!("{prefix}{name}"), &bytes)
            .map_err(|error| cannot_keep(error, folder))?;
    }
    let left = !run.left().is_empty();
    let (first, last) = (evidence.events.first(), evidence.events.last());
    let lasted_ns = last
        .zip(first)
        .map_or(0, |(last, first)| last.at_ns - first.at_ns);
    Ok(Judged {
        verdicts,
        lasted: Duration::from_nanos(lasted_ns),
        left,
    })
}
