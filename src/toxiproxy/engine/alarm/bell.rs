//! Wakes one task at an instant that may be moved.

pub(super) use system::Bell;

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

    use crate::toxiproxy::clock::Nanos;

    /// See the module.
    pub(in super::super) struct Bell(AsyncFd<OwnedFd>);

    impl Bell {
        /// One that is not set; an error where no descriptor is left.
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for a promise that every `OwnedFd` keeps"
        )]
        pub(in super::super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
        }

        /// Sets it to an instant, instead of any other.
        pub(in super::super) fn set(&self, due: Nanos) {
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
        pub(in super::super) async fn rung(&self) -> io::Result<()> {
            loop {
                let mut ready = self.0.readable().await?;
                let mut times = [0; 8];
                let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut times)?));
                // It was moved between the wake and the reading.
                let Ok(read) = read else { continue };
                return read.map(drop);
            }
        }
    }
}

/// A timer of the runtime, which rounds up to the millisecond.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::super::super::locked;
    use crate::toxiproxy::clock::{self, Nanos};

    /// See the module.
    pub(in super::super) struct Bell {
        due: Mutex<Nanos>,
        moved: Notify,
    }

    impl Bell {
        /// One that is not set.
        pub(in super::super) fn new() -> io::Result<Self> {
            Ok(Self {
                due: Mutex::new(Nanos::MAX),
                moved: Notify::new(),
            })
        }

        /// Sets it to an instant, instead of any other.
        pub(in super::super) fn set(&self, due: Nanos) {
            *locked(&self.due) = due;
            self.moved.notify_one();
        }

        /// Waits until it rings.
        pub(in super::super) async fn rung(&self) -> io::Result<()> {
            loop {
                let due = *locked(&self.due);
                let left = Duration::from_nanos(due.saturating_sub(clock::now()));
                tokio::select! {
                    () = self.moved.notified() => {}
                    () = tokio::time::sleep(left) => {
                        *locked(&self.due) = Nanos::MAX;
                        return Ok(());
                    }
                }
            }
        }
    }
}
