//! The run clock: CLOCK_MONOTONIC minus the run's origin.
//!
//! Valid for every process under the same kernel boot id, so times that services report as
//! monotonic nanoseconds are comparable to ours. The only place that reads a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The origin of a run's time, and the wall time it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunClock {
    /// CLOCK_MONOTONIC at the origin, ns.
    pub origin_mono_ns: u64,
    /// Wall time at the origin, ms since 1970.
    pub origin_wall_ms: u64,
}

impl RunClock {
    /// Starts the clock of a run now.
    pub fn start() -> Self {
        Self {
            origin_mono_ns: mono_ns(),
            origin_wall_ms: wall_ms(),
        }
    }

    /// ns since the origin.
    pub fn now_ns(&self) -> u64 {
        self.from_mono(mono_ns())
    }

    /// A CLOCK_MONOTONIC instant on this clock; what was before the origin is 0.
    pub fn from_mono(&self, mono_ns: u64) -> u64 {
        mono_ns.saturating_sub(self.origin_mono_ns)
    }

    /// A wall instant on this clock, right while nobody steps the wall clock; error bound of the
    /// caller's own resolution (1 ms).
    pub fn from_wall(&self, wall_ms: u64) -> u64 {
        wall_ms
            .saturating_sub(self.origin_wall_ms)
            .saturating_mul(1_000_000)
    }

    /// The wall time of an instant on this clock, ms since 1970.
    pub fn wall_ms(&self, at_ns: u64) -> u64 {
        self.origin_wall_ms + at_ns / 1_000_000
    }

    /// The CLOCK_MONOTONIC instant of an instant on this clock.
    pub fn to_mono(&self, at_ns: u64) -> u64 {
        self.origin_mono_ns + at_ns
    }
}

/// CLOCK_MONOTONIC in ns.
pub fn mono_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    duration(now).as_nanos() as u64
}

/// Wall time in ms since 1970.
pub fn wall_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    duration(now).as_millis() as u64
}

fn duration(time: rustix::time::Timespec) -> Duration {
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec as u32)
}
