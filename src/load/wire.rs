//! What a worker and its coordinator say to each other: HTTP on loopback, JSON, a bearer token.
//!
//! The worker always dials. `GET /assignment` → [`Assignment`]; `POST /ready` with [`Ready`];
//! `GET /command` hangs until there is one → [`Command`]; `POST /batch` with [`LoadBatch`] →
//! [`Acknowledged`] (a batch sent twice counts once); `POST /finished` with [`Finished`];
//! `POST /failed` with [`Failed`] instead, when the worker cannot do its part.
//!
//! Both sides are the same binary, so nothing here is versioned.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::evidence::events::{LoadSecond, LoadSummary};
use crate::evidence::{Operation, Phase, RunClock};
use crate::plan::load::OutcomeClass;
use crate::plan::quantity::duration_serde;
use crate::plan::{LinkName, LoadPlan};

/// The environment variable that carries the token to a worker.
pub const TOKEN_VARIABLE: &str = "CHAOS_WORKER_TOKEN";

/// How long one side may be silent before the other takes it for lost.
pub const SILENCE_MAX: Duration = Duration::from_secs(15);

/// How long `GET /command` hangs before it answers [`Command::Wait`].
pub const COMMAND_HOLD: Duration = Duration::from_secs(4);

/// Most operations in one batch, so that a batch stays a few MB.
pub const BATCH_OPERATIONS_MAX: usize = 10_000;

/// Largest body of a message, bytes.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// A worker's part of the load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Assignment {
    /// The seed of the run.
    pub seed: u64,
    /// The load; every feed has its rows, those that setup filled too.
    pub load: LoadPlan,
    /// Where each journey's link begins: `load -> gateway` → `http://127.0.0.1:4711`.
    pub targets: BTreeMap<LinkName, String>,
    /// What the run binds in journeys, by spelling: `run:id`, `run:token`, `env:NAME`.
    pub symbols: BTreeMap<String, Value>,
    /// The run clock: CLOCK_MONOTONIC of the same kernel.
    pub clock: RunClock,
    /// From T0 to the last ticket.
    #[serde(with = "duration_serde")]
    pub duration: Duration,
    /// The phases the load passes through, in order; each gets histograms of its own.
    pub phases: Vec<PhaseSpan>,
    /// Which worker this is, from 0.
    pub worker: u32,
    /// How many there are; ticket k belongs to worker k mod `workers`.
    pub workers: u32,
    /// A ticket that found no free user for this long is dropped.
    #[serde(with = "duration_serde")]
    pub ticket_deadline: Duration,
    /// Whether the worker ends when its standard input does (a local one), or when the coordinator
    /// was silent for [`SILENCE_MAX`] (a remote one).
    pub local: bool,
}

/// A phase on the time line of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PhaseSpan {
    /// The phase.
    pub phase: Phase,
    /// When it begins, from T0; it lasts to the beginning of the next one.
    #[serde(with = "duration_serde")]
    pub from: Duration,
}

/// The worker waits for T0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ready {
    /// Users that wait for tickets.
    pub users: u32,
    /// Those of them that have an open connection.
    pub connected: u32,
}

/// What the coordinator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Nothing new; ask again.
    Wait,
    /// Begin.
    Go {
        /// T0 as CLOCK_MONOTONIC, ns. May lie in the future, never far in the past.
        t0_mono_ns: u64,
    },
    /// Begin nothing more; what is in flight may end within the grace and is cut then.
    Stop {
        /// How long requests in flight may take, ms.
        grace_ms: u64,
    },
}

/// About one second of results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoadBatch {
    /// Counts from 1 without gaps; a batch is sent again until it is acknowledged.
    pub seq: u64,
    /// Operations that ended since the batch before.
    pub operations: Vec<Operation>,
    /// Seconds that are complete since the batch before, each sent once.
    pub seconds: Vec<LoadSecond>,
    /// Histograms of those seconds. Slices of the same second, series and measure add up.
    pub histograms: Vec<HistogramSlice>,
    /// Operations that were lost because the coordinator took none for too long. Any is a reason
    /// to trust nothing.
    pub operations_lost: u64,
}

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Acknowledged {
    /// The highest sequence number up to which every batch was received.
    pub seq: u64,
}

/// The load is over and every batch was acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finished {
    /// The worker's account of the whole.
    pub summary: LoadSummary,
    /// Histograms of each phase.
    pub phases: Vec<PhaseHistogram>,
}

/// The worker could not do its part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failed {
    /// Why, as a phrase.
    pub why: String,
}

/// What a histogram is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Series {
    /// An operation, by name.
    Operation(String),
    /// A journey as a whole, by name, timed from its ticket.
    Journey(String),
}

/// Which duration a histogram holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// From the intended start to the end of the body: the one that is judged.
    Latency,
    /// From the first request sent to the end of the body.
    Service,
    /// From the intended start to the first request sent.
    SendLag,
}

/// A histogram of one second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HistogramSlice {
    /// The second of the load, by intended start.
    pub second: u32,
    /// What it is about.
    pub series: Series,
    /// Whose durations it holds.
    pub outcome: OutcomeClass,
    /// Which durations.
    pub measure: Measure,
    /// µs, HdrHistogram V2 deflate, base64.
    pub encoded: String,
}

/// A histogram of one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PhaseHistogram {
    /// The phase, by intended start.
    pub phase: Phase,
    /// What it is about.
    pub series: Series,
    /// Whose durations it holds.
    pub outcome: OutcomeClass,
    /// Which durations.
    pub measure: Measure,
    /// µs, HdrHistogram V2 deflate, base64.
    pub encoded: String,
}
