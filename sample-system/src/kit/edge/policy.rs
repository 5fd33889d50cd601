//! The limits of one outbound edge.

use std::time::Duration;

use serde::Serialize;

use crate::kit::breaker::BreakerPolicy;
use crate::kit::config::Profile;

/// Every limit of one edge, in one place. Start from a constructor and change what differs.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EdgePolicy {
    /// Time-out of one try, milliseconds.
    pub timeout_ms: u64,
    /// No further try with less than this left until the deadline, milliseconds.
    pub retry_needs_ms: u64,
    /// How often a request is tried at most, the first time included.
    pub tries: u32,
    /// The shortest pause before a retry, milliseconds.
    pub backoff_min_ms: u64,
    /// The longest pause before a retry, milliseconds.
    pub backoff_max_ms: u64,
    /// Retries as a share of requests, percent, over ten seconds.
    pub retry_budget_percent: u32,
    /// Calls in flight; one more is refused at once.
    pub bulkhead: usize,
    /// The breaker.
    pub breaker: BreakerPolicy,
}

impl EdgePolicy {
    /// An ordinary edge: 1 s per try (`documents`: 3 s).
    pub fn ordinary(profile: Profile) -> Self {
        let (timeout_ms, backoff_min_ms, backoff_max_ms, bulkhead) = match profile {
            Profile::Fast => (1_000, 50, 500, 160),
            Profile::Documents => (3_000, 2_000, 10_000, 32),
        };
        Self {
            timeout_ms,
            retry_needs_ms: 100,
            tries: 3,
            backoff_min_ms,
            backoff_max_ms,
            retry_budget_percent: 20,
            bulkhead,
            breaker: BreakerPolicy::of(profile),
        }
    }

    /// payments → psp: 2 s per try, and no further try that could not have its full 2 s.
    pub fn psp(profile: Profile) -> Self {
        Self {
            timeout_ms: 2_000,
            retry_needs_ms: 2_000,
            ..Self::ordinary(profile)
        }
    }

    /// orders → payments: longer than payments waits for the provider.
    pub fn payments(profile: Profile) -> Self {
        let timeout_ms = if profile == Profile::Fast {
            4_000
        } else {
            3_000
        };
        Self {
            timeout_ms,
            ..Self::ordinary(profile)
        }
    }

    /// gateway → orders: longer than orders waits for anybody.
    pub fn orders(profile: Profile) -> Self {
        let timeout_ms = if profile == Profile::Fast {
            5_000
        } else {
            10_000
        };
        Self {
            timeout_ms,
            ..Self::ordinary(profile)
        }
    }

    /// Any service → bus: long enough for a long poll, and no retries: the callers are loops.
    pub fn bus(profile: Profile) -> Self {
        Self {
            timeout_ms: 3_000,
            tries: 1,
            ..Self::ordinary(profile)
        }
    }

    /// Time-out of one try.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}
