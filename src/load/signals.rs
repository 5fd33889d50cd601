//! What a signal means to a worker: end the load, tell the coordinator, exit.
//!
//! The `ctrlc` crate is the one goose uses, and it takes one handler per process: ours comes first,
//! so goose's own, whose second SIGINT exits without a word, is refused. tokio's signal streams
//! are no alternative: `ctrlc`, installed later, silences them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Counts the signals (SIGINT, SIGTERM, SIGHUP) and calls `on_signal` with how many there were.
///
/// # Errors
///
/// When this process has such a handler already, as a phrase.
pub(crate) fn install(on_signal: impl Fn(u32) + Send + 'static) -> Result<(), String> {
    let seen = Arc::new(AtomicU32::new(0));
    ctrlc::set_handler(move || on_signal(seen.fetch_add(1, Relaxed) + 1))
        .map_err(|error| format!("no signal handler: {error}"))
}
