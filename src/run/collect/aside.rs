//! Filters run in threads of their own: whatever people write there, such as `last(repeat(.))`, the
//! run stays awake to signals and goes on without the source.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long the filters of one answer, or of some rows, may run; less than a query may.
const WITHIN: Duration = Duration::from_secs(20);

/// Runs the filters of one source or backlog.
pub(crate) struct Aside {
    within: Duration,
    /// Whether one never came to its end. It still runs, and as many more would as were begun.
    endless: AtomicBool,
}

impl Default for Aside {
    fn default() -> Self {
        Self {
            within: WITHIN,
            endless: AtomicBool::new(false),
        }
    }
}

impl Aside {
    /// What `work` yields, or a phrase about why it does not. Work that takes too long is left behind,
    /// ends with the process, and is the last.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        if self.endless.load(Ordering::Relaxed) {
            return Err(self.too_long());
        }
        let (done, result) = oneshot::channel();
        // Nobody takes the result any more when the run was told to stop.
        let run = move || drop(done.send(work()));
        std::thread::Builder::new()
            .spawn(run)
            .map_err(|error| format!("no thread for its filters: {error}"))?;
        match timeout(self.within, result).await {
            Ok(result) => result.map_err(|_| "its filters panicked".to_owned()),
            Err(_) => {
                self.endless.store(true, Ordering::Relaxed);
                Err(self.too_long())
            }
        }
    }

    fn too_long(&self) -> String {
        let within_s = self.within.as_secs();
        format!("its filters did not come to an end within {within_s} s")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_never_ends_is_left_behind_and_nothing_is_begun_after_it() {
        let aside = Aside::default();
        assert_eq!(aside.run(|| 7).await, Ok(7));

        let aside = Aside {
            within: Duration::ZERO,
            ..aside
        };
        let (go, until_then) = mpsc::channel::<()>();
        let stuck = aside.run(move || until_then.recv().is_ok()).await;
        assert!(stuck.is_err_and(|why| why.contains("did not come to an end")));
        let next = aside.run(|| panic!("begun all the same")).await;
        assert!(next.is_err_and(|why: String| why.contains("did not come to an end")));
        drop(go);
    }
}
