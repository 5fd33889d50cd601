//! Wakes one task at an instant that may be moved, right to some ten microseconds: the timers of the
//! runtime round up to the millisecond.
//!
//! The proxy's delays and the pace of the load depend on it.

/// Nanoseconds of CLOCK_MONOTONIC.
type Nanos = u64;

pub(crate) use system::Bell;

/// A timer of the kernel that the runtime waits for as for a socket: whoever is woken by it is the thread
/// that goes on with the work.
#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    use super::Nanos;

    /// See the module.
    #[derive(Debug)]
    pub(crate) struct Bell(AsyncFd<OwnedFd>);

    impl Bell {
        /// One that is not set; an error where no descriptor is left.
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for a promise that every `OwnedFd` keeps"
        )]
        pub(crate) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
        }

        /// Sets it to an instant, instead of any other.
        pub(crate) fn set(&self, due: Nanos) {
            // An instant of 0 would switch it off; the kernel knows none in three centuries.
            let due = i64::try_from(due.max(1)).unwrap_or(i64::MAX);
            let none = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let once = Itimerspec {
                it_interval: none,
                it_value: Timespec {
                    tv_sec: due / 1_000_000_000,
                    tv_nsec: due % 1_000_000_000,
                },
            };
            let set = timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &once);
            debug_assert!(set.is_ok(), "an open timer takes every instant: {set:?}");
        }

        /// Waits until it rings; an error when the runtime ends.
        pub(crate) async fn rung(&self) -> io::Result<()> {
            loop {
                let mut ready = self.0.readable().await?;
                let mut times = [0; 8];
                let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut times)?));
                // It was moved between the wake and the reading.
                let Ok(read) = read else { continue };
                // Else the next wait would begin with a reading in vain.
                ready.clear_ready();
                return read.map(drop);
            }
        }
    }
}

/// A timer of the runtime, which rounds up to the millisecond.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::{Nanos, now};

    /// See the module.
    #[derive(Debug)]
    pub(crate) struct Bell {
        due: Mutex<Nanos>,
        moved: Notify,
    }

    impl Bell {
        /// One that is not set.
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self {
                due: Mutex::new(Nanos::MAX),
                moved: Notify::new(),
            })
        }

        /// Sets it to an instant, instead of any other.
        pub(crate) fn set(&self, due: Nanos) {
            *self.due() = due;
            self.moved.notify_one();
        }

        /// Waits until it rings.
        pub(crate) async fn rung(&self) -> io::Result<()> {
            loop {
                let due = *self.due();
                let left = Duration::from_nanos(due.saturating_sub(now()));
                tokio::select! {
                    () = self.moved.notified() => {}
                    () = tokio::time::sleep(left) => {
                        *self.due() = Nanos::MAX;
                        return Ok(());
                    }
                }
            }
        }

        fn due(&self) -> MutexGuard<'_, Nanos> {
            self.due.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(any(test, not(target_os = "linux")))]
fn now() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MILLISECOND: Nanos = 1_000_000;

    async fn rings_at(bell: &Bell, due: Nanos) {
        bell.set(due);
        let rung = tokio::time::timeout(Duration::from_secs(10), bell.rung()).await;
        rung.expect("no ring").unwrap();
        assert!(now() >= due);
    }

    #[tokio::test]
    async fn rings_once_for_each_instant_it_is_set_to() {
        let bell = Bell::new().unwrap();
        for _ in 0..3 {
            rings_at(&bell, now() + MILLISECOND).await;
            assert!(futures_util::poll!(std::pin::pin!(bell.rung())).is_pending());
        }
        // What is past rings at once.
        rings_at(&bell, now() - MILLISECOND).await;
    }

    #[tokio::test]
    async fn rings_for_the_last_instant_it_was_moved_to() {
        let bell = Bell::new().unwrap();
        bell.set(now());
        bell.set(now() + 3_600_000 * MILLISECOND);
        rings_at(&bell, now() + MILLISECOND).await;
    }
}
