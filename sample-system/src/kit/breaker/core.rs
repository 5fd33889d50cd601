//! The breaker's state machine: a function of calls, results and the time that it is told.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Outcome;
use super::policy::BreakerPolicy;
use super::window::{Counts, Recent};

/// How many transitions are kept for evidence.
const KEPT: usize = 1_024;

/// The three states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// A few probes pass.
    HalfOpen,
}

impl State {
    /// The name in evidence and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Open => "OPEN",
            Self::HalfOpen => "HALF_OPEN",
        }
    }
}

/// One change of state.
#[derive(Clone, Debug, Serialize)]
pub struct Transition {
    /// 1 for the first of this incarnation; no gaps.
    pub seq: u64,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// When it took effect, `CLOCK_MONOTONIC` nanoseconds. For open to half-open this is the instant
    /// when the time was up, not the instant when somebody looked.
    pub mono_ns: u64,
    /// The same instant, milliseconds since the Unix epoch.
    pub wall_ms: i64,
    /// What the closed window held at that moment.
    pub window: Counts,
}

/// Proof of an admission: in which generation of states it was given.
#[derive(Debug)]
pub(super) struct Ticket {
    generation: u64,
}

#[derive(Debug)]
pub(super) struct Core {
    policy: BreakerPolicy,
    never_half_opens: bool,
    half_open_admits_all: bool,
    state: State,
    /// When the present state began.
    since_ns: u64,
    generation: u64,
    recent: Recent,
    /// Probes out or succeeded, in the present half-open state.
    probes_taken: u32,
    probes_succeeded: u32,
    transitions: VecDeque<Transition>,
}

impl Core {
    pub(super) fn new(policy: BreakerPolicy, m1: bool, m2: bool) -> Self {
        Self {
            policy,
            never_half_opens: m1,
            half_open_admits_all: m2,
            state: State::Closed,
            since_ns: 0,
            generation: 0,
            recent: Recent::new(policy.trip),
            probes_taken: 0,
            probes_succeeded: 0,
            transitions: VecDeque::new(),
        }
    }

    pub(super) fn policy(&self) -> BreakerPolicy {
        self.policy
    }

    pub(super) fn counts(&mut self, now_ns: u64) -> Counts {
        self.recent.counts(now_ns)
    }

    /// The state at `now_ns`: an open breaker whose time is up *is* half-open, whoever looks first.
    pub(super) fn state(&mut self, now_ns: u64) -> State {
        let due_ns = self
            .since_ns
            .saturating_add(self.policy.open_for_ms * 1_000_000);
        if self.state == State::Open && now_ns >= due_ns && !self.never_half_opens {
            self.change(due_ns, State::HalfOpen);
        }
        self.state
    }

    pub(super) fn admit(&mut self, now_ns: u64) -> Option<Ticket> {
        let admitted = match self.state(now_ns) {
            State::Closed => true,
            State::Open => false,
            State::HalfOpen => {
                let free = self.probes_taken < self.policy.probes.max(1);
                self.probes_taken += 1;
                if !free && !self.half_open_admits_all {
                    self.probes_taken -= 1;
                }
                free || self.half_open_admits_all
            }
        };
        admitted.then_some(Ticket {
            generation: self.generation,
        })
    }

    pub(super) fn record(&mut self, now_ns: u64, ticket: Ticket, outcome: Outcome) {
        if ticket.generation != self.generation {
            return;
        }
        match (self.state, outcome) {
            // An open breaker admits nobody, so no ticket of its generation exists.
            (State::Open, _) | (State::Closed, Outcome::Ignored) => {}
            (State::Closed, outcome) => {
                self.recent.record(now_ns, outcome == Outcome::Failure);
                if self.recent.trips(self.policy.trip, now_ns) {
                    self.change(now_ns, State::Open);
                }
            }
            (State::HalfOpen, Outcome::Ignored) => self.probes_taken -= 1,
            (State::HalfOpen, Outcome::Failure) => self.change(now_ns, State::Open),
            (State::HalfOpen, Outcome::Success) => {
                self.probes_succeeded += 1;
                if self.probes_succeeded >= self.policy.probes.max(1) {
                    self.change(now_ns, State::Closed);
                }
            }
        }
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.generation
    }

    pub(super) fn transitions(&self, after: u64) -> Vec<Transition> {
        self.transitions
            .iter()
            .filter(|change| change.seq > after)
            .cloned()
            .collect()
    }

    /// Gives the transitions after `seen` their wall-clock time, given both clocks at one moment.
    pub(super) fn stamp_wall(&mut self, seen: u64, now_ns: u64, now_wall_ms: i64) {
        for change in self
            .transitions
            .iter_mut()
            .filter(|change| change.seq > seen)
        {
            let ago_ms = now_ns.saturating_sub(change.mono_ns) / 1_000_000;
            change.wall_ms = now_wall_ms - i64::try_from(ago_ms).unwrap_or_default();
        }
    }

    fn change(&mut self, at_ns: u64, to: State) {
        self.generation += 1;
        if self.transitions.len() == KEPT {
            self.transitions.pop_front();
        }
        self.transitions.push_back(Transition {
            seq: self.generation,
            from: self.state,
            to,
            mono_ns: at_ns,
            wall_ms: 0,
            window: self.recent.counts(at_ns),
        });
        self.state = to;
        self.since_ns = at_ns;
        self.probes_taken = 0;
        self.probes_succeeded = 0;
        if to == State::Closed {
            self.recent = Recent::new(self.policy.trip);
        }
    }
}
