//! Timers that are right to some ten microseconds: those of the runtime round up to the millisecond, which
//! is more than many delays that are asked for.
//!
//! One task, started with the first connection, waits for the earliest instant and wakes the tasks that wait for
//! it. Setting a timer takes a short lock; a timer that stays as it is takes none.

mod bell;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use self::bell::Bell;
use super::locked;
use crate::toxiproxy::clock::{self, Nanos};

/// The timers of a server. Its task ends when it is dropped.
#[derive(Default)]
pub(crate) struct Alarm {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By instant, then in order of setting.
    waiting: BTreeMap<(Nanos, u64), Waker>,
    last: u64,
    /// Rings for the task, if that runs.
    bell: Option<Arc<Bell>>,
    over: bool,
}

impl Alarm {
    /// A timer that is not set.
    pub(crate) fn timer(&self) -> Timer {
        // Now: when the first one is set, there may be no descriptor left.
        locked(&self.shared.state).is_watched(&self.shared);
        Timer {
            shared: Arc::clone(&self.shared),
            set: None,
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut state = locked(&self.shared.state);
        state.over = true;
        state.ring_at(0);
    }
}

impl Shared {
    /// Until the alarm is dropped, or the runtime ends.
    async fn watch(&self, bell: &Bell) {
        while bell.rung().await.is_ok() {
            let due = {
                let mut state = locked(&self.state);
                if state.over {
                    return;
                }
                let due = state.take_due(clock::now());
                if let Some((next, _)) = state.waiting.keys().next() {
                    bell.set(*next);
                }
                due
            };
            // Whoever wakes sets the next timer, and must not wait for the lock.
            due.into_iter().for_each(Waker::wake);
        }
    }
}

impl State {
    /// Whether the task runs, which is started if the system has a bell to give.
    fn is_watched(&mut self, shared: &Arc<Shared>) -> bool {
        if self.bell.is_none()
            && let Ok(bell) = Bell::new().map(Arc::new)
        {
            self.bell = Some(Arc::clone(&bell));
            let shared = Arc::clone(shared);
            tokio::spawn(async move { shared.watch(&bell).await });
        }
        self.bell.is_some()
    }

    fn take_due(&mut self, now: Nanos) -> Vec<Waker> {
        let later = self.waiting.split_off(&(now.saturating_add(1), 0));
        let due = std::mem::replace(&mut self.waiting, later);
        due.into_values().collect()
    }

    fn ring_at(&self, due: Nanos) {
        if let Some(bell) = &self.bell {
            bell.set(due);
        }
    }
}

/// A timer of one task.
pub(crate) struct Timer {
    shared: Arc<Shared>,
    set: Option<Set>,
}

struct Set {
    key: (Nanos, u64),
    waker: Waker,
}

impl Timer {
    /// Sets it to wake the task at an instant, instead of any other; true when that has come already, and
    /// it is then not set.
    pub(crate) fn wake_at(&mut self, cx: &Context<'_>, due: Nanos, now: Nanos) -> bool {
        if due <= now {
            self.clear();
            return true;
        }
        if let Some(set) = &self.set
            && set.key.0 == due
            && set.waker.will_wake(cx.waker())
        {
            return false;
        }
        self.clear();
        let mut state = locked(&self.shared.state);
        if !state.is_watched(&self.shared) {
            // Without a bell the task looks at the clock itself, again and again.
            cx.waker().wake_by_ref();
            return false;
        }
        state.last += 1;
        let key = (due, state.last);
        let earliest = state.waiting.keys().next().is_none_or(|first| key < *first);
        state.waiting.insert(key, cx.waker().clone());
        if earliest {
            state.ring_at(due);
        }
        drop(state);
        let waker = cx.waker().clone();
        self.set = Some(Set { key, waker });
        false
    }

    /// Wakes nobody.
    pub(crate) fn clear(&mut self) {
        if let Some(set) = self.set.take() {
            locked(&self.shared.state).waiting.remove(&set.key);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;
    use crate::toxiproxy::clock::MILLISECOND;

    async fn sleep_until(timer: &mut Timer, due: Nanos) {
        poll_fn(|cx| {
            if timer.wake_at(cx, due, clock::now()) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    #[tokio::test]
    async fn timers_fire_in_any_order_and_never_early() {
        let alarm = Alarm::default();
        let now = clock::now();
        let sleeps = [30, 1, 20, 1, 5].map(|ms| {
            let mut timer = alarm.timer();
            tokio::spawn(async move {
                sleep_until(&mut timer, now + ms * MILLISECOND).await;
                clock::now() >= now + ms * MILLISECOND
            })
        });
        for sleep in sleeps {
            assert!(sleep.await.unwrap());
        }
        assert!(locked(&alarm.shared.state).waiting.is_empty());
    }

    #[tokio::test]
    async fn timer_can_be_moved_and_leaves_nothing_behind() {
        let alarm = Alarm::default();
        let mut timer = alarm.timer();
        let now = clock::now();
        let waker = futures_util::task::noop_waker();
        let cx = Context::from_waker(&waker);
        assert!(!timer.wake_at(&cx, now + 3_600_000 * MILLISECOND, now));
        sleep_until(&mut timer, now + MILLISECOND).await;
        assert!(!timer.wake_at(&cx, now + 3_600_000 * MILLISECOND, now));
        assert_eq!(locked(&alarm.shared.state).waiting.len(), 1);
        drop(timer);
        assert!(locked(&alarm.shared.state).waiting.is_empty());
    }
}
