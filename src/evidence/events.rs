//! The closed set of events of a run: `events.jsonl`.
//!
//! A new event is a new variant. Then update: the writer (`run/`), the live output (`display/`),
//! the time line of the report (`report/`), and whatever verdict rests on it; the compiler lists
//! those that match exhaustively.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::{FaultName, LinkName, ServiceName, SourceName};

use super::RunClock;

/// An event with its instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stamped {
    /// ns on the run clock.
    pub at_ns: u64,
    /// ms since 1970.
    pub wall_ms: u64,
    /// What happened.
    pub event: Event,
}

/// The phases of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Proxies, services, setup.
    Boot,
    /// Load on, nothing judged.
    WarmUp,
    /// What normal looks like.
    Baseline,
    /// From the end of the baseline to the end of the last fault.
    Faults,
    /// After the last fault, load still on.
    Recovery,
    /// Load off, work in flight finishes.
    Drain,
    /// End-of-run evidence is read.
    Collect,
    /// Everything is stopped.
    Teardown,
}

impl Phase {
    /// The name used in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::WarmUp => "warm-up",
            Self::Baseline => "baseline",
            Self::Faults => "faults",
            Self::Recovery => "recovery",
            Self::Drain => "drain",
            Self::Collect => "collect",
            Self::Teardown => "teardown",
        }
    }
}

/// Why a run stopped, weakest first: a later one overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// It came to its end.
    Finished,
    /// It could not be carried out (a service never got ready, the proxy, keeper or worker died).
    Failed,
    /// SIGINT.
    Interrupt,
    /// SIGTERM or SIGHUP.
    Terminate,
    /// Another signal after SIGINT: everything is killed at once.
    SecondInterrupt,
    /// Another signal after SIGTERM or SIGHUP: everything is killed at once.
    SecondTerminate,
}

/// What happened. Instants inside an event are ns on the run clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Event {
    /// The first event of a run.
    RunStarted {
        /// `2026-11-21-0423-7f3a`.
        run_id: String,
        /// The scenario's name.
        scenario: String,
        /// The seed.
        seed: u64,
        /// The version of `chaos`.
        chaos_version: String,
        /// The run clock.
        clock: RunClock,
        /// The kernel's boot id: monotonic times of other processes count only under the same.
        boot_id: String,
        /// The coordinator.
        pid: u32,
    },
    /// The proxy answers.
    ProxyReady {
        /// What it says its version is.
        version: String,
        /// Whether it is ours, with statistics and request logs.
        embedded: bool,
    },
    /// A link has its proxy.
    LinkCreated {
        /// The link.
        link: LinkName,
        /// Where the proxy listens.
        listen: String,
        /// Where it leads.
        upstream: String,
    },
    /// A service was started.
    ServiceSpawned {
        /// The service.
        service: ServiceName,
        /// Its process.
        pid: u32,
        /// Counts the starts of this service in this run, from 1.
        incarnation: u32,
    },
    /// A service is ready.
    ServiceReady {
        /// The service.
        service: ServiceName,
        /// Its incarnation.
        incarnation: u32,
        /// From its start.
        took_ms: u64,
    },
    /// A service's process ended.
    ServiceExited {
        /// The service.
        service: ServiceName,
        /// Its process.
        pid: u32,
        /// Its incarnation.
        incarnation: u32,
        /// Exit code, when it exited.
        code: Option<i32>,
        /// Signal, when it was ended by one.
        signal: Option<i32>,
        /// Whether the run ended it: a fault, a `once` job, or teardown.
        by_us: bool,
        /// The last lines of its log when it was not us.
        log_tail: Vec<String>,
    },
    /// Setup requests were answered.
    SetupFinished {
        /// How many were sent.
        requests: u32,
        /// How long they took.
        took_ms: u64,
    },
    /// A phase began.
    PhaseStarted {
        /// The phase.
        phase: Phase,
        /// How long it is planned to last, ms; 0 when that is not known.
        planned_ms: u64,
    },
    /// The load began: T0, from which the plan's offsets count.
    LoadStarted {
        /// T0 on the run clock, ns.
        t0_ns: u64,
    },
    /// One second of the load, when all operations that were due in it have ended or at the latest
    /// when the worker reports it.
    LoadSecond(LoadSecond),
    /// The load ended; the worker's own account.
    LoadFinished(LoadSummary),
    /// A fault is about to be applied; flushed to disk before the effect.
    FaultApplying {
        /// The fault.
        fault: FaultName,
    },
    /// A fault is on, as confirmed.
    FaultApplied {
        /// The fault.
        fault: FaultName,
        /// When it was asked for.
        asked_ns: u64,
        /// When every live connection (or process) was seen to have it.
        confirmed_ns: u64,
        /// What was seen: "12 of 12 connections", "pid 4711 gone".
        detail: String,
    },
    /// A fault is about to be lifted.
    FaultLifting {
        /// The fault.
        fault: FaultName,
    },
    /// A fault is off, as confirmed.
    FaultLifted {
        /// The fault.
        fault: FaultName,
        /// When it was asked for.
        asked_ns: u64,
        /// When it was seen to be off everywhere.
        confirmed_ns: u64,
        /// What it did to each of its links while it was on. Empty for faults on processes.
        bites: Vec<Bite>,
    },
    /// After a fault's end: what came of the declared `probe` of one of its links.
    LinkProbed {
        /// The fault.
        fault: FaultName,
        /// The link.
        link: LinkName,
        /// After how many milliseconds it answered; none is not in time.
        took_ms: Option<u64>,
        /// The last answer: `status 200`, or why there was none.
        detail: String,
    },
    /// A fault could not be applied or lifted.
    FaultFailed {
        /// The fault.
        fault: FaultName,
        /// Why.
        why: String,
    },
    /// Cumulative counters of a link, read about once a second.
    LinkStats {
        /// The link.
        link: LinkName,
        /// Connections accepted so far.
        connections: u64,
        /// Connections open now.
        open: u64,
        /// Connections refused or reset by the proxy so far.
        refused: u64,
        /// Bytes towards the callee so far.
        request_bytes: u64,
        /// Bytes towards the caller so far.
        response_bytes: u64,
        /// Requests that entered so far; none on links that are not http.
        requests: Option<u64>,
        /// Connections so far whose bytes could not be read as HTTP/1.1, on links that are http.
        #[serde(default)]
        opaque: u64,
    },
    /// The drain ended.
    DrainEnded {
        /// Whether all backlogs were zero for the quiet period.
        drained: bool,
        /// What was left, by backlog; empty when drained.
        left: BTreeMap<String, f64>,
        /// Backlogs that could not be read, and why.
        unread: BTreeMap<String, String>,
        /// How long it took.
        took_ms: u64,
    },
    /// A source was read to its end, or not.
    SourceRead {
        /// The source.
        source: SourceName,
        /// Rows that became records.
        rows: u64,
        /// Rows known to be missing.
        lost: u64,
        /// Why its reading ended early.
        error: Option<String>,
        /// How far its times may be off the run clock, ns: 0 unless one came from a wall clock.
        #[serde(default)]
        clock_error_ns: u64,
    },
    /// Something worth telling that is no failure.
    Note {
        /// What.
        text: String,
    },
    /// The run is going to stop.
    Stopping {
        /// Why.
        reason: StopReason,
        /// In words: "interrupted", "service `orders` exited with 1 before it was ready".
        why: String,
    },
    /// Everything that was started was stopped.
    TeardownFinished {
        /// What was left in spite of all: pids, ports, toxics. Empty unless something is broken.
        left: Vec<String>,
        /// How long it took.
        took_ms: u64,
    },
}

/// One second of the load. Latencies are µs from the intended start, of answered operations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoadSecond {
    /// Which second of the load, from 0, by intended start.
    pub second: u32,
    /// Tickets that were due.
    pub offered: u64,
    /// Operations by outcome.
    pub done: u64,
    /// See [`crate::plan::load::OutcomeClass`].
    pub accepted: u64,
    /// Definitely nothing happened.
    pub refused: u64,
    /// Perhaps something happened.
    pub unknown: u64,
    /// Polls that did not come true.
    pub unsettled: u64,
    /// Tickets that found no free user.
    pub dropped: u64,
    /// Median latency, µs.
    pub p50_us: u64,
    /// 99th percentile, µs.
    pub p99_us: u64,
    /// Largest, µs.
    pub max_us: u64,
}

/// The worker's own account of the whole load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoadSummary {
    /// Tickets issued. Conservation: issued = completed + failed + dropped.
    pub issued: u64,
    /// Journeys that came to their last step.
    pub completed: u64,
    /// Journeys that ended before (an answer without what the next step needs, a stop).
    pub failed: u64,
    /// Tickets that found no free user in time.
    pub dropped: u64,
    /// Requests sent, polls included.
    pub requests: u64,
    /// From ticket due to request sent, 99th percentile, µs.
    pub send_lag_p99_us: u64,
    /// The same, largest.
    pub send_lag_max_us: u64,
    /// CPU time of the worker, s.
    pub cpu_s: f64,
    /// How long the load lasted, s.
    pub wall_s: f64,
    /// Most users that were busy at once.
    pub users_busy_max: u32,
}

/// What a fault did to a link while it was on: the proof that it bit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bite {
    /// The link, or none for the sum.
    pub link: Option<LinkName>,
    /// Connections it acted on.
    pub connections: u64,
    /// Requests it held, delayed, changed, cut or refused (http links).
    pub requests: u64,
    /// Bytes it delayed or held.
    pub bytes_delayed: u64,
    /// Bytes it dropped.
    pub bytes_dropped: u64,
    /// Connections it closed, reset or refused.
    pub closed: u64,
}
