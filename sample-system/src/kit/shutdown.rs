//! When to stop: politely, and at once.
//!
//! The first SIGTERM or SIGINT asks for a graceful end, the second for an end now. Nothing here ends the
//! process: `Service::serve` returns, and so does `main`.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two wishes to stop; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    gracefully: CancellationToken,
    now: CancellationToken,
}

impl Stop {
    /// Stops that only [`Stop::ask`] and [`Stop::insist`] trigger. For tests.
    pub fn by_hand() -> Self {
        Self::default()
    }

    /// Stops on SIGTERM and SIGINT of this process: the first is a wish, the second an order.
    ///
    /// # Errors
    /// The kernel refused to install the handlers.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let told = stop.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    Some(()) = term.recv() => "SIGTERM",
                    Some(()) = int.recv() => "SIGINT",
                    else => return,
                };
                tracing::info!(signal = name, "signal received");
                if told.gracefully.is_cancelled() {
                    told.insist();
                    return;
                }
                told.ask();
            }
        });
        Ok(stop)
    }

    /// Asks for a graceful end.
    pub fn ask(&self) {
        self.gracefully.cancel();
    }

    /// Asks for an end without waiting for anything.
    pub fn insist(&self) {
        self.gracefully.cancel();
        self.now.cancel();
    }

    /// Whether a graceful end was asked for.
    pub fn asked(&self) -> bool {
        self.gracefully.is_cancelled()
    }

    /// Returns when a graceful end was asked for.
    pub async fn wait(&self) {
        self.gracefully.cancelled().await;
    }

    /// Returns when an end at once was asked for.
    pub async fn wait_now(&self) {
        self.now.cancelled().await;
    }
}
