//! The outbox: events are stored in the transaction of their cause and published afterwards.
//!
//! The relay claims unsent rows by a lease, publishes them in order, waits for the bus's confirmation
//! and only then marks them sent. It may publish twice (killed in between), never not at all. A row
//! that cannot be published holds back the later rows of the same aggregate and nobody else's: what
//! the bus refuses together is published one by one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::bus::{Bus, BusError, Confirmation};
use super::clock::wall_ms;
use super::event::Event;
use super::killpoint::KillPoints;
use super::shutdown::Stop;
use super::store::{RowExt, Store, StoreError, Tx, sql};

/// Rows claimed at a time.
const BATCH: i64 = 100;
/// How long a claim lasts. Longer than publishing a batch can take.
const LEASE_MS: i64 = 5_000;
/// How often the relay looks for rows that nobody woke it for.
const IDLE: Duration = Duration::from_millis(500);
/// The longest pause after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Stores `event` for publishing, in the caller's transaction.
///
/// # Errors
/// The database fails, or the event id exists.
pub async fn put(tx: &mut Tx, event: &Event) -> Result<(), StoreError> {
    let insert = sql(
        "INSERT INTO outbox (event_id, routing_key, aggregate_id, body, created_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&event.id)
    .bind(&event.kind)
    .bind(&event.aggregate_id)
    .bind(serde_json::to_string(event)?)
    .bind(wall_ms());
    tx.execute(insert).await?;
    tx.fills_outbox();
    Ok(())
}

/// How many events wait, and for how long the oldest does: the backlog of `/internal/outbox`.
///
/// # Errors
/// The database fails.
pub async fn backlog(store: &Store) -> Result<Value, StoreError> {
    let select = sql(
        "SELECT count(*) AS unsent, min(created_at) AS oldest, max(attempts) AS tries
         FROM outbox WHERE sent_at IS NULL",
    );
    let row = store.row(select).await?;
    let unsent: i64 = row
        .as_ref()
        .map(|row| row.try_get("unsent"))
        .transpose()?
        .unwrap_or(0);
    let read = |name| -> Option<i64> { row.as_ref()?.try_get::<Option<i64>, _>(name).ok()? };
    let age_ms = read("oldest").map_or(0, |oldest| (wall_ms() - oldest).max(0));
    Ok(json!({
        "unsent": unsent,
        "oldest-age-ms": age_ms,
        "attempts-max": read("tries").unwrap_or(0),
    }))
}

/// The process's one publisher of stored events.
pub struct Relay {
    store: Store,
    bus: Arc<dyn Bus>,
    killpoints: KillPoints,
}

/// What one round of the relay did.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// Nothing waits.
    Idle,
    /// Something was sent.
    Sent,
    /// Something waits and could not be sent.
    Stuck,
}

struct Claimed {
    seq: i64,
    event: Event,
}

impl Relay {
    /// A relay from `store` to `bus`.
    pub fn new(store: Store, bus: Arc<dyn Bus>, killpoints: KillPoints) -> Self {
        Self {
            store,
            bus,
            killpoints,
        }
    }

    /// Publishes until `stop`, then once more what is left.
    pub async fn run(self, stop: Stop) {
        if let Err(error) = self.forget_claims().await {
            tracing::warn!(%error, "claims of an earlier run last until their lease ends");
        }
        let mut pause = Duration::from_millis(50);
        while !stop.asked() {
            let wait = match self.round().await {
                Ok(Round::Sent) => {
                    pause = Duration::from_millis(50);
                    continue;
                }
                Ok(Round::Idle) => IDLE,
                Ok(Round::Stuck) => grow(&mut pause),
                Err(error) => {
                    tracing::warn!(%error, "outbox round failed");
                    grow(&mut pause)
                }
            };
            // After a failure a new row is no reason to hurry.
            let woken = async {
                if wait == IDLE {
                    self.store.outbox_filled().await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = stop.wait() => {}
                () = woken => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.flush().await;
    }

    /// Takes over what an earlier run of this process claimed, without waiting for its leases. Should a
    /// second process share the database, the worst is an event that is published twice.
    async fn forget_claims(&self) -> Result<(), StoreError> {
        let update = "UPDATE outbox SET claimed_until = 0 WHERE sent_at IS NULL";
        self.store.execute(sql(update)).await.map(drop)
    }

    /// Sends what is left, once; what cannot be sent stays for the next start.
    async fn flush(&self) {
        loop {
            match self.round().await {
                Ok(Round::Sent) => {}
                Ok(Round::Idle) => return,
                Ok(Round::Stuck) => break,
                Err(error) => {
                    tracing::warn!(%error, "outbox flush failed");
                    break;
                }
            }
        }
        tracing::warn!("events stay in the outbox for the next start");
    }

    async fn round(&self) -> Result<Round, StoreError> {
        let claimed = self.claim().await?;
        if claimed.is_empty() {
            return Ok(Round::Idle);
        }
        let events: Vec<Event> = claimed.iter().map(|row| row.event.clone()).collect();
        let confirmations = match self.bus.publish(&events).await {
            Ok(confirmations) => confirmations.into_iter().map(Some).collect(),
            Err(BusError::Refused(reason)) => {
                tracing::warn!(
                    reason,
                    events = events.len(),
                    "publish refused, now one by one"
                );
                self.publish_each(&events).await
            }
            Err(error) => {
                tracing::warn!(%error, events = events.len(), "publish failed");
                self.release(&claimed).await?;
                return Ok(Round::Stuck);
            }
        };
        self.killpoints
            .reach("outbox.after_publish_before_mark")
            .await?;
        self.settle(&claimed, &confirmations).await
    }

    /// Publishes one by one what was refused together. `None` is for an event that was refused alone
    /// and for what follows it in its aggregate; the end is missing when the bus goes away.
    async fn publish_each(&self, events: &[Event]) -> Vec<Option<Confirmation>> {
        let mut held: HashSet<&str> = HashSet::new();
        let mut confirmations = Vec::with_capacity(events.len());
        for event in events {
            let confirmation = if held.contains(event.aggregate_id.as_str()) {
                None
            } else {
                match self.bus.publish(std::slice::from_ref(event)).await {
                    Ok(mut confirmation) => confirmation.pop(),
                    Err(BusError::Refused(reason)) => {
                        tracing::error!(event = %event.id, kind = %event.kind, reason, "refused");
                        None
                    }
                    Err(BusError::Unavailable(_)) => break,
                }
            };
            if confirmation != Some(Confirmation::Confirmed) {
                held.insert(&event.aggregate_id);
            }
            confirmations.push(confirmation);
        }
        confirmations
    }

    /// Takes the oldest unsent rows for the time of a lease, in order. A row behind one of its aggregate
    /// that somebody else holds is left alone.
    async fn claim(&self) -> Result<Vec<Claimed>, StoreError> {
        let now = wall_ms();
        let mut tx = self.store.begin().await?;
        let update = sql(
            "UPDATE outbox SET claimed_until = $1, attempts = attempts + 1
             WHERE seq IN (SELECT o.seq FROM outbox o WHERE o.sent_at IS NULL
                 AND o.claimed_until <= $2
                 AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.aggregate_id = o.aggregate_id
                     AND e.seq < o.seq AND e.sent_at IS NULL AND e.claimed_until > $2)
                 ORDER BY o.seq LIMIT $3)
             RETURNING seq, body",
        );
        let rows = tx
            .rows(update.bind(now + LEASE_MS).bind(now).bind(BATCH))
            .await?;
        tx.commit().await?;
        let mut claimed = Vec::with_capacity(rows.len());
        for row in rows {
            let body: String = row.try_get("body")?;
            claimed.push(Claimed {
                seq: row.try_get("seq")?,
                event: serde_json::from_str(&body)?,
            });
        }
        claimed.sort_by_key(|row| row.seq);
        Ok(claimed)
    }

    /// Gives all claims back.
    async fn release(&self, claimed: &[Claimed]) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        for row in claimed {
            let update = sql("UPDATE outbox SET claimed_until = 0 WHERE seq = $1").bind(row.seq);
            tx.execute(update).await?;
        }
        tx.commit().await
    }

    /// Marks what the bus confirmed; the first refusal of an aggregate holds back the rest of it. What
    /// was refused alone stays claimed until its lease ends, out of the way of the other aggregates.
    async fn settle(
        &self,
        claimed: &[Claimed],
        confirmations: &[Option<Confirmation>],
    ) -> Result<Round, StoreError> {
        let mut held: HashSet<&str> = HashSet::new();
        let mut tx = self.store.begin().await?;
        let mut sent = 0_usize;
        for (index, row) in claimed.iter().enumerate() {
            let confirmation = confirmations.get(index);
            if confirmation == Some(&None) {
                held.insert(&row.event.aggregate_id);
                continue;
            }
            let confirmed = confirmation == Some(&Some(Confirmation::Confirmed));
            let update = if confirmed && !held.contains(row.event.aggregate_id.as_str()) {
                sent += 1;
                sql("UPDATE outbox SET sent_at = $1, claimed_until = 0 WHERE seq = $2")
                    .bind(wall_ms())
            } else {
                if !confirmed && confirmation.is_some() {
                    tracing::error!(event = %row.event.id, kind = %row.event.kind, "unroutable");
                }
                held.insert(&row.event.aggregate_id);
                sql("UPDATE outbox SET claimed_until = $1 WHERE seq = $2").bind(0_i64)
            };
            tx.execute(update.bind(row.seq)).await?;
        }
        tx.commit().await?;
        Ok(if sent == claimed.len() {
            Round::Sent
        } else {
            Round::Stuck
        })
    }
}

/// The next pause after a failure: twice the last, within the limit.
fn grow(pause: &mut Duration) -> Duration {
    let now = *pause;
    *pause = (now * 2).min(BACKOFF_MAX);
    now
}

#[cfg(test)]
mod tests;
