//! The driver: does what `machine` says, one saga at a time, and writes down how it went.
//!
//! Everything known is committed before anything new is tried: the end of one step, the facts that
//! follow from it and the start of the next step are one transaction. Between two commits there is
//! exactly one call, so a death at any moment leaves at most one unknown step, which is repeated
//! with the same key.
//!
//! It never waits for time: a saga that cannot go on is parked with a due time, and `redrive.rs`
//! comes back to it.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Shop;
use super::aggregate::{Fact, Order, Reason, State};
use super::events;
use super::ledger::{self, Change, Entry, Record};
use super::machine::{Action, Mode, Phase, Step};
use super::steps::{self, End};
use crate::kit::clock::wall_ms;
use crate::kit::event::Event;
use crate::kit::store::StoreError;

/// A saga at work is due again after this, longer than any call of a step takes; it matters only if
/// we die.
const AT_WORK_MS: i64 = 6_000;
/// Undone or repeated this often without success, a saga counts as stuck: shown, alerted, still
/// tried.
const STUCK_AFTER: i64 = 30;
/// How often a drive starts over when the order changed under it (the customer cancels at most
/// once).
const RELOADS_MAX: usize = 3;
/// The longest pause between two attempts at one step.
const PAUSE_MAX_MS: i64 = 5_000;

/// How a drive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driven {
    /// The saga has ended.
    Ended,
    /// It cannot go on now and will be driven again.
    Parked,
    /// Another worker has it.
    Lost,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DriveError {
    #[error("the saga changed under us")]
    Conflict,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One saga in the hands of this process.
pub(super) struct Run {
    shop: Arc<Shop>,
    record: Record,
    order: Order,
    entries: Vec<Entry>,
    facts: Vec<Fact>,
    /// Who waits to hear how the order ends; dropped = not for now.
    answer: Option<oneshot::Sender<Order>>,
}

/// Drives the saga `id` as far as it goes now, starting with what the caller has just written, if
/// anything, instead of reading it again.
///
/// # Errors
/// The store's. The saga stays due.
pub(super) async fn drive(
    shop: &Arc<Shop>,
    id: &str,
    mut fresh: Option<Run>,
) -> Result<Driven, StoreError> {
    let mut epoch = fresh.as_ref().map(|run| run.record.epoch);
    for _ in 0..RELOADS_MAX {
        let run = match fresh.take() {
            Some(run) => run,
            None => match Run::load(shop, id).await? {
                Some(run) => run,
                None => return Ok(Driven::Lost),
            },
        };
        // A new epoch means that another worker, or a later start of this one, has claimed it.
        if *epoch.get_or_insert(run.record.epoch) != run.record.epoch {
            return Ok(Driven::Lost);
        }
        match run.go().await {
            Ok(driven) => return Ok(driven),
            Err(DriveError::Conflict) => {}
            Err(DriveError::Store(error)) => return Err(error),
        }
    }
    Ok(Driven::Lost)
}

impl Run {
    /// A saga at work; `answer` gets the order once it is final, and is dropped when that takes
    /// longer.
    pub(super) fn new(
        shop: &Arc<Shop>,
        record: Record,
        order: Order,
        answer: Option<oneshot::Sender<Order>>,
    ) -> Self {
        let (entries, facts) = (Vec::new(), Vec::new());
        Self {
            shop: Arc::clone(shop),
            record,
            order,
            entries,
            facts,
            answer,
        }
    }

    async fn load(shop: &Arc<Shop>, id: &str) -> Result<Option<Self>, StoreError> {
        let Some(record) = ledger::load(&shop.store, id).await? else {
            return Ok(None);
        };
        let order = events::load(&shop.store, id).await?;
        Ok(Some(Self::new(shop, record, order, None)))
    }

    async fn go(mut self) -> Result<Driven, DriveError> {
        loop {
            match self.record.saga.next(wall_ms()) {
                Action::Rest => return Ok(Driven::Ended),
                Action::Finish(mode) => return self.finish(mode).await,
                Action::GiveUp(reason) => self.give_up(reason)?,
                Action::Run(Step::Confirm) => self.confirm().await?,
                Action::Run(step) => {
                    if let Some(parked) = self.attempt(step).await? {
                        return Ok(parked);
                    }
                }
                Action::Undo(step) => {
                    if let Some(parked) = self.undo(step).await? {
                        return Ok(parked);
                    }
                }
            }
        }
    }

    /// One attempt at a step: start on disk, call, end in memory (on disk with whatever comes
    /// next).
    async fn attempt(&mut self, step: Step) -> Result<Option<Driven>, DriveError> {
        self.start(step, Phase::Start).await?;
        self.shop
            .killpoints
            .reach("saga.after_start_log")
            .await
            .map_err(StoreError::from)?;
        let end = {
            let (shop, record) = (&self.shop, &self.record);
            steps::attempt(shop, &record.context, &record.id, &self.order, step).await
        };
        self.shop
            .killpoints
            .reach("saga.after_call_before_ok")
            .await
            .map_err(StoreError::from)?;
        match end {
            End::Done(fact) => {
                self.note(step, Phase::Ok, None);
                fact.map_or(Ok(()), |fact| self.happen(fact))?;
                Ok(None)
            }
            End::Rejected(reason, why) => {
                self.note(step, Phase::Fail, Some(why));
                self.give_up(reason)?;
                Ok(None)
            }
            End::Failed(why) => {
                self.note(step, Phase::Fail, Some(why));
                self.park(step).await.map(Some)
            }
            End::Unknown(why) => {
                self.note(step, Phase::Unknown, Some(why));
                self.park(step).await.map(Some)
            }
        }
    }

    /// The pivot: local, and refused by the version when the customer cancelled first.
    async fn confirm(&mut self) -> Result<(), DriveError> {
        self.shop
            .killpoints
            .reach("saga.before_pivot")
            .await
            .map_err(StoreError::from)?;
        self.note(Step::Confirm, Phase::Start, None);
        let user_id = self.order.wish.as_ref().map(|wish| wish.user_id.clone());
        self.happen(Fact::Confirmed {
            user_id: user_id.unwrap_or_default(),
            total_cents: self.order.total_cents.unwrap_or_default(),
        })?;
        self.note(Step::Confirm, Phase::Ok, None);
        self.record.saga.deadline_ms = i64::MAX;
        Ok(())
    }

    fn give_up(&mut self, reason: Reason) -> Result<(), DriveError> {
        self.happen(Fact::Cancelling { reason })?;
        self.record.saga.mode = Mode::Compensating;
        Ok(())
    }

    /// One attempt to undo a step; tried for ever.
    async fn undo(&mut self, step: Step) -> Result<Option<Driven>, DriveError> {
        self.start(step, Phase::UndoStart).await?;
        self.shop
            .killpoints
            .reach("saga.mid_undo")
            .await
            .map_err(StoreError::from)?;
        let undone = {
            let (shop, record) = (&self.shop, &self.record);
            steps::undo(shop, &record.context, &record.id, step).await
        };
        match undone {
            Ok(()) => self.note(step, Phase::UndoOk, None),
            // Seeded defect m10: the error of a compensation is logged and forgotten.
            Err(why) if self.shop.swallows_undo_errors => {
                let order = &self.record.id;
                tracing::error!(order, step = step.name(), why, "compensation failed");
                self.note(step, Phase::UndoOk, None);
            }
            Err(why) => {
                self.note(step, Phase::UndoFail, Some(why));
                return self.park(step).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn finish(mut self, mode: Mode) -> Result<Driven, DriveError> {
        if mode == Mode::Aborted
            && let Some(ending) = self.order.ending()
        {
            self.happen(ending)?;
        }
        self.record.saga.mode = mode;
        self.save(None, i64::MAX, 0).await?;
        Ok(Driven::Ended)
    }

    /// Leaves the saga for later, further away with each attempt.
    async fn park(&mut self, step: Step) -> Result<Driven, DriveError> {
        let tries = self.tries(step);
        if tries >= STUCK_AFTER {
            tracing::error!(order = %self.record.id, tries, "saga is stuck; still trying");
        }
        let compensating = self.record.saga.mode == Mode::Compensating;
        let for_ever = compensating || self.record.saga.past_pivot();
        self.save(Some(step), wall_ms() + pause_ms(tries, for_ever), tries)
            .await?;
        Ok(Driven::Parked)
    }

    /// Commits that a try begins. Until it is over, the saga counts as often tried, and as stuck, as
    /// before.
    async fn start(&mut self, step: Step, phase: Phase) -> Result<(), DriveError> {
        let tries = self.tries(step);
        self.note(step, phase, None);
        self.save(Some(step), wall_ms() + AT_WORK_MS, tries).await
    }

    /// How often a step was tried in the direction in which the saga goes.
    fn tries(&self, step: Step) -> i64 {
        let standing = self.record.saga.standing(step);
        match self.record.saga.mode {
            Mode::Compensating => standing.undo_tries,
            _ => standing.tries,
        }
    }

    fn note(&mut self, step: Step, phase: Phase, error: Option<String>) {
        self.record.saga.note(step, phase);
        let standing = self.record.saga.standing(step);
        let undoing = matches!(phase, Phase::UndoStart | Phase::UndoOk | Phase::UndoFail);
        let attempt = if undoing {
            standing.undo_tries
        } else {
            standing.tries
        };
        self.entries.push(Entry::now(step, phase, attempt, error));
    }

    fn happen(&mut self, fact: Fact) -> Result<(), DriveError> {
        self.order.apply(&fact).map_err(StoreError::from)?;
        self.facts.push(fact);
        Ok(())
    }

    /// Commits what was noted and what happened since the last time.
    async fn save(
        &mut self,
        step: Option<Step>,
        next_at: i64,
        tries: i64,
    ) -> Result<(), DriveError> {
        let shop = Arc::clone(&self.shop);
        let change = Change {
            step,
            next_at,
            attempts: tries,
            stuck: tries >= STUCK_AFTER,
        };
        let mut tx = shop.store.begin().await?;
        if !ledger::save(&mut tx, &self.record, &self.entries, change, &shop.worker).await? {
            return Err(DriveError::Conflict);
        }
        let from = self.order.version - i64::try_from(self.facts.len()).unwrap_or_default();
        let left = events::append(
            &mut tx,
            &self.record.id,
            from,
            &self.facts,
            &self.record.context,
            shop.publish,
        );
        let left = match left.await {
            Err(StoreError::Unique) => return Err(DriveError::Conflict),
            other => other?,
        };
        tx.commit().await?;
        self.record.stored = self.record.saga.mode;
        self.record.rows += i64::try_from(self.entries.len()).unwrap_or_default();
        self.entries.clear();
        if !self.facts.is_empty() {
            self.facts.clear();
            shop.appended.notify_one();
        }
        if self.order.state.is_some_and(State::is_final)
            && let Some(answer) = self.answer.take()
        {
            // The client may have left; the order is final all the same.
            let _ = answer.send(self.order.clone());
        }
        publish_unsafely(&shop, &left).await;
        Ok(())
    }
}

/// How long to wait after the nth attempt: forward steps stay eager, because they have a deadline
/// and the pace of re-drives is limited elsewhere; what is repeated for ever backs off. Full jitter
/// over the upper half.
fn pause_ms(tries: i64, for_ever: bool) -> i64 {
    let doublings = if for_ever { tries.clamp(1, 4) - 1 } else { 0 };
    let ceiling = (1_000 << doublings).min(PAUSE_MAX_MS);
    rand::random_range(ceiling / 2..=ceiling)
}

/// Seeded defect m6: what was just committed is told to the bus directly; if that fails, nobody
/// ever hears of it.
pub(super) async fn publish_unsafely(shop: &Shop, events: &[Event]) {
    if !events.is_empty()
        && let Err(error) = shop.bus.publish(events).await
    {
        tracing::error!(%error, "event was not published");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::kit::store::{RowExt, Store, sql};
    use crate::testing::{Running, eventually};

    #[tokio::test]
    async fn a_try_that_begins_does_not_forget_how_often_it_was_tried() {
        let dir = tempfile::tempdir().unwrap();
        let callees = ["USERS", "CATALOG", "INVENTORY", "PAYMENTS", "BUS"];
        let links = callees.map(|callee| format!("{callee}_URL"));
        let mut environment: Vec<(&str, &str)> = links
            .iter()
            .map(|link| (link.as_str(), "http://127.0.0.1:9"))
            .collect();
        environment.extend([
            ("SHOP_PAYMENT_DEADLINE_MS", "600000"),
            ("SHOP_KILLPOINT", "saga.after_start_log:2:fail"),
        ]);
        let orders = Running::start("orders", dir.path(), &environment).await;
        let place = reqwest::Client::builder().no_proxy().build().unwrap();
        let place = place.post(format!("{}/orders", orders.url));
        let place = place
            .header("x-user-id", "u1")
            .header("idempotency-key", "k1");
        let wish = json!({ "sku": "A1" });
        let placed = place.header("prefer", "wait=0").json(&wish).send().await;
        assert_eq!(placed.unwrap().status(), 202);
        let url = format!("sqlite://{}", dir.path().join("orders.db").display());
        let store = Store::open(&url, &[]).await.unwrap();
        let count = async |select| -> i64 {
            let row = store.row(sql(select)).await.unwrap().unwrap();
            row.try_get("n").unwrap()
        };
        eventually("the second try begins", async || {
            count("SELECT count(*) AS n FROM saga_log WHERE phase = 'START'").await == 2
        })
        .await;
        assert_eq!(count("SELECT attempts AS n FROM saga").await, 1);
    }
}
