//! The system file: what is there, how to start it, how to see it.
//!
//! The doc comment of every key is what editors show, by way of the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::json::Json;
use super::ports::Ports;
use super::text::{Map, Scalar, Share, Spanned, Text, Time, Unsupported};

/// What is there, how to start it, how to see it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SystemFile {
    /// The system's name.
    pub name: Text,
    /// Variables of your environment that `$(env:NAME)` may use: `NAME: default`. Without a
    /// default (`NAME:`) the variable must be set.
    #[serde(default)]
    pub allow_env: Map<Option<Scalar>>,
    /// The processes to start.
    pub services: Map<Spanned<ServiceFile>>,
    /// Every arrow of the picture, `caller -> callee`; each gets a proxy of its own.
    #[serde(default)]
    pub links: Map<Spanned<LinkFile>>,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    pub external: Option<Spanned<Unsupported>>,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    pub proxies: Option<Spanned<Unsupported>>,
    /// Databases that the harness reads as a witness, past the proxies, never writes.
    #[serde(default)]
    pub databases: Map<DatabaseFile>,
    /// Requests sent once, before the warm-up.
    #[serde(default)]
    pub setup: Vec<Spanned<SetupFile>>,
    /// Values for journeys: `$(pick:FEED)`.
    #[serde(default)]
    pub feeds: Map<Spanned<FeedFile>>,
    /// What users do; a scenario picks some of them.
    #[serde(default)]
    pub journeys: Map<Spanned<JourneyFile>>,
    /// Saga types: their steps and how they are undone.
    #[serde(default)]
    pub sagas: Map<SagaFile>,
    /// Who must see which events, as topic patterns (`order.*`; `#` is any number of words).
    #[serde(default)]
    pub consumers: Map<Vec<String>>,
    /// Where evidence comes from.
    #[serde(default)]
    pub evidence: Map<Spanned<EvidenceFile>>,
    /// What must be zero before a run counts as drained.
    #[serde(default)]
    pub backlogs: Map<Spanned<BacklogFile>>,
}

/// A process to start.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServiceFile {
    /// argv; never a shell. `$(chaos)` is this very binary.
    pub command: Vec<Text>,
    /// Working directory, relative to this file.
    #[serde(default)]
    pub dir: Option<Text>,
    /// argv lists that run before it; each must exit 0.
    #[serde(default)]
    pub prepare: Vec<Vec<Text>>,
    /// A job such as a migration: ready when it exits 0.
    #[serde(default)]
    pub once: bool,
    /// Started after these are ready; default: all at once.
    #[serde(default)]
    pub needs: Vec<Text>,
    /// Its ports: `[http, admin]` for free ones, or `{ http: auto, mgmt: 15672 }` to pin.
    #[serde(default)]
    pub ports: Ports,
    /// Its environment, beyond PATH, HOME, LANG and TZ.
    #[serde(default)]
    pub env: Map<Spanned<Scalar>>,
    /// Files rendered into its data folder.
    #[serde(default)]
    pub files: Map<FileFile>,
    /// How to tell that it is ready; default: its first port accepts a connection.
    #[serde(default)]
    pub ready: Option<Spanned<ReadyFile>>,
    /// How it is asked to stop.
    #[serde(default)]
    pub stop: Option<StopFile>,
    /// Instances. More than one is not supported yet.
    #[serde(default)]
    pub replicas: Option<Spanned<u32>>,
}

/// A file rendered into a service's data folder.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileFile {
    /// JSON file whose values are replaced by `set`.
    #[serde(default)]
    pub from: Option<Text>,
    /// Dotted path to value: `.psp.url: http://$(link:psp)`.
    #[serde(default)]
    pub set: Map<Spanned<Scalar>>,
    /// Text file whose substitutions are filled in; instead of `from`.
    #[serde(default)]
    pub template: Option<Text>,
}

/// How to tell that a service is ready: one of `http`, `tcp`, `log`, `command`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReadyFile {
    /// This path answers 2xx.
    #[serde(default)]
    pub http: Option<Text>,
    /// The port for `http`; default: the only one.
    #[serde(default)]
    pub port: Option<Text>,
    /// This port accepts a connection.
    #[serde(default)]
    pub tcp: Option<Text>,
    /// Its log holds this text.
    #[serde(default)]
    pub log: Option<Text>,
    /// This argv exits 0.
    #[serde(default)]
    pub command: Option<Vec<Text>>,
    /// How long it may take; default 10s.
    #[serde(default)]
    pub within: Option<Time>,
}

/// How a service is asked to stop.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StopFile {
    /// The signal; default TERM.
    #[serde(default)]
    pub signal: Option<Text>,
    /// How long it may take; default 10s. The end of a run caps it at 3 s.
    #[serde(default)]
    pub grace: Option<Time>,
}

/// An arrow: who calls whom.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LinkFile {
    /// Where it leads: `psp.http`.
    pub to: Text,
    /// What is spoken; default http. Requests are counted on http, connections on tcp.
    #[serde(default)]
    pub protocol: Option<Spanned<ProtocolFile>>,
    /// The request header that names the unit of work: `Idempotency-Key`.
    #[serde(default)]
    pub correlate: Option<Text>,
    /// A pinned address for the proxy; default: a free port on loopback.
    #[serde(default)]
    pub listen: Option<Text>,
    /// Declared demand: requests on this link per request of that route to its caller. Default:
    /// learnt in warm-up and baseline.
    #[serde(default)]
    pub calls: Map<f64>,
    /// What happens while the callee is not listening; default `refuse`, as without the proxy.
    #[serde(default)]
    pub when_down: Option<WhenDownFile>,
    /// A request that shows whether the link works, for links that are seldom used.
    #[serde(default)]
    pub probe: Option<ProbeFile>,
    /// The breaker that guards it.
    #[serde(default)]
    pub breaker: Option<BreakerFile>,
}

/// What is spoken on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProtocolFile {
    /// HTTP/1.1: requests are counted and logged.
    Http,
    /// Bytes: connections are counted.
    Tcp,
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    Postgres,
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    Amqp,
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    Redis,
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    Nats,
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    Grpc,
}

/// What a link does while its callee is not listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenDownFile {
    /// Refuses connections, as the callee would.
    Refuse,
    /// Accepts them and closes them.
    Accept,
}

/// A request that shows whether a link works.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProbeFile {
    /// The path.
    pub get: Text,
}

/// A breaker as its owner configured it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BreakerFile {
    /// Share of failures at which it opens.
    pub threshold: Share,
    /// Calls it looks back on.
    pub window: u32,
    /// Calls below which it never opens.
    pub min_calls: u32,
    /// How long it stays open before it lets probes through.
    pub open_for: Time,
    /// Probes it lets through in half-open.
    pub probes: u32,
}

/// A database that the harness reads.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DatabaseFile {
    /// Its URL: `sqlite://$(data:orders)/orders.db`.
    pub url: Text,
}

/// Requests sent once, before the warm-up.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SetupFile {
    /// Where they go: `gateway.http`, past the proxies.
    pub target: Text,
    /// How often; default 1.
    #[serde(default)]
    pub repeat: Option<u32>,
    /// The request.
    pub request: RequestFile,
    /// What is kept of the answer.
    #[serde(default)]
    pub capture: Map<CaptureFile>,
    /// The feed that gets a row of captures for each answer.
    #[serde(default)]
    pub into_feed: Option<Text>,
}

/// Values for journeys.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FeedFile {
    /// The values themselves; a value may be a mapping: `$(pick:FEED.FIELD)`.
    #[serde(default)]
    pub values: Option<Vec<Json>>,
    /// A CSV file whose first line names the fields.
    #[serde(default)]
    pub csv: Option<Text>,
    /// A JSON file that holds a list.
    #[serde(default)]
    pub json: Option<Text>,
    /// `random` (seeded; default) or `sequence`.
    #[serde(default)]
    pub order: Option<FeedOrderFile>,
    /// What happens when a sequence is used up; default `restart`.
    #[serde(default)]
    pub at_end: Option<FeedEndFile>,
}

/// In which order rows are drawn.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FeedOrderFile {
    /// Ticket k draws row k.
    Sequence,
    /// A seeded draw.
    Random,
}

/// What happens when a sequence is used up.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FeedEndFile {
    /// It starts again.
    Restart,
    /// The load ends.
    Stop,
}

/// Steps that one user takes one after the other.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JourneyFile {
    /// Where its requests go: `gateway.http`.
    pub target: Text,
    /// The steps; each is one operation.
    pub steps: Vec<Spanned<StepFile>>,
}

/// One operation of a journey.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StepFile {
    /// The operation's name, unique over all journeys.
    pub name: Text,
    /// A pause before it.
    #[serde(default)]
    pub think: Option<Time>,
    /// The request.
    pub request: RequestFile,
    /// Which statuses mean what; default: 2xx is done, everything else unknown.
    #[serde(default)]
    pub outcome: OutcomeFile,
    /// What is kept of the answer for later steps.
    #[serde(default)]
    pub capture: Map<CaptureFile>,
    /// Polls until the answer holds a value; the whole is one operation.
    #[serde(default)]
    pub until: Option<Spanned<UntilFile>>,
}

/// A request: one of `get`, `post`, `put`, `patch`, `delete` with path and query.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RequestFile {
    /// GET this path.
    #[serde(default)]
    pub get: Option<Text>,
    /// POST to this path.
    #[serde(default)]
    pub post: Option<Text>,
    /// PUT to this path.
    #[serde(default)]
    pub put: Option<Text>,
    /// PATCH this path.
    #[serde(default)]
    pub patch: Option<Text>,
    /// DELETE this path.
    #[serde(default)]
    pub delete: Option<Text>,
    /// Headers.
    #[serde(default)]
    pub headers: Map<Spanned<Scalar>>,
    /// A JSON body; a value that is one substitution alone keeps its type.
    #[serde(default)]
    pub json: Option<Spanned<Json>>,
}

/// Which statuses mean what. Anything else is `unknown`: the effect may have happened.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OutcomeFile {
    /// It happened: `[201]`, `[2xx]`, `[200-204]`.
    #[serde(default)]
    pub done: Option<Vec<Spanned<Scalar>>>,
    /// It exists and will become final, either way.
    #[serde(default)]
    pub accepted: Vec<Spanned<Scalar>>,
    /// It definitely did nothing.
    #[serde(default)]
    pub refused: Vec<Spanned<Scalar>>,
    /// A condition on the body, else the outcome is unknown: `.errors == null`.
    #[serde(default)]
    pub body: Option<Text>,
}

/// Where a captured value is in the answer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CaptureFile {
    /// Path into the JSON body: `.items[0].id`.
    pub json: Text,
}

/// Polling: after 250 ms, doubling to 1 s.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UntilFile {
    /// Path into the JSON body.
    pub json: Text,
    /// The values that end it.
    #[serde(rename = "in")]
    pub values: Vec<Json>,
    /// How long it may take; then the operation is `unsettled`.
    pub within: Time,
}

/// A saga type.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SagaFile {
    /// Forward steps, in order.
    pub steps: Vec<Text>,
    /// Step to the step that undoes it.
    #[serde(default)]
    pub undo: Map<Text>,
    /// The step after which nothing is undone.
    #[serde(default)]
    pub pivot: Option<Text>,
}

/// A source of evidence: one of `http`, `sql`, `log`, `operations`, mapped to records by jq.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EvidenceFile {
    /// What its rows are.
    pub records: Spanned<RecordsFile>,
    /// Read once, after the drain (the default).
    #[serde(default)]
    pub at_end: Option<Spanned<bool>>,
    /// Read this often during the run.
    #[serde(default)]
    pub every: Option<Time>,
    /// A GET of an endpoint.
    #[serde(default)]
    pub http: Option<Spanned<HttpFile>>,
    /// A read-only query.
    #[serde(default)]
    pub sql: Option<Spanned<SqlFile>>,
    /// The JSON lines of a service's log.
    #[serde(default)]
    pub log: Option<Spanned<LogFile>>,
    /// The run's own operations.
    #[serde(default)]
    pub operations: Option<Spanned<OperationsFile>>,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    pub prometheus: Option<Spanned<Unsupported>>,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    pub otlp: Option<Spanned<Unsupported>>,
    /// jq that picks the rows out of an answer: `.rows[]`; default: the list itself.
    #[serde(default)]
    pub rows: Option<Text>,
    /// jq that maps a row to a record; default: the row is the record.
    #[serde(default)]
    pub select: Option<Text>,
}

/// The closed set of record kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RecordsFile {
    /// A request that entered a link: `{ link, at, ended, method, path, key, status }`.
    Call,
    /// A breaker's claimed change of state: `{ link, at, from, to }`.
    Transition,
    /// A saga with its steps: `{ id, key, state, started, ended, steps }`.
    Saga,
    /// A committed fact: `{ id, key, type, version, at }`.
    Event,
    /// What a consumer did because of an event: `{ consumer, event, count, at }`.
    Effect,
    /// What a consumer was handed: `{ consumer, event, at }`.
    Delivery,
    /// What was given up on: `{ consumer, event, reason, at }`.
    DeadLetter,
    /// A line of a ledger: `{ ledger, account, key, amount, unit }`.
    Entry,
    /// A version of a view's row: `{ view, key, version }`.
    Version,
    /// A value of a series: `{ series, at, value }`.
    Sample,
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    Span,
}

/// A GET of an evidence endpoint, past the proxies.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpFile {
    /// `orders.admin/internal/sagas`.
    pub get: Text,
    /// Headers.
    #[serde(default)]
    pub headers: Map<Spanned<Scalar>>,
    /// The value of the query parameter `after` from the second page on: `$(cursor)`.
    #[serde(default)]
    pub after: Option<Text>,
    /// jq for the next cursor in an answer; null ends the paging.
    #[serde(default)]
    pub cursor: Option<Text>,
}

/// A read-only query.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SqlFile {
    /// The database, as `databases:` names it.
    pub database: Text,
    /// The query.
    pub query: Text,
}

/// The log of a service.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LogFile {
    /// The service.
    pub service: Text,
}

/// The run's own operations.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OperationsFile {
    /// The step of a journey.
    pub step: Text,
    /// Those that ended so; default: all.
    #[serde(default)]
    pub outcome: Option<Vec<Spanned<OutcomeWord>>>,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeWord {
    /// It happened.
    Done,
    /// It exists and will become final.
    Accepted,
    /// It did nothing.
    Refused,
    /// Nobody knows.
    Unknown,
    /// An `until` did not come true in time.
    Unsettled,
}

/// A number that must be zero before a run counts as drained: one of `http`, `sql`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BacklogFile {
    /// A GET of an endpoint.
    #[serde(default)]
    pub http: Option<Spanned<HttpFile>>,
    /// A read-only query of one row.
    #[serde(default)]
    pub sql: Option<Spanned<SqlFile>>,
    /// jq for the number; null is an error, not zero.
    pub select: Text,
}
