//! Why a run ends, decided in one place: the strongest reason so far, which everything that waits
//! can watch. The only place that listens to signals.
//!
//! It stops nothing itself; teardown is one function of the run. A reason is never taken back and
//! never gets weaker.

use std::io;

use tokio::signal::unix::{Signal, SignalKind};
use tokio::sync::{mpsc, watch};

use crate::evidence::StopReason;

/// What a signal means after what was asked before: any second one asks for speed.
fn after(asked: Option<StopReason>, signal: StopReason) -> StopReason {
    match asked.filter(|reason| *reason >= StopReason::Interrupt) {
        None => signal,
        Some(StopReason::Interrupt) => StopReason::SecondInterrupt,
        Some(StopReason::Terminate) => StopReason::SecondTerminate,
        Some(urgent) => urgent,
    }
}

/// The reason to stop, shared by all parts of a run.
#[derive(Debug, Clone)]
pub struct Shutdown {
    reason: watch::Sender<Option<StopReason>>,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown {
            reason: watch::Sender::new(None),
        }
    }
}

impl Shutdown {
    /// Nothing asks for an end yet.
    #[must_use]
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Asks for the end, unless a stronger reason already does.
    pub fn request(&self, reason: StopReason) {
        self.reason.send_if_modified(|current| {
            let stronger = Some(reason) > *current;
            if stronger {
                *current = Some(reason);
            }
            stronger
        });
    }

    /// The strongest reason so far.
    #[must_use]
    pub fn reason(&self) -> Option<StopReason> {
        *self.reason.borrow()
    }

    /// Waits until there is any reason. Can be dropped and called again.
    pub async fn requested(&self) -> StopReason {
        self.at_least(StopReason::Finished).await
    }

    /// Waits until a second signal asks to kill instead of wait. Can be dropped and called again.
    pub async fn urgent(&self) -> StopReason {
        self.at_least(StopReason::SecondInterrupt).await
    }

    async fn at_least(&self, threshold: StopReason) -> StopReason {
        let mut watcher = self.reason.subscribe();
        let strong_enough = |reason: &Option<StopReason>| *reason >= Some(threshold);
        // `self` holds the sender, so this can neither fail nor yield `None`.
        match watcher.wait_for(strong_enough).await {
            Ok(reason) => reason.unwrap_or(threshold),
            Err(_) => threshold,
        }
    }

    /// Turns signals into reasons from now on, until the process ends: SIGINT, SIGTERM and SIGHUP
    /// no longer end it by themselves. The receiver yields once per SIGUSR1, which asks to see
    /// the state of the run; asking faster than it is read counts once.
    ///
    /// Needs a running tokio runtime.
    ///
    /// # Errors
    ///
    /// When the system refuses a signal handler.
    pub fn listen_to_signals(&self) -> io::Result<mpsc::Receiver<()>> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut show = signal(SignalKind::user_defined1())?;
        let (sender, receiver) = mpsc::channel(1);
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                let meant = tokio::select! {
                    _ = interrupt.recv() => StopReason::Interrupt,
                    _ = terminate.recv() => StopReason::Terminate,
                    _ = hang_up.recv() => StopReason::Terminate,
                    _ = show.recv() => {
                        let _ = sender.try_send(());
                        continue;
                    }
                };
                shutdown.request(after(shutdown.reason(), meant));
            }
        });
        Ok(receiver)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that decides what a signal means"
)]
fn signal(kind: SignalKind) -> io::Result<Signal> {
    tokio::signal::unix::signal(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_signal_of_any_kind_is_urgent_and_keeps_the_name_of_the_first() {
        use StopReason::{Failed, Interrupt, SecondInterrupt, SecondTerminate, Terminate};
        let cases = [
            (None, Interrupt, Interrupt),
            (Some(Failed), Terminate, Terminate),
            (Some(Interrupt), Interrupt, SecondInterrupt),
            (Some(Interrupt), Terminate, SecondInterrupt),
            (Some(Terminate), Interrupt, SecondTerminate),
            (Some(SecondInterrupt), Terminate, SecondInterrupt),
        ];
        for (asked, signal, expected) in cases {
            assert_eq!(after(asked, signal), expected, "{asked:?} then {signal:?}");
        }
    }

    #[tokio::test]
    async fn weaker_reason_never_replaces_a_stronger_one() {
        let shutdown = Shutdown::new();
        assert_eq!(shutdown.reason(), None);
        shutdown.request(StopReason::Interrupt);
        shutdown.request(StopReason::Finished);
        assert_eq!(shutdown.requested().await, StopReason::Interrupt);
        shutdown.request(StopReason::SecondInterrupt);
        assert_eq!(shutdown.urgent().await, StopReason::SecondInterrupt);
    }

    #[tokio::test]
    async fn waiter_that_came_first_hears_of_it() {
        let shutdown = Shutdown::new();
        let waiter = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.urgent().await }
        });
        shutdown.request(StopReason::Terminate);
        shutdown.request(StopReason::SecondTerminate);
        assert_eq!(waiter.await.expect("no panic"), StopReason::SecondTerminate);
    }

    #[tokio::test]
    async fn sigusr1_asks_for_the_state_and_stops_nothing() {
        let shutdown = Shutdown::new();
        let mut shows = shutdown.listen_to_signals().expect("handlers");
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::USR1).expect("sent");
        let shown = tokio::time::timeout(std::time::Duration::from_secs(20), shows.recv()).await;
        assert_eq!(shown, Ok(Some(())));
        assert_eq!(shutdown.reason(), None);
    }
}
