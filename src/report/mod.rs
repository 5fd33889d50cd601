//! Telling people how a run went: each format is a function from a [`Run`] to bytes.
//!
//! Nothing here runs, judges, reads a clock or touches the disk, and nothing of the machine gets in
//! but what the run folder holds: so `chaos report RUN` writes the same bytes as the run did.
//!
//! A new format is a new file and a line in [`FORMATS`]. Read next: [`outcome`] (for machines),
//! [`html`] (for people; [`timeline`], [`measure`] and [`svg`] are its parts), then `display/`.

mod faults;
pub mod html;
pub mod junit;
mod measure;
mod numbers;
pub mod outcome;
mod sections;
mod svg;
mod tables;
mod timeline;

use std::collections::BTreeMap;

use crate::evidence::{Event, Evidence};
use crate::plan::{Plan, SourceRef};
use crate::verdict::Verdicts;

/// All that a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Run<'r> {
    /// What was to happen.
    pub plan: &'r Plan,
    /// What happened.
    pub evidence: &'r Evidence,
    /// How it was judged.
    pub verdicts: &'r Verdicts,
    /// The texts of the user's files as they were when the run was planned, by the name that
    /// [`SourceRef::file`] uses. A file that is not here is named, but its lines are not shown.
    pub files: &'r BTreeMap<String, String>,
}

impl<'r> Run<'r> {
    /// The run's id, from its first event; `unknown` when the run did not get that far.
    pub fn id(&self) -> &'r str {
        self.evidence
            .events
            .iter()
            .find_map(|stamped| match &stamped.event {
                Event::RunStarted { run_id, .. } => Some(run_id.as_str()),
                _ => None,
            })
            .unwrap_or("unknown")
    }

    /// Wall time of the start, ms since 1970, if the run got that far.
    fn started_wall_ms(&self) -> Option<u64> {
        self.evidence.events.first().map(|first| first.wall_ms)
    }

    /// From the first to the last event, s.
    pub fn lasted_s(&self) -> f64 {
        match (self.evidence.events.first(), self.evidence.events.last()) {
            (Some(first), Some(last)) => last.at_ns.saturating_sub(first.at_ns) as f64 / 1e9,
            _ => 0.0,
        }
    }

    /// What teardown could not stop or remove. Empty unless something is broken.
    pub fn left(&self) -> &'r [String] {
        let events = self.evidence.events.iter().rev();
        let mut left = events.filter_map(|stamped| match &stamped.event {
            Event::TeardownFinished { left, .. } => Some(left.as_slice()),
            _ => None,
        });
        left.next().unwrap_or_default()
    }

    /// The user's own line.
    fn line(&self, source: &SourceRef) -> Option<&'r str> {
        let text = self.files.get(&source.file)?;
        text.lines().nth(source.line.checked_sub(1)? as usize)
    }
}

/// What an inconclusive property does to those who read the report (`--inconclusive`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Inconclusive {
    /// It is an error.
    #[default]
    Fail,
    /// It is skipped, with its reason.
    Warn,
}

/// Why a report could not be rendered.
#[derive(Debug, thiserror::Error)]
#[error("cannot render `{format}`")]
pub struct ReportError {
    /// The format: `report.html`.
    pub format: &'static str,
    /// What its writer said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl ReportError {
    fn new(
        format: &'static str,
    ) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> ReportError {
        move |source| ReportError { format, source }
    }
}

/// A format: a function from a run to bytes.
pub type Format = fn(&Run<'_>) -> Result<Vec<u8>, ReportError>;

/// What every run folder gets, by file name.
pub const FORMATS: &[(&str, Format)] = &[
    ("outcome.json", outcome::render),
    ("report.html", html::render),
];
