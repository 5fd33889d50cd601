//! From a run folder to its verdicts and reports: what `run` does at its end and `report` again.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::evidence::Evidence;
use crate::evidence::folder::RunFolder;
use crate::plan::Plan;
use crate::report::{self, FORMATS, Inconclusive, Run};
use crate::verdict::{Verdicts, judge};

use super::Failure;
use super::options::{OnInconclusive, Outputs};

/// What came of judging a run folder.
pub(super) struct Judged {
    /// The verdicts.
    pub(super) verdicts: Verdicts,
    /// From the first to the last event.
    pub(super) lasted: Duration,
}

/// Judges what the folder holds and writes every report into it, and where the flags say.
pub(super) fn judge_and_render(
    folder: &RunFolder,
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
            .write(name, &bytes)
            .map_err(Failure::not_carried_out)?;
    }
    if let Some(path) = &outputs.json {
        let bytes = report::outcome::render(&run).map_err(Failure::not_carried_out)?;
        write_to(path, &bytes)?;
    }
    if let Some(path) = &outputs.junit {
        let inconclusive = match outputs.inconclusive {
            OnInconclusive::Fail => Inconclusive::Fail,
            OnInconclusive::Warn => Inconclusive::Warn,
        };
        let bytes =
            report::junit::render(&[run], inconclusive).map_err(Failure::not_carried_out)?;
        write_to(path, &bytes)?;
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

/// Writes a whole file, or standard output for `-`.
fn write_to(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = if path == Path::new("-") {
        std::io::stdout().lock().write_all(bytes)
    } else {
        let half = path.with_extension("part");
        std::fs::write(&half, bytes).and_then(|()| std::fs::rename(&half, path))
    };
    written
        .with_context(|| format!("cannot write `{}`", path.display()))
        .map_err(Failure::not_carried_out)
}
