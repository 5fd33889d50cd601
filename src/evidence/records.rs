//! Evidence records: what checkers work on, whatever a system's own shapes are.
//!
//! All times are ns on the run clock. The field names in `records/<kind>.jsonl` and in a `select:`
//! are the kebab-case of those here; a `select` gives times as `at-mono-ns` (CLOCK_MONOTONIC) or
//! `at-wall-ms` and collection turns them into `at-ns`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::load::OutcomeClass;
use crate::plan::{ConsumerName, JourneyName, LinkName, OperationName, SourceName};

/// One operation of the load: a step of a journey, an `until` with all its polls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Operation {
    /// The step's name.
    pub op: OperationName,
    /// Its journey.
    pub journey: JourneyName,
    /// The ticket: counts from 0 over the whole load.
    pub iteration: u64,
    /// The key that `$(key)` stood for.
    pub key: String,
    /// When it should have started.
    pub intended_ns: u64,
    /// When its first request was sent.
    pub sent_ns: u64,
    /// When its last answer was complete, or given up on.
    pub ended_ns: u64,
    /// What became of it.
    pub outcome: OutcomeClass,
    /// The last answer's status; none when there was no answer.
    pub status: Option<u16>,
    /// `timeout`, `connect`, `reset`, `closed`, `body`, `status 503`…; none when it was answered
    /// as declared.
    pub error: Option<String>,
    /// Requests it took (polls).
    pub requests: u32,
    /// What it captured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub captured: BTreeMap<String, Value>,
    /// W3C trace id that its requests carried.
    pub trace: String,
}

impl Operation {
    /// From the intended start to the end, ns.
    pub fn latency_ns(&self) -> u64 {
        self.ended_ns.saturating_sub(self.intended_ns)
    }
}

/// How a request that entered a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallEnd {
    /// Answered in full.
    Answered,
    /// Cut by a fault.
    Cut,
    /// The caller went away first.
    ClosedByCaller,
    /// The callee went away first.
    ClosedByCallee,
    /// Reset by a peer.
    Reset,
    /// The callee could not be reached.
    Refused,
    /// Not over when it was read.
    Open,
}

/// A request that entered a link, from the proxy's own log (or a weaker witness).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Call {
    /// Who tells: the proxy's request log, or a source of `call` records.
    #[serde(default = "request_log", skip_serializing_if = "is_request_log")]
    pub source: SourceName,
    /// The link.
    pub link: LinkName,
    /// Numbers the connections of the link; 0 when its witness does not see them.
    #[serde(default)]
    pub connection: u64,
    /// When it entered the proxy, before any toxic.
    pub at_ns: u64,
    /// When the first byte of the answer went back to the caller.
    pub first_byte_ns: Option<u64>,
    /// When it ended.
    pub ended_ns: Option<u64>,
    /// Method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Hash of the `correlate:` header.
    pub key: Option<String>,
    /// Trace id of its `traceparent`.
    pub trace: Option<String>,
    /// Status of the answer.
    pub status: Option<u16>,
    /// How it ended.
    pub end: CallEnd,
}

fn request_log() -> SourceName {
    SourceName::new(super::REQUEST_LOG)
}

fn is_request_log(source: &SourceName) -> bool {
    source.as_str() == super::REQUEST_LOG
}

/// A breaker's claimed change of state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Transition {
    /// The evidence source.
    pub source: SourceName,
    /// The link it guards.
    pub link: LinkName,
    /// When.
    pub at_ns: u64,
    /// `CLOSED`, `OPEN`, `HALF_OPEN`.
    pub from: String,
    /// The same.
    pub to: String,
    /// The claimer's incarnation; its sequence starts again with each.
    pub incarnation: String,
    /// Position in the claimer's ring: a gap is lost evidence.
    pub seq: u64,
}

/// State of a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SagaState {
    /// Going forward.
    Running,
    /// Undoing.
    Compensating,
    /// All steps done.
    Committed,
    /// All effects undone.
    Compensated,
    /// Given up on, or so often tried that somebody must look.
    Stuck,
}

/// Phase of a saga's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepPhase {
    /// Written before the call.
    Started,
    /// Took effect.
    Done,
    /// Definitely did nothing.
    Failed,
    /// May have taken effect.
    Unknown,
    /// Undo written before the call.
    UndoStarted,
    /// Undone.
    Undone,
    /// Undo failed; it must be tried again.
    UndoFailed,
}

/// A saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Saga {
    /// The evidence source.
    pub source: SourceName,
    /// Its id.
    pub id: String,
    /// What it is about: joins it to operations and entries.
    pub key: String,
    /// The client's key (`$(key)` of the operation that started it), when the system stores it.
    #[serde(default)]
    pub client_key: Option<String>,
    /// Its state.
    pub state: SagaState,
    /// When it started.
    pub started_ns: u64,
    /// When it became final.
    pub ended_ns: Option<u64>,
    /// Its log.
    pub steps: Vec<SagaStep>,
}

/// A line of a saga's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SagaStep {
    /// The step.
    pub name: String,
    /// Its phase.
    pub phase: StepPhase,
    /// When.
    pub at_ns: u64,
    /// Which try, from 1.
    pub attempt: u32,
    /// Which owner: rises each time the saga is taken over.
    pub epoch: u64,
}

/// A committed fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EventRecord {
    /// The evidence source.
    pub source: SourceName,
    /// Its id, unique in the system.
    pub id: String,
    /// What it is about.
    pub key: String,
    /// Its type: `order.confirmed`; matched against the consumers' topic patterns.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its version within the key, when there is one.
    pub version: Option<u64>,
    /// When it was committed.
    pub at_ns: u64,
}

/// What a consumer did because of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Effect {
    /// The evidence source.
    pub source: SourceName,
    /// Who.
    pub consumer: ConsumerName,
    /// The event's id.
    pub event: String,
    /// How often it took effect.
    pub count: u64,
    /// When, if it says so.
    pub at_ns: Option<u64>,
    /// The event's key and version, when it stores them.
    pub key: Option<String>,
    /// See `key`.
    pub version: Option<u64>,
}

/// What a consumer was handed; never added to effects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Delivery {
    /// The evidence source.
    pub source: SourceName,
    /// Who.
    pub consumer: ConsumerName,
    /// The event's id.
    pub event: String,
    /// When.
    pub at_ns: Option<u64>,
}

/// What was given up on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeadLetter {
    /// The evidence source.
    pub source: SourceName,
    /// Who gave up.
    pub consumer: ConsumerName,
    /// The event's id.
    pub event: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at_ns: Option<u64>,
}

/// A line of a ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// The evidence source: one ledger.
    pub source: SourceName,
    /// An account within it (`charge`, `refund`, `stock`).
    pub account: String,
    /// What it is about: compared key by key.
    pub key: String,
    /// Signed amount in the smallest unit.
    pub amount: i64,
    /// The unit: `EUR-cent`, `piece`.
    pub unit: String,
    /// Its position in the ledger, when the ledger numbers its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// When it was written, when the ledger says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ns: Option<u64>,
}

/// A version of a view's row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Version {
    /// The evidence source: one view.
    pub source: SourceName,
    /// The row.
    pub key: String,
    /// A rising number or a digest.
    pub version: Value,
    /// When it was read.
    pub at_ns: u64,
}

/// A value of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sample {
    /// The evidence source; for backlogs `backlog`.
    pub source: SourceName,
    /// The series.
    pub series: String,
    /// When it was read.
    pub at_ns: u64,
    /// Its value.
    pub value: f64,
}

/// A record of any kind, as collection yields it.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// See [`Operation`].
    Operation(Operation),
    /// See [`Call`].
    Call(Call),
    /// See [`Transition`].
    Transition(Transition),
    /// See [`Saga`].
    Saga(Saga),
    /// See [`EventRecord`].
    Event(EventRecord),
    /// See [`Effect`].
    Effect(Effect),
    /// See [`Delivery`].
    Delivery(Delivery),
    /// See [`DeadLetter`].
    DeadLetter(DeadLetter),
    /// See [`Entry`].
    Entry(Entry),
    /// See [`Version`].
    Version(Version),
    /// See [`Sample`].
    Sample(Sample),
}
