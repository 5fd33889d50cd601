//! The two clocks of a service: a monotonic one for every decision, a wall clock for what people read.
//!
//! Never used the other way round: leases, breakers and deadlines must not jump when somebody sets the
//! time. Next: `breaker`, which takes its time from here or, in tests, from a clock moved by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`: comparable between all processes under one kernel.
pub fn mono_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds * 1_000_000_000 + nanoseconds
}

/// Milliseconds since the Unix epoch. For evidence and for rows in a database, never for a decision
/// within one process.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Where a component takes its monotonic time from.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    ByHand(Arc<AtomicU64>),
}

impl Clock {
    /// The kernel's monotonic clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it. For tests.
    pub fn by_hand() -> Self {
        Self(Source::ByHand(Arc::default()))
    }

    /// Nanoseconds since an origin that does not change while the clock lives.
    pub fn now_ns(&self) -> u64 {
        match &self.0 {
            Source::System => mono_ns(),
            Source::ByHand(ns) => ns.load(Ordering::SeqCst),
        }
    }

    /// Moves a clock made by [`Clock::by_hand`]; the system's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::ByHand(ns) = &self.0 {
            let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            ns.fetch_add(by, Ordering::SeqCst);
        }
    }
}
