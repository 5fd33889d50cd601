//! The read model `order_view` and the projector that keeps it up to date with `events`.
//!
//! The view, its list of applied events and its offset change in one transaction, so an event is applied once,
//! whatever dies when. The view knows nothing that the events do not say: it can be thrown away and built again.

use std::time::Duration;

use serde_json::{Value, json};

use super::aggregate::{Fact, State};
use super::events::fact_of;
use crate::kit::clock::wall_ms;
use crate::kit::killpoint::KillPoints;
use crate::kit::store::{Row, RowExt, Store, StoreError, Tx, sql};

/// Events applied in one transaction.
const BATCH: i64 = 100;
/// How often it looks when nobody wakes it.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// Applies up to one batch of events; answers how many.
///
/// # Errors
/// The store's; nothing was applied then.
pub(super) async fn project(store: &Store, killpoints: &KillPoints) -> Result<usize, StoreError> {
    if lag(store).await?.lag() == 0 {
        return Ok(0);
    }
    let mut tx = store.begin().await?;
    let offset = tx.row(sql(
        "SELECT position FROM projection_offset WHERE name = 'order_view'",
    ));
    let position: i64 = offset.await?.map_or(Ok(0), |row| row.try_get("position"))?;
    let select = sql(
        "SELECT seq, event_id, aggregate_id, version, type, data, at FROM events
         WHERE seq > $1 ORDER BY seq LIMIT $2",
    );
    let rows = tx.rows(select.bind(position).bind(BATCH)).await?;
    for row in &rows {
        apply(&mut tx, row).await?;
    }
    if let Some(last) = rows.last() {
        killpoints.reach("projection.mid_batch").await?;
        let update = sql("UPDATE projection_offset SET position = $1 WHERE name = 'order_view'");
        tx.execute(update.bind(last.try_get::<i64, _>("seq")?))
            .await?;
    }
    tx.commit().await?;
    Ok(rows.len())
}

async fn apply(tx: &mut Tx, row: &Row) -> Result<(), StoreError> {
    let (id, version): (String, i64) = (row.try_get("aggregate_id")?, row.try_get("version")?);
    let at: i64 = row.try_get("at")?;
    let fact = fact_of(row)?;
    let changed = match &fact {
        Fact::Placed(wish) => {
            let insert = sql(
                "INSERT INTO order_view (order_id, user_id, state, items, version, placed_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $6)",
            );
            let insert = insert.bind(id.clone()).bind(wish.user_id.clone());
            let insert = insert
                .bind(State::Placed.name())
                .bind(json!(wish.items).to_string());
            tx.execute(insert.bind(version).bind(at)).await?
        }
        later => {
            let update = sql(
                "UPDATE order_view SET state = coalesce($1, state), version = $2, updated_at = $3,
                        total_cents = coalesce($4, total_cents), reason = coalesce($5, reason)
                 WHERE order_id = $6 AND version = $2 - 1",
            );
            let update = update
                .bind(later.leads_to().map(State::name))
                .bind(version)
                .bind(at);
            let update = update
                .bind(total_of(later))
                .bind(reason_of(later)?)
                .bind(id.clone());
            tx.execute(update).await?
        }
    };
    if changed != 1 {
        return Err(StoreError::Corrupt(format!(
            "order_view of {id} is not at version {version} - 1"
        )));
    }
    let insert = sql(
        "INSERT INTO projected (event_id, type, aggregate_id, version, at)
         VALUES ($1, $2, $3, $4, $5)",
    );
    let insert = insert
        .bind(row.try_get::<String, _>("event_id")?)
        .bind(fact.kind())
        .bind(id);
    tx.execute(insert.bind(version).bind(wall_ms()))
        .await
        .map(drop)
}

fn total_of(fact: &Fact) -> Option<i64> {
    match fact {
        Fact::Priced { total_cents, .. } => Some(*total_cents),
        _ => None,
    }
}

fn reason_of(fact: &Fact) -> Result<Option<String>, StoreError> {
    match fact {
        Fact::Cancelling { reason } => {
            Ok(serde_json::to_value(reason)?.as_str().map(str::to_owned))
        }
        _ => Ok(None),
    }
}

/// How far the projection has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// The last event that exists.
    pub(super) head: i64,
    /// The last event that was applied.
    pub(super) position: i64,
    /// How often it was built again.
    pub(super) rebuilds: i64,
}

impl Progress {
    /// Events that exist and are not applied.
    pub(super) fn lag(self) -> i64 {
        self.head - self.position
    }
}

/// Reads how far the projection has come.
///
/// # Errors
/// The store's.
pub(super) async fn lag(store: &Store) -> Result<Progress, StoreError> {
    let select = sql(
        "SELECT position, rebuilds, (SELECT coalesce(max(seq), 0) FROM events) AS head
         FROM projection_offset WHERE name = 'order_view'",
    );
    let Some(row) = store.row(select).await? else {
        return Err(StoreError::Corrupt(
            "projection_offset has no row for order_view".into(),
        ));
    };
    Ok(Progress {
        head: row.try_get("head")?,
        position: row.try_get("position")?,
        rebuilds: row.try_get("rebuilds")?,
    })
}

/// Throws the view away; the projector builds it again from the first event.
///
/// # Errors
/// The store's; the view is as it was then.
pub(super) async fn rebuild(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    tx.execute(sql("DELETE FROM order_view")).await?;
    tx.execute(sql("DELETE FROM projected")).await?;
    let reset = "UPDATE projection_offset SET position = 0, rebuilds = rebuilds + 1
                 WHERE name = 'order_view'";
    tx.execute(sql(reset)).await?;
    tx.commit().await
}

/// One order of the view as JSON; `None` when the view does not have it (yet).
///
/// # Errors
/// The store's.
pub(super) async fn find(view: &Store, order_id: &str) -> Result<Option<Value>, StoreError> {
    let select = sql("SELECT * FROM order_view WHERE order_id = $1");
    let row = view.row(select.bind(order_id.to_owned())).await?;
    row.as_ref().map(shown).transpose()
}

/// The newest orders of a user, at most `limit`, older than the order `before` (empty = from the newest).
///
/// # Errors
/// The store's.
pub(super) async fn list(
    view: &Store,
    user_id: &str,
    before: &str,
    limit: i64,
) -> Result<Vec<Value>, StoreError> {
    let select = sql(
        "SELECT * FROM order_view WHERE user_id = $1 AND ($2 = '' OR order_id < $2)
         ORDER BY order_id DESC LIMIT $3",
    );
    let select = select
        .bind(user_id.to_owned())
        .bind(before.to_owned())
        .bind(limit);
    view.rows(select).await?.iter().map(shown).collect()
}

fn shown(row: &Row) -> Result<Value, StoreError> {
    let items: Value = serde_json::from_str(&row.try_get::<String, _>("items")?)?;
    Ok(json!({
        "id": row.try_get::<String, _>("order_id")?,
        "user_id": row.try_get::<String, _>("user_id")?,
        "state": row.try_get::<String, _>("state")?,
        "total_cents": row.try_get::<Option<i64>, _>("total_cents")?,
        "items": items,
        "reason": row.try_get::<Option<String>, _>("reason")?,
        "version": row.try_get::<i64, _>("version")?,
        "placed_at_ms": row.try_get::<i64, _>("placed_at")?,
        "updated_at_ms": row.try_get::<i64, _>("updated_at")?,
    }))
}
