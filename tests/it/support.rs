//! What the tests of all parts share: waiting for conditions.

use std::time::{Duration, Instant};

/// How often [`eventually`] looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until `condition` holds and panics with the caller's line when it does not in time.
///
/// The deadline only bounds how long a failing test takes; it is no claim about speed.
#[track_caller]
pub fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    until_some(what, deadline, || condition().then_some(()));
}

/// Like [`eventually`], for a condition that yields something.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "the tests' one place that waits for conditions")]
pub fn until_some<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}
