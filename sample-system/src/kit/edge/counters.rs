//! What an edge counts about itself. Counters start at zero with each incarnation.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde_json::{Value, json};

/// A number that only rises.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Serialize for Counter {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.0.load(Ordering::Relaxed))
    }
}

/// All counters of one edge.
#[derive(Debug, Default, Serialize)]
pub(super) struct Counters {
    /// Requests that callers asked for.
    pub(super) requests: Counter,
    /// Tries that went out.
    pub(super) attempts: Counter,
    /// Tries answered below 500.
    pub(super) success: Counter,
    /// Tries that failed by the callee's fault, time-outs included.
    pub(super) fail: Counter,
    /// Tries that got no answer in time.
    pub(super) timeout: Counter,
    /// Tries that failed by the fault of a deeper upstream.
    pub(super) upstream: Counter,
    /// Refused by the open breaker.
    pub(super) rejected_breaker: Counter,
    /// Refused by the full bulkhead.
    pub(super) rejected_bulkhead: Counter,
    /// Refused because the deadline had passed.
    pub(super) rejected_deadline: Counter,
    /// Tries beyond the first.
    pub(super) retries: Counter,
    /// Retries that the budget did not allow.
    pub(super) retries_denied: Counter,
    /// Answers that a caller made up instead.
    pub(super) fallback: Counter,
}

impl Counters {
    pub(super) fn view(&self) -> Value {
        json!(self)
    }
}
