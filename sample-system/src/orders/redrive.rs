//! Comes back to sagas that could not go on: after a pause, at their deadline, after a death.
//!
//! - Past the deadline: given up at once, because the customer's stock is held.
//! - Waiting for another try: at most 70 each second in total, forward steps before undo, oldest first, so that
//!   a callee that has just come back is not run over. One place in seven belongs to undo, so that it never starves.
//! - Left by another worker whose beat stood still for 3 s of *our* clock: taken over under a new epoch.
//!
//! It decides nothing about an order: `drive.rs` does what `machine.rs` says.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::Shop;
use super::drive::{self, Run};
use super::ledger::{self, Due};
use crate::kit::shutdown::Stop;
use crate::kit::store::StoreError;

/// How often it looks for due sagas.
const TICK: Duration = Duration::from_millis(100);
/// Re-drives per tick: 70 each second.
const PER_TICK: usize = 7;
/// Of these, kept for undo while there is any.
const UNDO_PER_TICK: usize = 1;
/// Sagas given up per tick at most.
const EXPIRED_PER_TICK: usize = 64;
/// How often a worker says that it is alive.
const BEAT: Duration = Duration::from_secs(1);
/// How long a beat may stand still.
const LEASE: Duration = Duration::from_secs(3);
/// Sagas in the hands of this process at most; one more waits for its turn on disk.
const AT_WORK_MAX: usize = 512;

/// Which sagas this process is driving right now; only to keep it from driving one twice.
#[derive(Debug, Default)]
pub(super) struct Desk(Mutex<HashSet<String>>);

/// A saga's place at the desk, given back when dropped.
pub(super) struct Seat {
    shop: Arc<Shop>,
    id: String,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shop.desk.lock().remove(&self.id);
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are being driven.
    pub(super) fn at_work(&self) -> usize {
        self.lock().len()
    }
}

/// A place for the saga `id`; `None` when it is being driven already, or too many are.
pub(super) fn seat(shop: &Arc<Shop>, id: &str) -> Option<Seat> {
    let mut at_work = shop.desk.lock();
    let free = at_work.len() < AT_WORK_MAX && at_work.insert(id.to_owned());
    free.then(|| Seat {
        shop: Arc::clone(shop),
        id: id.to_owned(),
    })
}

/// Drives a saga in the background, unless it is being driven already.
pub(super) fn start(shop: &Arc<Shop>, id: &str, fresh: Option<Run>) {
    let Some(seat) = seat(shop, id) else { return };
    let shop = Arc::clone(shop);
    tokio::spawn(async move {
        if let Err(error) = drive::drive(&shop, &seat.id, fresh).await {
            tracing::warn!(order = seat.id, %error, "saga is left for later");
        }
    });
}

/// Resumes what was left behind, then works until asked to stop, then lets go of its sagas.
pub(super) async fn work(shop: Arc<Shop>, stop: Stop) {
    resume(&shop).await;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    let mut beat_at = Instant::now() + BEAT;
    loop {
        tokio::select! {
            () = stop.wait() => break,
            _ = ticks.tick() => {}
        }
        if let Err(error) = tick(&shop).await {
            tracing::warn!(%error, "due sagas could not be read");
        }
        if Instant::now() >= beat_at {
            beat_at = Instant::now() + BEAT;
            if let Err(error) = watch.beat(&shop).await {
                tracing::warn!(%error, "beat failed");
            }
        }
    }
    if let Err(error) = ledger::let_go(&shop.store, &shop.worker).await {
        tracing::warn!(%error, "sagas were not given back; the next start takes them over");
    }
}

/// Takes over what an earlier start left, as often as it takes.
async fn resume(shop: &Shop) {
    loop {
        match ledger::resume_own(&shop.store, &shop.worker).await {
            Ok(resumed) => {
                tracing::info!(resumed, "sagas of an earlier start resumed");
                return;
            }
            Err(error) => tracing::warn!(%error, "sagas could not be resumed yet"),
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn tick(shop: &Arc<Shop>) -> Result<(), StoreError> {
    let (store, worker) = (&shop.store, &shop.worker);
    let at_work = shop.desk.at_work();
    for id in ledger::due(store, worker, Due::Expired, EXPIRED_PER_TICK + at_work).await? {
        start(shop, &id, None);
    }
    let forward = ledger::due(store, worker, Due::Forward, PER_TICK).await?;
    let undo = ledger::due(store, worker, Due::Undo, PER_TICK).await?;
    for id in share(&forward, &undo) {
        start(shop, id, None);
    }
    Ok(())
}

/// Who gets this tick's places: forward first, but undo always has its own.
fn share<'a>(forward: &'a [String], undo: &'a [String]) -> impl Iterator<Item = &'a String> {
    let for_undo = undo
        .len()
        .min(UNDO_PER_TICK.max(PER_TICK.saturating_sub(forward.len())));
    forward
        .iter()
        .take(PER_TICK - for_undo)
        .chain(undo.iter().take(for_undo))
}

/// What this worker has seen of the others' beats.
#[derive(Default)]
struct Watch(HashMap<String, (i64, Instant)>);

impl Watch {
    async fn beat(&mut self, shop: &Shop) -> Result<(), StoreError> {
        ledger::beat(&shop.store, &shop.worker).await?;
        let others = ledger::others(&shop.store, &shop.worker).await?;
        self.0
            .retain(|name, _| others.iter().any(|(other, _)| other == name));
        for (name, beat) in others {
            if self.stands_still(&name, beat, Instant::now()) {
                let taken = ledger::take_over(&shop.store, &shop.worker, &name).await?;
                tracing::warn!(from = name, taken, "sagas taken over");
            }
        }
        Ok(())
    }

    /// Whether a worker has not moved for a lease; sagas of nobody are free at once.
    fn stands_still(&mut self, name: &str, beat: i64, now: Instant) -> bool {
        if name.is_empty() {
            return true;
        }
        let seen = self.0.entry(name.to_owned()).or_insert((beat, now));
        if seen.0 != beat {
            *seen = (beat, now);
        }
        now.duration_since(seen.1) >= LEASE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(prefix: &str, n: usize) -> Vec<String> {
        (0..n).map(|i| format!("{prefix}{i}")).collect()
    }

    fn shared(forward: usize, undo: usize) -> (usize, usize) {
        let (forward, undo) = (ids("f", forward), ids("u", undo));
        let picked: Vec<_> = share(&forward, &undo).collect();
        let forward = picked.iter().filter(|id| id.starts_with('f')).count();
        (forward, picked.len() - forward)
    }

    #[test]
    fn forward_goes_first_and_undo_never_starves() {
        assert_eq!(shared(7, 7), (6, 1));
        assert_eq!(shared(7, 0), (7, 0));
        assert_eq!(shared(2, 7), (2, 5));
        assert_eq!(shared(0, 7), (0, 7));
        assert_eq!(shared(0, 3), (0, 3));
    }

    #[test]
    fn a_worker_is_given_up_only_after_a_lease_without_a_beat() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        assert!(!watch.stands_still("other", 5, start));
        assert!(!watch.stands_still("other", 6, start + LEASE));
        assert!(!watch.stands_still("other", 6, start + LEASE * 2 - BEAT));
        assert!(watch.stands_still("other", 6, start + LEASE * 2));
        assert!(watch.stands_still("", 0, start));
    }
}
