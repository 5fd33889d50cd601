//! When a breaker opens, for how long, and how it finds out that the callee is well again.

use std::time::Duration;

use serde::Serialize;

use crate::kit::config::Profile;

/// The calls that a breaker looks at to judge the callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// The last so many calls.
    Calls(usize),
    /// The calls of the last `bucket_ms × buckets` milliseconds, forgotten a bucket at a time.
    Time {
        /// Length of one bucket, milliseconds.
        bucket_ms: u64,
        /// Number of buckets.
        buckets: usize,
    },
}

/// What makes a closed breaker open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trip {
    /// At least `percent` of the calls in the window failed, and there were at least `minimum`.
    Rate {
        /// Which calls count.
        window: Window,
        /// Below this number of calls it never opens. A ring smaller than it uses its own size.
        minimum: usize,
        /// Share of failures, in percent, from which it opens (`≥`, as resilience4j).
        percent: u32,
    },
    /// So many failures without a success in between.
    Consecutive {
        /// The number of failures.
        failures: u32,
    },
}

/// The whole policy of one breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BreakerPolicy {
    /// What makes it open.
    pub trip: Trip,
    /// How long it stays open before it lets probes through, milliseconds.
    pub open_for_ms: u64,
    /// How many probes the half-open state admits; all must succeed, one failure opens it again.
    pub probes: u32,
}

impl BreakerPolicy {
    /// The breaker of every edge in this profile.
    pub fn of(profile: Profile) -> Self {
        match profile {
            Profile::Fast => Self {
                trip: Trip::Rate {
                    window: Window::Calls(20),
                    minimum: 10,
                    percent: 50,
                },
                open_for_ms: 2_000,
                probes: 3,
            },
            Profile::Documents => Self {
                trip: Trip::Rate {
                    window: Window::Time {
                        bucket_ms: 1_000,
                        buckets: 10,
                    },
                    minimum: 5,
                    percent: 50,
                },
                open_for_ms: 30_000,
                probes: 1,
            },
        }
    }

    /// [`BreakerPolicy::open_for_ms`] as a duration.
    pub fn open_for(&self) -> Duration {
        Duration::from_millis(self.open_for_ms)
    }
}
