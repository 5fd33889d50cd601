//! The event store: append at an expected version, read back in order. It never updates or deletes.
//!
//! Two writers that both saw version n cannot both append n + 1: the unique key refuses the later one, which the
//! caller sees as [`StoreError::Unique`] and answers with a fresh look at the order. Public facts go into the outbox
//! in the same transaction, under the same event id.

use serde_json::{Value, json};

use super::aggregate::{Fact, Illegal, Order};
use crate::kit::clock::mono_ns;
use crate::kit::context::Context;
use crate::kit::event::Event;
use crate::kit::outbox;
use crate::kit::store::{Row, RowExt, Store, StoreError, Tx, sql};

/// Where the events that other services must hear of go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publish {
    /// Into the outbox, in the same transaction.
    ByOutbox,
    /// To the caller, who publishes after the commit: seeded defect m6.
    AfterCommit,
}

/// Appends facts after version `from`; answers the events that the caller must publish itself (none by outbox).
///
/// # Errors
/// [`StoreError::Unique`] when somebody else appended first; any other of the store.
pub(super) async fn append(
    tx: &mut Tx,
    order_id: &str,
    from: i64,
    facts: &[Fact],
    context: &Context,
    publish: Publish,
) -> Result<Vec<Event>, StoreError> {
    let mut left = Vec::new();
    for (version, fact) in (from + 1..).zip(facts) {
        let mut stored = serde_json::to_value(fact)?;
        let data = stored.get_mut("data").map(Value::take).unwrap_or_default();
        let event = Event::new(fact.kind(), order_id, version, context, data);
        insert(tx, &event, fact.owes_cents()).await?;
        if fact.is_public() {
            match publish {
                Publish::ByOutbox => outbox::put(tx, &event).await?,
                Publish::AfterCommit => left.push(event),
            }
        }
    }
    Ok(left)
}

async fn insert(tx: &mut Tx, event: &Event, owes: i64) -> Result<(), StoreError> {
    let meta = json!({ "traceparent": event.traceparent, "correlation-id": event.correlation_id });
    let insert = sql(
        "INSERT INTO events (event_id, aggregate_id, version, type, owes, data, meta, at, mono_ns)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    );
    let insert = insert
        .bind(event.id.clone())
        .bind(event.aggregate_id.clone())
        .bind(event.version)
        .bind(event.kind.clone())
        .bind(owes)
        .bind(event.data.to_string())
        .bind(meta.to_string())
        .bind(event.occurred_at_ms)
        .bind(i64::try_from(mono_ns()).unwrap_or(i64::MAX));
    tx.execute(insert).await.map(drop)
}

/// The fact in a row with columns `type` and `data`.
pub(super) fn fact_of(row: &Row) -> Result<Fact, StoreError> {
    let kind: String = row.try_get("type")?;
    let data: Value = serde_json::from_str(&row.try_get::<String, _>("data")?)?;
    Ok(serde_json::from_value(
        json!({ "type": kind, "data": data }),
    )?)
}

/// The order as its events tell it; version 0 when it has none.
///
/// # Errors
/// The store's, or events that do not fold.
pub(super) async fn load(store: &Store, order_id: &str) -> Result<Order, StoreError> {
    let select = sql("SELECT type, data FROM events WHERE aggregate_id = $1 ORDER BY version");
    let rows = store.rows(select.bind(order_id.to_owned())).await?;
    let facts = rows.iter().map(fact_of).collect::<Result<Vec<_>, _>>()?;
    Order::fold(&facts).map_err(StoreError::from)
}

impl From<Illegal> for StoreError {
    fn from(illegal: Illegal) -> Self {
        Self::Corrupt(illegal.to_string())
    }
}
