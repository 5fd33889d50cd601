//! Keeps the scheduler out of round trips and delays: with both ends left to it, they share a processor or
//! not, and it is awake or not, which makes a direct round trip 6 µs or 100 µs long, as it happens. So each
//! end has a processor of its own, and none of them sleeps. The proxies go where the scheduler puts them.

use std::process::{Child, Command, Stdio};
use std::thread::available_parallelism;

/// Keeps all processors awake until it is dropped.
pub(crate) struct Awake(Vec<Child>);

impl Awake {
    /// By something that never rests, behind everything else, and does not outlive its parent. Without
    /// `setpriv` and `chrt` (util-linux) they may sleep.
    #[expect(
        clippy::disallowed_methods,
        reason = "the benchmark is the spinners' parent"
    )]
    pub(crate) fn keep() -> Self {
        let spin = |_| {
            Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "chrt", "--idle", "0"])
                .args(["sh", "-c", "while :; do :; done"])
                .stderr(Stdio::null())
                .spawn()
                .ok()
        };
        let processors = available_parallelism().map_or(1, usize::from);
        Self((0..processors).filter_map(spin).collect())
    }

    /// Whether they were indeed kept awake.
    fn is_kept(&mut self) -> bool {
        let lives = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        !self.0.is_empty() && self.0.iter_mut().all(lives)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        if !self.is_kept() {
            println!(
                "processors could not be kept awake (`setpriv`, `chrt`): what follows holds their waking"
            );
        }
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Does something on one processor of those allowed, if there are so many.
#[cfg(target_os = "linux")]
pub(crate) fn on_processor<T>(number: usize, work: impl FnOnce() -> T) -> T {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None);
    let is_allowed = |it: &usize| allowed.is_ok_and(|set| set.is_set(*it));
    if let Some(processor) = (0..CpuSet::MAX_CPU).filter(is_allowed).nth(number) {
        let mut one = CpuSet::new();
        one.set(processor);
        let _ = sched_setaffinity(None, &one);
    }
    let done = work();
    // The thread belongs to a pool.
    let _ = allowed.and_then(|allowed| sched_setaffinity(None, &allowed));
    done
}

/// Does something.
#[cfg(not(target_os = "linux"))]
pub(crate) fn on_processor<T>(_: usize, work: impl FnOnce() -> T) -> T {
    work()
}
