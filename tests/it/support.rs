//! What the tests of all parts share: waiting for conditions.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Long enough for anything on a loaded machine; only a failing test ever waits for it.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// How often [`eventually`] looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until `condition` holds and panics with the caller's line when it does not in time.
///
/// The deadline only bounds how long a failing test takes; it is no claim about speed.
#[track_caller]
pub(crate) fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    until_some(what, deadline, || condition().then_some(()));
}

/// Like [`eventually`], for a condition that yields something.
#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "the tests' one place that waits for conditions"
)]
pub(crate) fn until_some<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The `chaos` binary under test.
pub(crate) fn chaos() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_chaos"))
}

/// The fixture service, see `fixture/main.rs`. Cargo builds it before a plain `cargo test`.
pub(crate) fn fixture() -> PathBuf {
    let path = chaos().with_file_name("examples").join("fixture");
    assert!(
        path.exists(),
        "no {}: run `cargo build --example fixture`",
        path.display()
    );
    path
}

/// Whether a process exists and has not ended.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
