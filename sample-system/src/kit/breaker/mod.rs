//! A circuit breaker with resilience4j's semantics: it stops calling a callee that fails, and finds out
//! with a bounded number of probes when it is well again.
//!
//! ```text
//!            failures ≥ threshold                     open_for has passed
//!  CLOSED ───────────────────────────▶ OPEN ───────────────────────────────▶ HALF_OPEN
//!    ▲                                   ▲      one probe fails                 │  │
//!    │                                   └──────────────────────────────────────┘  │
//!    └─────────────────────────── all probes succeed ──────────────────────────────┘
//! ```
//!
//! - The state is computed when it is looked at, so evidence is right without any traffic.
//! - Half-open admits `probes` calls at a time, counted apart from the closed window. A probe that is
//!   dropped, or says nothing about the callee, gives its place back: the state cannot get stuck.
//! - A result that arrives after a change of state belongs to the past and is ignored.
//!
//! It never decides what a failure is: `edge` does. Next: `breaker::core`, the machine without a clock.

mod core;
mod policy;
mod window;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::clock::{Clock, wall_ms};
use super::config::Defects;
use core::{Core, Ticket};
pub use core::{State, Transition};
pub use policy::{BreakerPolicy, Trip, Window};
pub use window::Counts;

/// What a call said about its callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The callee did its work.
    Success,
    /// The callee failed.
    Failure,
    /// Nothing was learnt: a refusal that names a deeper upstream, a cancelled call, our own refusal.
    Ignored,
}

/// The breaker of one edge; clones share it.
#[derive(Clone, Debug)]
pub struct Breaker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    edge: String,
    clock: Clock,
    core: Mutex<Core>,
}

/// What the evidence endpoint shows of one breaker.
#[derive(Clone, Debug, Serialize)]
pub struct BreakerView {
    /// The edge, `CALLER -> CALLEE`.
    pub link: String,
    /// The state at this moment.
    pub state: State,
    /// What the closed window holds.
    pub window: Counts,
    /// The policy in force.
    pub policy: BreakerPolicy,
}

impl Breaker {
    /// A closed breaker for the edge called `CALLER -> CALLEE`. The defects `m1` (open never becomes
    /// half-open) and `m2` (half-open admits everybody) are looked up in `defects`.
    pub fn new(edge: &str, policy: BreakerPolicy, clock: Clock, defects: &Defects) -> Self {
        let core = Core::new(policy, defects.on("m1"), defects.on("m2"));
        Self(Arc::new(Shared {
            edge: edge.to_owned(),
            clock,
            core: Mutex::new(core),
        }))
    }

    /// Asks to make one call. The permit must be told the outcome; dropped without, it says nothing
    /// about the callee and gives its place back.
    pub fn admit(&self) -> Option<Permit> {
        let ticket = self.with(|core, now_ns| core.admit(now_ns))?;
        Some(Permit {
            breaker: self.clone(),
            ticket: Some(ticket),
        })
    }

    /// The state at this moment.
    pub fn state(&self) -> State {
        self.with(|core, now_ns| core.state(now_ns))
    }

    /// State, window and policy, for evidence.
    pub fn view(&self) -> BreakerView {
        let (state, window, policy) =
            self.with(|core, now_ns| (core.state(now_ns), core.counts(now_ns), core.policy()));
        BreakerView {
            link: self.0.edge.clone(),
            state,
            window,
            policy,
        }
    }

    /// The changes of state after the sequence number `after`, oldest first. The ring is bounded; a gap
    /// in `seq` shows that some were forgotten.
    pub fn transitions(&self, after: u64) -> Vec<Transition> {
        self.with(|core, now_ns| {
            core.state(now_ns);
            core.transitions(after)
        })
    }

    /// Works on the core, then tells the log what changed.
    fn with<T>(&self, work: impl FnOnce(&mut Core, u64) -> T) -> T {
        let mut core = self.lock();
        let now_ns = self.0.clock.now_ns();
        let seen = core.last_seq();
        let result = work(&mut core, now_ns);
        if core.last_seq() != seen {
            core.stamp_wall(seen, now_ns, wall_ms());
            let changes = core.transitions(seen);
            drop(core);
            self.log(&changes);
        }
        result
    }

    fn log(&self, changes: &[Transition]) {
        for change in changes {
            tracing::info!(
                link = %self.0.edge,
                seq = change.seq,
                from = change.from.name(),
                to = change.to.name(),
                mono_ns = change.mono_ns,
                wall_ms = change.wall_ms,
                calls = change.window.calls,
                failures = change.window.failures,
                "breaker changed"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic while the lock was held cannot leave the core half-changed in a way that matters more
        // than losing the breaker would.
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to make one call.
#[derive(Debug)]
pub struct Permit {
    breaker: Breaker,
    ticket: Option<Ticket>,
}

impl Permit {
    /// Tells the breaker how the call ended.
    pub fn record(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(ticket) = self.ticket.take() {
            self.breaker
                .with(|core, now_ns| core.record(now_ns, ticket, outcome));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle(Outcome::Ignored);
    }
}

#[cfg(test)]
mod tests;
