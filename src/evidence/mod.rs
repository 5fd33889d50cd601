//! What happened: events as they happen, records as they are collected, on disk and in memory.
//!
//! `run/` writes, `verdict/` and `report/` read; nothing here judges. Evidence is written before it
//! is judged, so that a stored run can be judged again without the system.
//!
//! Read next: [`events`] (the closed [`Event`] enum), [`records`] (the closed set of kinds),
//! [`folder`] (the run folder), then `verdict/mod.rs`.

pub mod clock;
pub mod events;
pub mod folder;
pub mod records;

use std::collections::BTreeMap;

pub use clock::RunClock;
pub use events::{Event, Phase, Stamped, StopReason};
pub use folder::{EventWriter, FolderError, RecordWriter, RunFolder};
pub use records::{
    Call, CallEnd, DeadLetter, Delivery, Effect, Entry, EventRecord, Operation, Record, Saga,
    SagaState, Sample, StepPhase, Transition, Version,
};

pub use crate::plan::system::{OPERATIONS, REQUEST_LOG};
use crate::plan::{LinkName, Plan, SourceName};

/// All evidence of a run, in memory. Records of one kind are in order of collection.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The event stream, in order.
    pub events: Vec<Stamped>,
    /// What the load did, in order of the intended start.
    pub operations: Vec<Operation>,
    /// Requests that entered links, by everybody who tells of them.
    pub calls: Vec<Call>,
    /// Claimed breaker states.
    pub transitions: Vec<Transition>,
    /// Sagas.
    pub sagas: Vec<Saga>,
    /// Committed facts.
    pub committed: Vec<EventRecord>,
    /// What consumers did.
    pub effects: Vec<Effect>,
    /// What consumers were handed.
    pub deliveries: Vec<Delivery>,
    /// What was given up on.
    pub dead_letters: Vec<DeadLetter>,
    /// Ledger lines.
    pub entries: Vec<Entry>,
    /// Versions of views.
    pub versions: Vec<Version>,
    /// Values of series, backlogs among them (series `backlog:NAME`).
    pub samples: Vec<Sample>,
    /// How the reading of each source went.
    pub sources: BTreeMap<SourceName, SourceState>,
    /// Lines of the run folder that could not be read; empty unless somebody damaged it.
    pub damage: Vec<Damage>,
}

impl Evidence {
    /// Calls by link in order of entry, each link's by one witness, as two who saw the same call
    /// would make it two: the request log, else [`Plan::call_source`].
    pub fn calls_by_link(&self, plan: &Plan) -> BTreeMap<&LinkName, Vec<&Call>> {
        let mut by_link: BTreeMap<&LinkName, Vec<&Call>> = BTreeMap::new();
        for call in &self.calls {
            by_link.entry(&call.link).or_default().push(call);
        }
        for (link, calls) in &mut by_link {
            let witness = match plan.toxiproxy {
                None => Some(SourceName::new(REQUEST_LOG)),
                Some(_) => plan.call_source(link),
            };
            calls.retain(|call| witness.as_ref() == Some(&call.source));
            calls.sort_by_key(|call| (call.at_ns, call.connection));
        }
        by_link.retain(|_, calls| !calls.is_empty());
        by_link
    }
}

/// Lines of a file of the run folder that could not be read and were left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file: `call.jsonl`.
    pub file: String,
    /// How many.
    pub lines: u64,
    /// The first of them, from 1.
    pub first_line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// How the reading of a source went, over the whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Rows that became records.
    pub rows: u64,
    /// Rows known to be missing: gaps in sequence numbers outside planned kill windows, rows that
    /// the source had dropped before they were read.
    pub lost: u64,
    /// Why its reading ended before its end: "row 310: answered 503".
    pub error: Option<String>,
    /// How far its times may be off the run clock, ns: 0 unless one came from a wall clock.
    pub clock_error_ns: u64,
}
