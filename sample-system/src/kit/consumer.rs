//! The consumer of one queue: hands every event to a handler once, however often the bus delivers it.
//!
//! Inbox row, effect, further events and ledger row are one transaction; the message is acknowledged
//! after its commit. Killed in between, the message comes again and the inbox knows it. A transient
//! failure is tried again after 0.2, 1, then 5 s and dies at the fifth delivery (not when it is our own
//! database that is locked, slow or sick: that goes on for ever); an unreadable event dies at once. Both
//! keep their reason.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::bus::{Bus, BusError, Delivery};
use super::clock::{mono_ns, wall_ms};
use super::event::Event;
use super::killpoint::{KillPoints, Killed};
use super::shutdown::Stop;
use super::store::{Store, StoreError, Tx, sql};

/// The delivery at which a message that keeps failing dies.
const DELIVERIES_MAX: u32 = 5;
/// The pauses before the second, third and later deliveries, milliseconds.
const DELAYS_MS: [u64; 3] = [200, 1_000, 5_000];
/// The pause after the bus failed.
const BUS_PAUSE: Duration = Duration::from_millis(250);

/// Why an event could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// It may work later: delivered again after a pause.
    #[error("{0}")]
    Transient(String),
    /// It can never work: dead-lettered at once.
    #[error("{0}")]
    Poison(String),
    /// The database failed: delivered again after a pause.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HandleError {
    /// Whether the event may be what is wrong. An outage of our own database is no reason to give up an
    /// event, however long it lasts.
    fn may_be_the_event(&self) -> bool {
        !matches!(self, Self::Store(error) if error.is_outage())
    }
}

impl From<sqlx::Error> for HandleError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<Killed> for HandleError {
    fn from(killed: Killed) -> Self {
        Self::Store(killed.into())
    }
}

/// What a service does with the events of its queue.
pub trait Handler: Send + Sync + 'static {
    /// Applies one event within `tx`. Called once per event; everything it does outside of `tx` may
    /// happen more than once. Events of a type that it does not know are ignored, not refused.
    fn handle<'a>(
        &'a self,
        tx: &'a mut Tx,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<(), HandleError>>;
}

/// One queue and how to drain it.
#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    /// The queue; also the consumer's name in inbox and ledger.
    pub queue: &'static str,
    /// How many messages it may hold at a time.
    pub prefetch: u32,
}

/// The loop that drains one queue.
pub struct Consumer {
    spec: ConsumerSpec,
    store: Store,
    bus: Arc<dyn Bus>,
    handler: Arc<dyn Handler>,
    killpoints: KillPoints,
    incarnation: String,
}

impl Consumer {
    /// A consumer of `spec.queue` that keeps its books in `store`.
    pub fn new(
        spec: ConsumerSpec,
        store: Store,
        bus: Arc<dyn Bus>,
        handler: Arc<dyn Handler>,
        killpoints: KillPoints,
        incarnation: String,
    ) -> Self {
        Self {
            spec,
            store,
            bus,
            handler,
            killpoints,
            incarnation,
        }
    }

    /// Consumes until `stop`; messages at hand are finished and settled.
    pub async fn run(self, stop: Stop) {
        while !stop.asked() {
            let fetched = tokio::select! {
                () = stop.wait() => return,
                fetched = self.bus.fetch(self.spec.queue, self.spec.prefetch) => fetched,
            };
            match fetched {
                Ok(deliveries) => self.take(deliveries).await,
                Err(error) => {
                    tracing::debug!(queue = self.spec.queue, %error, "fetch failed");
                    tokio::select! {
                        () = stop.wait() => return,
                        () = tokio::time::sleep(BUS_PAUSE) => {}
                    }
                }
            }
        }
    }

    /// Handles the messages in order (there is one writer anyway), then settles them: what went well
    /// with one word, the rest one by one.
    async fn take(&self, deliveries: Vec<Delivery>) {
        let mut done = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match self.judge(&delivery).await {
                Verdict::Ack => done.push(delivery.tag),
                verdict => self.settle(delivery, verdict).await,
            }
        }
        if !done.is_empty() {
            self.warn(self.bus.ack(self.spec.queue, &done).await);
        }
    }

    async fn judge(&self, delivery: &Delivery) -> Verdict {
        let event = match serde_json::from_str::<Event>(&delivery.body) {
            Ok(event) => event,
            Err(error) => return Verdict::Dead(format!("undecodable: {error}")),
        };
        let span = event.context().span("consume");
        let applied = tracing::Instrument::instrument(self.apply(&event), span).await;
        match applied {
            Ok(()) => Verdict::Ack,
            Err(HandleError::Poison(reason)) => Verdict::Dead(format!("poison: {reason}")),
            Err(error) if delivery.deliveries >= DELIVERIES_MAX && error.may_be_the_event() => {
                Verdict::Dead(format!("failed {DELIVERIES_MAX} times: {error}"))
            }
            Err(error) => {
                let again = (delivery.deliveries.max(1) as usize - 1).min(DELAYS_MS.len() - 1);
                tracing::warn!(event = %event.id, %error, "handling failed, will come again");
                Verdict::Again(DELAYS_MS[again])
            }
        }
    }

    /// Inbox, effect and ledger in one transaction.
    async fn apply(&self, event: &Event) -> Result<(), HandleError> {
        let mut tx = self.store.begin().await?;
        let insert = sql(
            "INSERT INTO inbox (consumer, event_id, handled_at) VALUES ($1, $2, $3)
             ON CONFLICT DO NOTHING",
        );
        let insert = insert.bind(self.spec.queue).bind(&event.id).bind(wall_ms());
        let first = tx.execute(insert).await? == 1;
        if first {
            self.handler.handle(&mut tx, event).await?;
        }
        self.book(&mut tx, event, first).await?;
        tx.commit().await?;
        // One line per delivery: what a second witness counts against the ledger.
        tracing::info!(kind = %event.kind, duplicate = !first, "handled id={}", event.id);
        self.killpoints
            .reach("consumer.after_commit_before_ack")
            .await?;
        Ok(())
    }

    async fn book(&self, tx: &mut Tx, event: &Event, first: bool) -> Result<(), StoreError> {
        let upsert = sql(
            "INSERT INTO ledger (consumer, event_id, type, aggregate_id, version,
                 deliveries, effects, first_at, last_at, mono_ns, incarnation)
             VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $7, $8, $9)
             ON CONFLICT (consumer, event_id) DO UPDATE SET
                 deliveries = ledger.deliveries + 1, effects = ledger.effects + $6, last_at = $7",
        )
        .bind(self.spec.queue)
        .bind(&event.id)
        .bind(&event.kind)
        .bind(&event.aggregate_id)
        .bind(event.version)
        .bind(i64::from(first))
        .bind(wall_ms())
        .bind(i64::try_from(mono_ns()).unwrap_or(i64::MAX))
        .bind(&self.incarnation);
        tx.execute(upsert).await.map(drop)
    }

    /// Tells the bus that a message was not handled.
    async fn settle(&self, delivery: Delivery, verdict: Verdict) {
        let (queue, tag) = (self.spec.queue, delivery.tag);
        let told = match verdict {
            Verdict::Ack => self.bus.ack(queue, &[tag]).await,
            Verdict::Again(delay_ms) => self.bus.nack(queue, &tag, delay_ms).await,
            Verdict::Dead(reason) => {
                tracing::error!(queue, key = %delivery.routing_key, %reason, "dead letter");
                self.bus.dead(queue, &tag, &reason).await
            }
        };
        self.warn(told);
    }

    /// A bus that was not told delivers again, and the inbox knows the event.
    fn warn(&self, told: Result<(), BusError>) {
        if let Err(error) = told {
            tracing::warn!(queue = self.spec.queue, %error, "the bus was not told");
        }
    }
}

/// What to tell the bus about one message.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Ack,
    Again(u64),
    Dead(String),
}

#[cfg(test)]
mod tests;
