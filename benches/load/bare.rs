//! A thread that sleeps to instants of CLOCK_MONOTONIC: what this machine, with everything that runs
//! on it now, allows at best.

use std::num::NonZeroU64;

use chaos_harness::evidence::clock::mono_ns;
use rustix::thread::{clock_nanosleep_absolute, set_current_timer_slack};
use rustix::time::{ClockId, Timespec};

/// Makes this thread's timers exact. Without it the kernel may round wake-ups up by 50 µs.
pub(crate) fn make_timers_exact() {
    // Where it is not allowed the lag shows it.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
}

/// Sleeps to a CLOCK_MONOTONIC instant.
pub(crate) fn sleep_until(mono_at_ns: u64) {
    let wake = Timespec {
        tv_sec: (mono_at_ns / 1_000_000_000) as i64,
        tv_nsec: (mono_at_ns % 1_000_000_000) as i64,
    };
    // Interrupted by a signal: look again.
    while mono_ns() < mono_at_ns {
        let _ = clock_nanosleep_absolute(ClockId::Monotonic, &wake);
    }
}
