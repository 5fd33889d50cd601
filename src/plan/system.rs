//! The resolved system file: services, links, evidence, backlogs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SourceRef;
use super::load::{Capture, Request};
use super::names::*;
use super::quantity::{duration_serde, optional_duration_serde};
use super::template::Template;

/// What is there, how to start it, how to see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SystemPlan {
    /// The system's name.
    pub name: String,
    /// The project folder: where the system file lies. Paths of the file are relative to it.
    pub folder: String,
    /// The values of `allow-env`, resolved.
    pub environment: BTreeMap<String, String>,
    /// What is started, in the order of the file.
    pub services: Vec<ServicePlan>,
    /// Every arrow; one proxy each. Always holds the links of the load.
    pub links: Vec<LinkPlan>,
    /// Databases that the harness reads, past the proxies.
    pub databases: Vec<DatabasePlan>,
    /// Requests sent once before the warm-up.
    pub setup: Vec<SetupPlan>,
    /// Saga types.
    pub sagas: Vec<SagaPlan>,
    /// Who must see which events.
    pub consumers: Vec<ConsumerPlan>,
    /// Where evidence comes from.
    pub evidence: Vec<SourcePlan>,
    /// What must be zero before the run counts as drained.
    pub backlogs: Vec<BacklogPlan>,
}

/// A service: one process (group) of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServicePlan {
    /// Its name.
    pub name: ServiceName,
    /// Where it was declared.
    pub source: SourceRef,
    /// argv. Never a shell.
    pub command: Vec<Template>,
    /// Working directory, relative to the system's folder.
    pub dir: String,
    /// argv lists that run before it; each must exit 0.
    pub prepare: Vec<Vec<Template>>,
    /// A job: ready when it exits 0.
    pub once: bool,
    /// Started after these are ready.
    pub needs: Vec<ServiceName>,
    /// Its ports; `None` is a free one.
    pub ports: BTreeMap<PortName, Option<u16>>,
    /// Its environment beyond PATH, HOME, LANG and TZ.
    pub env: BTreeMap<String, Template>,
    /// Files rendered into its data folder.
    pub files: Vec<FilePlan>,
    /// How to tell that it is ready.
    pub ready: Ready,
    /// How long that may take.
    #[serde(with = "duration_serde")]
    pub ready_within: Duration,
    /// The signal that asks it to stop: `TERM`, `INT`, `QUIT`, `HUP`.
    pub stop_signal: String,
    /// How long it may take to stop; teardown caps it at 3 s.
    #[serde(with = "duration_serde")]
    pub stop_grace: Duration,
}

/// A file rendered into a service's data folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FilePlan {
    /// Its name below `$(data)`.
    pub name: String,
    /// The file it is made from, relative to the system's folder.
    pub from: String,
    /// What is done to it.
    pub how: FileHow,
}

/// How a rendered file is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileHow {
    /// JSON whose values at these dotted paths (`.psp.url`) are replaced.
    Set(BTreeMap<String, Template>),
    /// Text whose substitutions are filled in.
    Template,
}

/// How to tell that a service is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// Answers 2xx to a GET of this path on this port.
    Http {
        /// The path.
        path: String,
        /// The port.
        port: PortName,
    },
    /// Accepts a connection on this port.
    Tcp(PortName),
    /// Its log holds this text.
    Log(String),
    /// This argv exits 0.
    Command(Vec<Template>),
    /// It exits 0 (`once`).
    Exit,
}

/// A link: one proxy between a caller and a callee's port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LinkPlan {
    /// Caller and callee. The caller of the load's own link is [`LOAD`].
    pub name: LinkName,
    /// Where it was declared (for the load's link: the journey's target).
    pub source: SourceRef,
    /// The callee.
    pub service: ServiceName,
    /// The callee's port.
    pub port: PortName,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The request header that names the unit of work (`Idempotency-Key`); http only.
    pub correlate: Option<String>,
    /// A pinned address to listen on; none is a free port on loopback.
    pub listen: Option<String>,
    /// Declared demand: requests on this link per request on the caller's incoming links of that
    /// route. Empty: learnt in warm-up and baseline.
    pub calls: BTreeMap<String, f64>,
    /// A GET that shows whether the link works, for links that are seldom used.
    pub probe: Option<String>,
    /// Whether connections are refused while the callee is not listening.
    pub refuse_when_down: bool,
    /// The breaker that guards it, when the system says that there is one.
    pub breaker: Option<BreakerPlan>,
}

/// What is spoken on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1: requests are counted and logged.
    Http,
    /// Bytes: only connections are counted.
    Tcp,
}

/// A breaker as the system file describes it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BreakerPlan {
    /// Share of failures at which it opens.
    pub threshold: f64,
    /// Calls it looks back on.
    pub window: u32,
    /// Calls below which it never opens.
    pub min_calls: u32,
    /// How long it stays open before it lets probes through.
    #[serde(with = "duration_serde")]
    pub open_for: Duration,
    /// Probes it lets through in half-open.
    pub probes: u32,
    /// Caller instances, each with a breaker of its own.
    pub instances: u32,
}

/// A database that the harness reads as a witness, never writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatabasePlan {
    /// Its name.
    pub name: DatabaseName,
    /// Its URL; `sqlite://$(data:orders)/orders.db`.
    pub url: Template,
}

/// A request sent before the warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SetupPlan {
    /// Where it was declared.
    pub source: SourceRef,
    /// The service and port it goes to, past the proxies.
    pub service: ServiceName,
    /// The port.
    pub port: PortName,
    /// How often it is sent; `$(key)` differs each time.
    pub repeat: u32,
    /// The request.
    pub request: Request,
    /// What is kept of the answer.
    pub capture: Vec<Capture>,
    /// The feed that each answer's captures become a row of.
    pub into_feed: Option<FeedName>,
}

/// A saga type: what its steps are and how they are undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SagaPlan {
    /// Its name.
    pub name: SagaName,
    /// Forward steps, in order.
    pub steps: Vec<String>,
    /// Step → the step that undoes it.
    pub undo: BTreeMap<String, String>,
    /// The step after which nothing is undone.
    pub pivot: Option<String>,
}

/// A consumer and the event types it must see, as topic patterns (`order.*`, `#`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConsumerPlan {
    /// Its name.
    pub name: ConsumerName,
    /// Topic patterns: `*` is one word, `#` any number of words.
    pub patterns: Vec<String>,
}

/// What an evidence source yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// What the load did (always collected; also derivable by `operations:`).
    Operation,
    /// A request that entered a link.
    Call,
    /// A breaker's claimed change of state.
    Transition,
    /// A saga with its steps.
    Saga,
    /// A committed fact.
    Event,
    /// What a consumer did because of an event.
    Effect,
    /// What a consumer was handed.
    Delivery,
    /// What was given up on.
    DeadLetter,
    /// A line of a ledger.
    Entry,
    /// A version of a view's row.
    Version,
    /// A value of a series.
    Sample,
}

/// The name under which the reading of the proxy's request log is reported.
pub const REQUEST_LOG: &str = "request-log";
/// The name under which the worker's own account of its operations is reported.
pub const OPERATIONS: &str = "operations";

/// A source of evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SourcePlan {
    /// Its name.
    pub name: SourceName,
    /// Where it was declared.
    pub source: SourceRef,
    /// What it yields.
    pub records: RecordKind,
    /// How often it is read during the run; none is once, at the end, after the drain.
    #[serde(with = "optional_duration_serde")]
    pub every: Option<Duration>,
    /// Where it is read.
    pub fetch: Fetch,
    /// jq that picks the rows out of an answer (`.rows[]`); `.[]` or `.` when the file says none.
    pub rows: String,
    /// jq that maps a row to a record; `.` when the file says none.
    pub select: String,
}

/// Where evidence or a backlog is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fetch {
    /// A GET, past the proxies.
    Http(HttpFetch),
    /// A read-only query.
    Sql {
        /// The database.
        database: DatabaseName,
        /// The query.
        query: String,
    },
    /// The JSON lines of a service's log; lines that are not JSON are skipped and counted.
    Log {
        /// The service.
        service: ServiceName,
    },
    /// The run's own operations: those of one step that ended in one of these outcomes.
    Operations {
        /// The step.
        operation: OperationName,
        /// `done`, `accepted`, `refused`, `unknown`, `unsettled`.
        outcomes: Vec<super::load::OutcomeClass>,
    },
}

/// A GET of an evidence endpoint, page by page when it has a cursor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HttpFetch {
    /// The service.
    pub service: ServiceName,
    /// Its port.
    pub port: PortName,
    /// Path and query.
    pub path: Template,
    /// Headers.
    pub headers: BTreeMap<String, Template>,
    /// The value of the query parameter `after` from the second page on; needs `cursor`.
    pub after: Option<Template>,
    /// jq for the next cursor in an answer; null or absent ends the paging.
    pub cursor: Option<String>,
}

/// A backlog: a number that must reach zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BacklogPlan {
    /// Its name.
    pub name: BacklogName,
    /// Where it was declared.
    pub source: SourceRef,
    /// Where it is read.
    pub fetch: Fetch,
    /// jq for the number; null is an error, not zero.
    pub select: String,
}
