//! What one toxic has in common on all connections: the line that they share, the requests that it counted.
//!
//! It stays the same through all changes of the toxic and goes with it.

use std::sync::Mutex;

use crate::toxiproxy::clock::Nanos;
use crate::toxiproxy::engine::locked;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// When the line has sent all that any connection put on it.
    free_at: Mutex<Nanos>,
    requests: Mutex<Requests>,
}

/// How many requests matched, and on how many of them it acted.
#[derive(Debug, Default)]
struct Requests {
    matched: u64,
    chosen: u64,
}

impl Shared {
    /// Occupies the line for `span`, from `earliest` or when it is free: when that is over.
    pub(crate) fn occupy(&self, earliest: Nanos, span: Nanos) -> Nanos {
        let mut free_at = locked(&self.free_at);
        *free_at = (*free_at).max(earliest).saturating_add(span);
        *free_at
    }

    /// Counts a request that matched; whether it is to be acted on: it is an `every`-th, `drawn` says so,
    /// and fewer than `first` were before it. Zero is no such condition.
    pub(crate) fn choose(&self, every: u64, drawn: impl FnOnce() -> bool, first: u64) -> bool {
        let mut requests = locked(&self.requests);
        requests.matched += 1;
        let due = every == 0 || requests.matched.is_multiple_of(every);
        let chosen = due && (first == 0 || requests.chosen < first) && drawn();
        requests.chosen += u64::from(chosen);
        chosen
    }
}
