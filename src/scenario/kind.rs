//! What a file is that was given as another: told by its first level of keys, so that a system
//! file in the place of a scenario is not answered with its first unknown key.

use std::path::Path;

use super::yaml::{Node, Value};
use crate::diagnostic::{Diagnostic, shape};

/// The kinds of files that people mix up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Scenario,
    System,
    Schema,
    Outcome,
    Plan,
    /// Nothing, or comments alone.
    Empty,
}

impl Kind {
    /// What it is called: `a scenario`.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Scenario => "a scenario",
            Self::System => "a system file",
            Self::Schema => "a JSON Schema",
            Self::Outcome => "the outcome of a run",
            Self::Plan => "a stored plan",
            Self::Empty => "an empty document",
        }
    }

    /// What a file is by its first level of keys, if they tell.
    pub(super) fn of(tree: &Node) -> Option<Kind> {
        let entries = match &tree.value {
            Value::Null => return Some(Self::Empty),
            Value::Map(entries) => entries,
            _ => return None,
        };
        let has = |name: &str| entries.iter().any(|(key, _)| key.name == name);
        let any = |names: &[&str]| names.iter().any(|name| has(name));
        if has("format-version") {
            return Some(if has("verdicts") {
                Self::Outcome
            } else {
                Self::Plan
            });
        }
        if any(&["$schema", "$defs"]) {
            return Some(Self::Schema);
        }
        match (
            any(&["load", "phases", "expect", "faults"]),
            has("services"),
        ) {
            (true, false) => Some(Self::Scenario),
            (false, true) => Some(Self::System),
            _ => None,
        }
    }
}

/// The mistake of giving a file of another kind, if it is one. `wanted` is a scenario or a system.
pub(super) fn mistaken(tree: &Node, name: &str, wanted: Kind) -> Option<Diagnostic> {
    let found = Kind::of(tree).filter(|found| *found != wanted)?;
    let help = match (found, wanted) {
        (Kind::Empty, Kind::System) => {
            "a system has a `name:`, `services:`, `links:` and `journeys:`".to_owned()
        }
        (Kind::Empty, _) => {
            "a scenario has a `name:`, a `system:`, `load:`, `phases:` and `expect:`".to_owned()
        }
        (_, Kind::System) => "name the file that declares `services:`".to_owned(),
        (Kind::System, _) => format!(
            "give a scenario, whose `system:` names this file; or `chaos run SCENARIO --system {name}`"
        ),
        (Kind::Schema, _) => {
            "schemas are for editors: give a scenario, which is checked anyway".to_owned()
        }
        _ => format!(
            "`chaos report {}` judges that run again; `chaos run` takes scenarios",
            run_of(name)
        ),
    };
    Some(shape::wrong_file(name, found.noun(), wanted.noun(), &help))
}

/// The run folder that a file lies in.
fn run_of(name: &str) -> String {
    match Path::new(name).parent() {
        Some(folder) if folder != Path::new("") => folder.display().to_string(),
        _ => "RUN".to_owned(),
    }
}
