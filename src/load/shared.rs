//! What pacer, users and recorder of one worker share: counters without locks, one channel of
//! notes, two signals.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::evidence::RunClock;
use crate::plan::load::OutcomeClass;

use super::http;
use super::journeys::Journeys;

/// Notes that may wait for the recorder: some minutes of load at any rate this worker reaches.
const NOTES_MAX: usize = 1_000_000;

/// Most seconds that are told apart; a load lasts a day at most.
const SECONDS_MAX: u64 = 2 * 86_400;

/// What the recorder is told.
#[derive(Debug)]
pub(crate) enum Note {
    /// An operation ended.
    Operation(Box<StepEnded>),
    /// A journey ended.
    Journey(JourneyEnded),
    /// A ticket found no free user in time.
    Dropped {
        /// When it was due, run clock.
        due_ns: u64,
    },
}

/// A ticket that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) number: u64,
    /// On the run clock.
    pub(crate) at_ns: u64,
}

/// How a step went. Names, key and trace follow from the indices; the recorder spells them out.
#[derive(Debug)]
pub(crate) struct StepEnded {
    pub(crate) ticket: u64,
    pub(crate) journey: usize,
    pub(crate) step: usize,
    pub(crate) key: Arc<str>,
    pub(crate) intended_ns: u64,
    pub(crate) sent_ns: u64,
    pub(crate) ended_ns: u64,
    pub(crate) result: StepResult,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepResult {
    pub(crate) outcome: OutcomeClass,
    pub(crate) status: Option<u16>,
    pub(crate) problem: Option<Problem>,
    pub(crate) requests: u32,
    pub(crate) captured: Vec<(String, Value)>,
}

/// Why an operation was not answered as declared; [`Problem::text`] is the error class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// No whole answer.
    Http(http::Error),
    /// A status that the outcome map does not name.
    Status(u16),
    /// A body that is no JSON, or says no although the status says yes.
    Body,
    /// The answer lacks what must be captured.
    Capture(String),
    /// The polls ended without a match.
    Unsettled,
    /// A value that cannot be sent.
    Unsendable,
    /// The load was stopped meanwhile.
    Stopped,
}

impl Problem {
    /// The error class of the operation.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Http(error) => error.to_string(),
            Self::Status(status) => format!("status {status}"),
            Self::Body => "body".into(),
            Self::Capture(name) => format!("no `{name}` in the answer"),
            Self::Unsettled => "unsettled".into(),
            Self::Unsendable => "unsendable".into(),
            Self::Stopped => "stopped".into(),
        }
    }
}

/// How a journey went as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JourneyEnded {
    pub(crate) journey: usize,
    /// When its ticket was due, run clock.
    pub(crate) due_ns: u64,
    pub(crate) sent_ns: u64,
    pub(crate) ended_ns: u64,
    /// Whether it came to its last step.
    pub(crate) complete: bool,
    /// The worst outcome of its steps.
    pub(crate) worst: OutcomeClass,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) journeys: Journeys,
    pub(crate) clock: RunClock,
    /// Bound of one request.
    pub(crate) timeout: Duration,
    /// Nothing new begins once this is cancelled.
    pub(crate) stop: CancellationToken,
    /// What is in flight is cut once this is cancelled; implies `stop`.
    pub(crate) cut: CancellationToken,
    /// T0 on the run clock, once it is known.
    t0_ns: OnceLock<u64>,
    notes: flume::Sender<Note>,
    /// Notes that found the channel full.
    pub(crate) notes_lost: AtomicU64,
    pub(crate) issued: AtomicU64,
    /// Everything due before this (from T0) has been issued.
    pub(crate) issued_to_ns: AtomicU64,
    offered: Vec<AtomicU32>,
    open: Vec<AtomicU32>,
    pub(crate) users_ready: AtomicU32,
    pub(crate) users_connected: AtomicU32,
    pub(crate) users_busy: AtomicU32,
    pub(crate) users_busy_max: AtomicU32,
}

impl Shared {
    /// For a load that ends `end` after T0 and whose last operation begins `tail` later at most.
    pub(crate) fn new(
        journeys: Journeys,
        clock: RunClock,
        timeout: Duration,
        end: Duration,
        tail: Duration,
    ) -> (Self, flume::Receiver<Note>) {
        let (notes, received) = flume::bounded(NOTES_MAX);
        let seconds = (end + tail).as_secs().saturating_add(2).min(SECONDS_MAX);
        let counters = || (0..seconds).map(|_| AtomicU32::new(0)).collect();
        let stop = CancellationToken::new();
        let shared = Self {
            journeys,
            clock,
            timeout,
            stop: stop.clone(),
            cut: CancellationToken::new(),
            t0_ns: OnceLock::new(),
            notes,
            notes_lost: AtomicU64::new(0),
            issued: AtomicU64::new(0),
            issued_to_ns: AtomicU64::new(0),
            offered: counters(),
            open: counters(),
            users_ready: AtomicU32::new(0),
            users_connected: AtomicU32::new(0),
            users_busy: AtomicU32::new(0),
            users_busy_max: AtomicU32::new(0),
        };
        (shared, received)
    }

    /// T0 on the run clock, ns; 0 before it is known.
    pub(crate) fn t0_ns(&self) -> u64 {
        self.t0_ns.get().copied().unwrap_or(0)
    }

    /// Fixes T0. Only the first call counts.
    pub(crate) fn begin(&self, t0_ns: u64) {
        let _ = self.t0_ns.set(t0_ns);
    }

    /// Stops issuing now and cuts what is in flight.
    pub(crate) fn cut_now(&self) {
        self.stop.cancel();
        self.cut.cancel();
    }

    /// The second of the load of an instant on the run clock; the last one for what lies beyond.
    pub(crate) fn second(&self, at_ns: u64) -> usize {
        let second = at_ns.saturating_sub(self.t0_ns()) / 1_000_000_000;
        (second as usize).min(self.open.len() - 1)
    }

    /// A ticket was issued.
    pub(crate) fn ticket_issued(&self, due_ns: u64) {
        self.issued.fetch_add(1, Relaxed);
        self.offered[self.second(due_ns)].fetch_add(1, Relaxed);
        self.operation_opened(due_ns);
    }

    /// An operation has its intended start; it is open until the recorder has its note.
    pub(crate) fn operation_opened(&self, intended_ns: u64) {
        self.open[self.second(intended_ns)].fetch_add(1, Relaxed);
    }

    /// The recorder has booked an operation (or a dropped ticket).
    pub(crate) fn operation_booked(&self, intended_ns: u64) {
        self.open[self.second(intended_ns)].fetch_sub(1, Relaxed);
    }

    /// Tickets that were due in a second.
    pub(crate) fn offered(&self, second: usize) -> u64 {
        self.offered[second].load(Relaxed).into()
    }

    /// Operations of a second that the recorder has not booked.
    pub(crate) fn open(&self, second: usize) -> u32 {
        self.open[second].load(Relaxed)
    }

    /// How many seconds are told apart.
    pub(crate) fn seconds(&self) -> usize {
        self.open.len()
    }

    /// Tells the recorder. Never waits: a worker that stalls its users to keep its books would
    /// change what it measures. What does not fit is counted and reported as lost.
    pub(crate) fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            self.notes_lost.fetch_add(1, Relaxed);
        }
    }

    /// A user took a ticket.
    pub(crate) fn user_busy(&self) {
        let busy = self.users_busy.fetch_add(1, Relaxed) + 1;
        self.users_busy_max.fetch_max(busy, Relaxed);
    }

    /// A user waits for a ticket again.
    pub(crate) fn user_idle(&self) {
        self.users_busy.fetch_sub(1, Relaxed);
    }
}
