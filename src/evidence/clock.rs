//! The run clock: CLOCK_MONOTONIC minus the run's origin.
//!
//! Valid for every process under the same kernel boot id, so times that services report as
//! monotonic nanoseconds are comparable to ours. The only place that reads a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Wall times are told in milliseconds.
const WALL_RESOLUTION_NS: u64 = 1_000_000;

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

    /// A wall instant on this clock, right within [`Self::wall_error_ns`].
    pub fn from_wall(&self, wall_ms: u64) -> u64 {
        wall_ms
            .saturating_sub(self.origin_wall_ms)
            .saturating_mul(1_000_000)
    }

    /// How far wall times are off this clock now: what the wall clock was stepped or slewed by since
    /// the origin, and the resolution of a wall time.
    pub fn wall_error_ns(&self) -> u64 {
        let before_ns = self.now_ns();
        let wall_ms = wall_ms();
        self.error_of(wall_ms, before_ns, self.now_ns())
    }

    /// The error bound that a wall time shows when it was read between two instants on this clock.
    fn error_of(&self, wall_ms: u64, before_ns: u64, after_ns: u64) -> u64 {
        let seen_ns = self.from_wall(wall_ms);
        let off_ns = if seen_ns < before_ns {
            before_ns - seen_ns
        } else {
            seen_ns.saturating_sub(after_ns)
        };
        off_ns + WALL_RESOLUTION_NS
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

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: RunClock = RunClock {
        origin_mono_ns: 1_000,
        origin_wall_ms: 10,
    };

    #[test]
    fn a_wall_clock_that_keeps_pace_is_off_by_its_resolution() {
        assert_eq!(CLOCK.error_of(15, 4_900_000, 5_100_000), 1_000_000);
        // Truncated to a whole millisecond.
        assert_eq!(CLOCK.error_of(15, 5_900_000, 5_950_000), 1_900_000);
        assert!(RunClock::start().wall_error_ns() >= 1_000_000);
    }

    #[test]
    fn a_wall_clock_that_was_stepped_is_off_by_the_step_either_way() {
        assert_eq!(CLOCK.error_of(215, 4_900_000, 5_100_000), 200_900_000);
        assert_eq!(CLOCK.error_of(0, 4_900_000, 5_100_000), 5_900_000);
    }

    #[test]
    fn a_reader_who_was_held_up_between_two_clocks_knows_no_less() {
        assert_eq!(CLOCK.error_of(15, 1_000_000, 900_000_000), 1_000_000);
    }
}
