//! From a run folder to its verdicts and reports: what `run` does at its end and `report` again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::evidence::folder::RunFolder;
use crate::evidence::{Evidence, StopReason};
use crate::exit::Exit;
use crate::plan::Plan;
use crate::report::{self, FORMATS, Inconclusive, Run};
use crate::verdict::{Status, Verdicts, judge};

use super::options::{OnInconclusive, Outputs};
use super::{Failure, output};

/// What came of judging a run folder.
pub(super) struct Judged {
    /// The verdicts.
    pub(super) verdicts: Verdicts,
    /// From the first to the last event.
    pub(super) lasted: Duration,
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

/// How the command exits because of these verdicts.
pub(super) fn exit_of(verdicts: &Verdicts, inconclusive: OnInconclusive) -> Exit {
    match (verdicts.ended, verdicts.status()) {
        (StopReason::Interrupt | StopReason::SecondInterrupt, _) => Exit::Interrupted,
        (StopReason::Terminate | StopReason::SecondTerminate, _) => Exit::Terminated,
        // A violated property is never hidden by what went wrong later.
        (_, Status::Fail) => Exit::Violated,
        (StopReason::Failed, _) => Exit::NotCarriedOut,
        (StopReason::Finished, Status::Pass) => Exit::Held,
        (StopReason::Finished, Status::Inconclusive) => match inconclusive {
            OnInconclusive::Fail => Exit::Inconclusive,
            OnInconclusive::Warn => Exit::Held,
        },
    }
}

/// Judges what the folder holds and writes every report into it, under names with this prefix,
/// and where the flags say.
pub(super) fn judge_and_render(
    folder: &RunFolder,
    prefix: &str,
    plan: &Plan,
    texts: &BTreeMap<String, String>,
    outputs: &Outputs,
) -> Result<Judged, Failure> {
    let evidence = Evidence::read(folder.path()).map_err(Failure::not_carried_out)?;
    let verdicts = judge(plan, &evidence);
    let run = Run {
        plan,
        evidence: &evidence,
        verdicts: &verdicts,
        files: texts,
    };
    for (name, render) in FORMATS {
        let bytes = render(&run).map_err(Failure::not_carried_out)?;
        folder
            .write(&format!("{prefix}{name}"), &bytes)
            .map_err(Failure::not_carried_out)?;
    }
    if let Some(path) = &outputs.json {
        let bytes = report::outcome::render(&run).map_err(Failure::not_carried_out)?;
        output::write_to(path, &bytes)?;
    }
    if let Some(path) = &outputs.junit {
        let inconclusive = match outputs.inconclusive {
            OnInconclusive::Fail => Inconclusive::Fail,
            OnInconclusive::Warn => Inconclusive::Warn,
        };
        let bytes =
            report::junit::render(&[run], inconclusive).map_err(Failure::not_carried_out)?;
        output::write_to(path, &bytes)?;
    }
    let (first, last) = (evidence.events.first(), evidence.events.last());
    let lasted_ns = last
        .zip(first)
        .map_or(0, |(last, first)| last.at_ns - first.at_ns);
    Ok(Judged {
        verdicts,
        lasted: Duration::from_nanos(lasted_ns),
    })
}
