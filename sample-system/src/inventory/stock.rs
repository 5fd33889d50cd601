//! Stock and reservations: every change is one transaction, and every change can be asked for
//! twice.
//!
//! A reservation is its own idempotency record: its state says what was done, so a repeated request
//! finds the answer there. A release that arrives before its reserve leaves a `TOMBSTONE`, which
//! refuses the late one; otherwise stock would be held for an order that nobody remembers. So does a
//! refusal for want of stock: an earlier try of the same request may still be on its way. The
//! database refuses negative stock.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kit::clock::wall_ms;
use crate::kit::context::Context;
use crate::kit::event::Event;
use crate::kit::outbox;
use crate::kit::store::{RowExt, Store, StoreError, Tx, sql};

/// The tables, and stock for the sample's products: plenty of each but `RARE`, of which there are
/// three.
pub(super) const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS stock (
        sku TEXT PRIMARY KEY,
        initial BIGINT NOT NULL CHECK (initial >= 0), intake BIGINT NOT NULL CHECK (intake >= 0),
        available BIGINT NOT NULL CHECK (available >= 0),
        reserved BIGINT NOT NULL CHECK (reserved >= 0), sold BIGINT NOT NULL CHECK (sold >= 0))",
    "CREATE TABLE IF NOT EXISTS reservations (
        order_id TEXT PRIMARY KEY, state TEXT NOT NULL, items TEXT NOT NULL,
        version BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS reservations_state ON reservations (state)",
    "CREATE TABLE IF NOT EXISTS intakes (
        id TEXT PRIMARY KEY, sku TEXT NOT NULL, quantity BIGINT NOT NULL, at BIGINT NOT NULL)",
    "INSERT INTO stock (sku, initial, intake, available, reserved, sold) VALUES
        ('A1', 1000000, 0, 1000000, 0, 0), ('B2', 1000000, 0, 1000000, 0, 0),
        ('C3', 1000000, 0, 1000000, 0, 0), ('D4', 1000000, 0, 1000000, 0, 0),
        ('E5', 1000000, 0, 1000000, 0, 0), ('RARE', 3, 0, 3, 0, 0)
        ON CONFLICT DO NOTHING",
];

/// One line of a reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) sku: String,
    pub(super) quantity: i64,
}

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Stock is held.
    Held,
    /// It was held and given back.
    Released,
    /// It was sold.
    Committed,
    /// It was released before it ever came, or refused: it may not come any more.
    Tombstone,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Released => "RELEASED",
            Self::Committed => "COMMITTED",
            Self::Tombstone => "TOMBSTONE",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Held, Self::Released, Self::Committed, Self::Tombstone]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Done, now or earlier; the state it is in.
    Done(State),
    /// There is not enough of this product.
    Short(String),
    /// The reservation is in a state that does not allow it.
    Conflict(State),
    /// It was asked for with other lines before.
    OtherItems,
    /// There is nothing to commit.
    Missing,
}

/// What became of a delivery from the warehouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intake {
    /// It is in stock now.
    New,
    /// It came before.
    Known,
    /// Another delivery came under this id before.
    Other,
}

struct Reservation {
    state: State,
    items: Vec<Line>,
    version: i64,
}

async fn find(tx: &mut Tx, order_id: &str) -> Result<Option<Reservation>, StoreError> {
    let select = sql("SELECT state, items, version FROM reservations WHERE order_id = $1");
    let Some(row) = tx.row(select.bind(order_id)).await? else {
        return Ok(None);
    };
    let state: String = row.try_get("state")?;
    Ok(Some(Reservation {
        state: State::named(&state).ok_or(StoreError::Corrupt(state))?,
        items: serde_json::from_str(&row.try_get::<String, _>("items")?)?,
        version: row.try_get("version")?,
    }))
}

/// Holds stock for an order: all lines or none, and none for ever once it was refused.
///
/// # Errors
/// The store's.
pub(super) async fn reserve(
    tx: &mut Tx,
    order_id: &str,
    items: &[Line],
    context: &Context,
) -> Result<Outcome, StoreError> {
    if let Some(known) = find(tx, order_id).await? {
        return Ok(match known.state {
            State::Held | State::Committed if known.items == items => Outcome::Done(known.state),
            State::Held | State::Committed => Outcome::OtherItems,
            State::Released | State::Tombstone => Outcome::Conflict(known.state),
        });
    }
    if let Some(short) = first_short(tx, items).await? {
        write(tx, order_id, State::Tombstone, &[], 1).await?;
        announce(tx, "inventory.rejected", order_id, 1, items, context).await?;
        return Ok(Outcome::Short(short));
    }
    for line in items {
        shift(tx, line, Shift::Hold).await?;
    }
    write(tx, order_id, State::Held, items, 1).await?;
    announce(tx, "inventory.reserved", order_id, 1, items, context).await?;
    Ok(Outcome::Done(State::Held))
}

/// The first product of which there is not enough. Two lines may name the same one.
async fn first_short(tx: &mut Tx, items: &[Line]) -> Result<Option<String>, StoreError> {
    for line in items {
        let same = items.iter().filter(|other| other.sku == line.sku);
        let wanted: i64 = same.map(|line| line.quantity).sum();
        let select = sql("SELECT available FROM stock WHERE sku = $1").bind(line.sku.as_str());
        let available: i64 = tx
            .row(select)
            .await?
            .map_or(Ok(0), |row| row.try_get("available"))?;
        if available < wanted {
            return Ok(Some(line.sku.clone()));
        }
    }
    Ok(None)
}

/// Gives held stock back; without a reservation it leaves a tombstone.
///
/// # Errors
/// The store's.
pub(super) async fn release(
    tx: &mut Tx,
    order_id: &str,
    context: &Context,
) -> Result<Outcome, StoreError> {
    let Some(known) = find(tx, order_id).await? else {
        write(tx, order_id, State::Tombstone, &[], 1).await?;
        return Ok(Outcome::Done(State::Tombstone));
    };
    match known.state {
        State::Held => {
            for line in &known.items {
                shift(tx, line, Shift::GiveBack).await?;
            }
            let version = known.version + 1;
            write(tx, order_id, State::Released, &known.items, version).await?;
            announce(
                tx,
                "inventory.released",
                order_id,
                version,
                &known.items,
                context,
            )
            .await?;
            Ok(Outcome::Done(State::Released))
        }
        State::Released | State::Tombstone => Ok(Outcome::Done(known.state)),
        State::Committed => Ok(Outcome::Conflict(known.state)),
    }
}

/// Turns held stock into sold stock.
///
/// # Errors
/// The store's.
pub(super) async fn commit(
    tx: &mut Tx,
    order_id: &str,
    context: &Context,
) -> Result<Outcome, StoreError> {
    let Some(known) = find(tx, order_id).await? else {
        return Ok(Outcome::Missing);
    };
    match known.state {
        State::Held => {
            for line in &known.items {
                shift(tx, line, Shift::Sell).await?;
            }
            let version = known.version + 1;
            write(tx, order_id, State::Committed, &known.items, version).await?;
            announce(
                tx,
                "inventory.committed",
                order_id,
                version,
                &known.items,
                context,
            )
            .await?;
            Ok(Outcome::Done(State::Committed))
        }
        State::Committed => Ok(Outcome::Done(State::Committed)),
        State::Released | State::Tombstone => Ok(Outcome::Conflict(known.state)),
    }
}

/// New stock from the warehouse, once per `id`.
///
/// # Errors
/// The store's.
pub(super) async fn intake(tx: &mut Tx, id: &str, line: &Line) -> Result<Intake, StoreError> {
    let insert = sql(
        "INSERT INTO intakes (id, sku, quantity, at) VALUES ($1, $2, $3, $4)
         ON CONFLICT DO NOTHING",
    );
    let insert = insert
        .bind(id)
        .bind(line.sku.as_str())
        .bind(line.quantity)
        .bind(wall_ms());
    if tx.execute(insert).await? == 0 {
        let same = sql("SELECT 1 AS one FROM intakes WHERE id = $1 AND sku = $2 AND quantity = $3");
        let same = same.bind(id).bind(line.sku.as_str()).bind(line.quantity);
        let known = tx.row(same).await?.is_some();
        return Ok(if known { Intake::Known } else { Intake::Other });
    }
    stock_product(tx, &line.sku).await?;
    let update = sql(
        "UPDATE stock SET intake = intake + $1, available = available + $1
         WHERE sku = $2",
    );
    tx.execute(update.bind(line.quantity).bind(line.sku.as_str()))
        .await?;
    Ok(Intake::New)
}

/// Makes sure that a product has a row, without any stock.
///
/// # Errors
/// The store's.
pub(super) async fn stock_product(tx: &mut Tx, sku: &str) -> Result<(), StoreError> {
    let insert = sql(
        "INSERT INTO stock (sku, initial, intake, available, reserved, sold)
         VALUES ($1, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING",
    );
    tx.execute(insert.bind(sku)).await.map(drop)
}

#[derive(Clone, Copy)]
enum Shift {
    Hold,
    GiveBack,
    Sell,
}

async fn shift(tx: &mut Tx, line: &Line, shift: Shift) -> Result<(), StoreError> {
    let update = sql(match shift {
        Shift::Hold => {
            "UPDATE stock SET available = available - $1, reserved = reserved + $1 WHERE sku = $2"
        }
        Shift::GiveBack => {
            "UPDATE stock SET available = available + $1, reserved = reserved - $1 WHERE sku = $2"
        }
        Shift::Sell => "UPDATE stock SET reserved = reserved - $1, sold = sold + $1 WHERE sku = $2",
    });
    match tx
        .execute(update.bind(line.quantity).bind(line.sku.as_str()))
        .await?
    {
        1 => Ok(()),
        _ => Err(StoreError::Corrupt(format!(
            "product `{}` has no stock row",
            line.sku
        ))),
    }
}

async fn write(
    tx: &mut Tx,
    order_id: &str,
    state: State,
    items: &[Line],
    version: i64,
) -> Result<(), StoreError> {
    let upsert = sql(
        "INSERT INTO reservations (order_id, state, items, version, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $5)
         ON CONFLICT (order_id) DO UPDATE SET state = $2, version = $4, updated_at = $5",
    );
    let upsert = upsert
        .bind(order_id)
        .bind(state.name())
        .bind(json!(items).to_string());
    tx.execute(upsert.bind(version).bind(wall_ms()))
        .await
        .map(drop)
}

async fn announce(
    tx: &mut Tx,
    kind: &str,
    order_id: &str,
    version: i64,
    items: &[Line],
    context: &Context,
) -> Result<(), StoreError> {
    let data = json!({ "order_id": order_id, "items": items });
    outbox::put(tx, &Event::new(kind, order_id, version, context, data)).await
}

/// All stock, and how many reservations are in each state: `/internal/stock`.
///
/// # Errors
/// The store's.
pub(super) async fn report(store: &Store) -> Result<Value, StoreError> {
    let rows = store.rows(sql("SELECT * FROM stock ORDER BY sku")).await?;
    let stock = rows.iter().map(|row| {
        let count = |column: &str| row.try_get::<i64, _>(column);
        Ok(json!({
            "sku": row.try_get::<String, _>("sku")?,
            "initial": count("initial")?,
            "intake": count("intake")?,
            "available": count("available")?,
            "reserved": count("reserved")?,
            "sold": count("sold")?,
        }))
    });
    let stock = stock.collect::<Result<Vec<_>, StoreError>>()?;
    let select = sql("SELECT state, count(*) AS n FROM reservations GROUP BY state");
    let mut reservations = json!({ "HELD": 0, "RELEASED": 0, "COMMITTED": 0, "TOMBSTONE": 0 });
    for row in store.rows(select).await? {
        reservations[row.try_get::<String, _>("state")?] = json!(row.try_get::<i64, _>("n")?);
    }
    Ok(json!({ "stock": stock, "reservations": reservations }))
}

#[cfg(test)]
mod tests;
