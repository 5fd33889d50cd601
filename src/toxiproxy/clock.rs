//! The one clock of the proxy: `CLOCK_MONOTONIC` in nanoseconds, comparable across processes of one
//! machine, which is why it is read directly and not through an opaque `Instant`.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) type Nanos = u64;

/// One microsecond.
pub(crate) const MICROSECOND: Nanos = 1_000;
/// One millisecond.
pub(crate) const MILLISECOND: Nanos = 1_000 * MICROSECOND;

/// The present instant.
pub(crate) fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanos
}

/// A span given in milliseconds by an API caller; negative is zero, and the rest is kept below a
/// thousand years so that sums never overflow.
pub(crate) fn millis(value: i64) -> Nanos {
    const LONGEST_MS: u64 = 1_000_000_000_000;
    u64::try_from(value).unwrap_or(0).min(LONGEST_MS) * MILLISECOND
}
