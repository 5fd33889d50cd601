//! Timers that are right to some ten microseconds: those of the runtime round up to the millisecond, which
//! is more than many delays that are asked for.
//!
//! One task, started with the first connection, waits for the earliest instant and wakes the tasks that wait for
//! it. Setting a timer takes a short lock; a timer that stays as it is takes none.
//!
//! A processor that sleeps takes its time to wake, a virtual one some hundred microseconds. So the bell is set
//! ahead by the lateness it usually has; what it rings early by is waited out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use super::locked;
use crate::bell::Bell;
use crate::toxiproxy::clock::{self, MICROSECOND, Nanos};

/// The bell is set ahead by so much at most.
const MAX_LEAD: Nanos = 200 * MICROSECOND;

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
    /// How long ahead of an instant the bell is set.
    lead: Nanos,
    ring: Ring,
    /// Rings for the task, if that runs.
    bell: Option<Arc<Bell>>,
    over: bool,
}

/// What the bell is set to.
#[derive(Default)]
struct Ring {
    at: Nanos,
    /// For this instant.
    due: Nanos,
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
        state.ring_for(0, 0);
    }
}

impl Shared {
    /// Until the alarm is dropped, or the runtime ends.
    async fn watch(&self, bell: &Bell) {
        while bell.rung().await.is_ok() {
            locked(&self.state).learn(clock::now());
            while locked(&self.state).is_early(clock::now()) {
                tokio::task::yield_now().await;
            }
            let due = {
                let mut state = locked(&self.state);
                if state.over {
                    return;
                }
                let now = clock::now();
                let due = state.take_due(now);
                if let Some((next, _)) = state.waiting.keys().next() {
                    let next = *next;
                    state.ring_for(next, now);
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

    fn ring_for(&mut self, due: Nanos, now: Nanos) {
        let at = due.saturating_sub(self.lead).max(now);
        self.ring = Ring { at, due };
        if let Some(bell) = &self.bell {
            bell.set(at);
        }
    }

    /// Follows the lateness of the bell, little by little.
    fn learn(&mut self, rung: Nanos) {
        // It may have been set again meanwhile.
        if let Some(late) = rung.checked_sub(self.ring.at) {
            let late = late.min(MAX_LEAD);
            self.lead = (7 * self.lead + late) / 8;
        }
    }

    /// Whether the bell rang ahead of the instant it was set for. Set again meanwhile, it will ring again: nobody
    /// may wait for that here.
    fn is_early(&self, now: Nanos) -> bool {
        let first = self.waiting.keys().next();
        self.ring.at <= now && first.is_some_and(|(due, _)| now < *due && *due <= self.ring.due)
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
            state.ring_for(due, now);
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
    async fn task_ends_with_the_alarm() {
        let tasks = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        let alarm = Alarm::default();
        let timer = alarm.timer();
        assert_eq!(tasks(), 1);
        drop((timer, alarm));
        let ended = async {
            while tasks() > 0 {
                tokio::task::yield_now().await;
            }
        };
        let patience = std::time::Duration::from_secs(10);
        tokio::time::timeout(patience, ended).await.unwrap();
    }

    #[test]
    fn bell_is_set_ahead_by_its_usual_lateness() {
        let mut state = State::default();
        let waker = futures_util::task::noop_waker();
        state.waiting.insert((MILLISECOND, 1), waker);
        let mut lead_after = |late: Nanos| {
            state.ring_for(MILLISECOND, 0);
            let rung = state.ring.at + late;
            state.learn(rung);
            assert_eq!(state.is_early(rung), rung < MILLISECOND);
            state.lead
        };
        assert_eq!(lead_after(80 * MICROSECOND), 10 * MICROSECOND);
        let mut learnt = 0;
        for _ in 0..100 {
            learnt = lead_after(80 * MICROSECOND);
        }
        assert!((79 * MICROSECOND..=80 * MICROSECOND).contains(&learnt));
        assert!((70 * MICROSECOND..75 * MICROSECOND).contains(&lead_after(16 * MICROSECOND)));
        for _ in 0..100 {
            assert!(lead_after(3_600_000 * MILLISECOND) <= MAX_LEAD);
        }
    }

    #[test]
    fn ring_that_was_moved_meanwhile_teaches_nothing_and_waits_for_no_other() {
        let mut state = State {
            lead: 50 * MICROSECOND,
            ..State::default()
        };
        state.ring_for(MILLISECOND, 0);
        state.learn(0);
        assert_eq!(state.lead, 50 * MICROSECOND);
        // A ring ahead of now would be late from the start.
        state.ring_for(MILLISECOND, MILLISECOND - 1);
        assert_eq!(state.ring.at, MILLISECOND - 1);
        // What it was set for was cleared, and the next one is not for now.
        let waker = futures_util::task::noop_waker();
        state.waiting.insert((2 * MILLISECOND, 1), waker);
        assert!(!state.is_early(MILLISECOND));
        // It was set for that one while the task was about to look: that is waited for by the bell.
        state.ring_for(2 * MILLISECOND, MILLISECOND);
        assert!(!state.is_early(MILLISECOND));
        assert!(state.is_early(2 * MILLISECOND - 1));
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
