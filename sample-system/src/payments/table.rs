//! The one row per order, and its changes of state.

use serde_json::{Value, json};

use crate::kit::clock::wall_ms;
use crate::kit::store::{Query, Row, RowExt, Store, StoreError, Tx, sql};

/// The table of this service.
pub(super) const TABLES: [&str; 1] = ["CREATE TABLE IF NOT EXISTS payments (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, order_id TEXT NOT NULL UNIQUE,
        user_id TEXT NOT NULL, amount_cents BIGINT NOT NULL CHECK (amount_cents >= 0),
        state TEXT NOT NULL, psp_ref TEXT, created_at BIGINT NOT NULL,
        updated_at BIGINT NOT NULL)"];

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PaymentState {
    /// The intent is stored; the provider may have charged.
    Charging,
    /// Charged.
    Completed,
    /// The provider said no.
    Declined,
    /// To be given back; the provider may have done so.
    Refunding,
    /// Given back.
    Refunded,
    /// Nothing was charged, and nothing ever will be.
    Void,
}

impl PaymentState {
    const ALL: [Self; 6] = [
        Self::Charging,
        Self::Completed,
        Self::Declined,
        Self::Refunding,
        Self::Refunded,
        Self::Void,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Charging => "CHARGING",
            Self::Completed => "COMPLETED",
            Self::Declined => "DECLINED",
            Self::Refunding => "REFUNDING",
            Self::Refunded => "REFUNDED",
            Self::Void => "VOID",
        }
    }
}

/// The payment of one order.
#[derive(Clone, Debug)]
pub(super) struct Payment {
    pub(super) order_id: String,
    pub(super) amount_cents: i64,
    pub(super) state: PaymentState,
    pub(super) psp_ref: Option<String>,
}

impl Payment {
    /// What clients see.
    pub(super) fn document(&self) -> Value {
        json!({
            "order_id": self.order_id,
            "state": self.state.name(),
            "amount_cents": self.amount_cents,
            "psp_ref": self.psp_ref,
        })
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let name: String = row.try_get("state")?;
        let state = PaymentState::ALL
            .into_iter()
            .find(|state| state.name() == name);
        Ok(Self {
            order_id: row.try_get("order_id")?,
            amount_cents: row.try_get("amount_cents")?,
            state: state.ok_or_else(|| StoreError::Corrupt(format!("payment state `{name}`")))?,
            psp_ref: row.try_get("psp_ref")?,
        })
    }
}

fn select(order: &str) -> Query<'static> {
    sql("SELECT order_id, amount_cents, state, psp_ref FROM payments WHERE order_id = $1")
        .bind(order.to_owned())
}

/// The payment of an order, if there is one.
pub(super) async fn find(store: &Store, order: &str) -> Result<Option<Payment>, StoreError> {
    store
        .row(select(order))
        .await?
        .as_ref()
        .map(Payment::read)
        .transpose()
}

/// As [`find`], within a transaction.
pub(super) async fn find_in(tx: &mut Tx, order: &str) -> Result<Option<Payment>, StoreError> {
    tx.row(select(order))
        .await?
        .as_ref()
        .map(Payment::read)
        .transpose()
}

/// Adds a payment; none may exist for the order.
pub(super) async fn insert(
    tx: &mut Tx,
    order: &str,
    user: &str,
    amount_cents: i64,
    state: PaymentState,
) -> Result<(), StoreError> {
    let insert = sql("INSERT INTO payments
         (order_id, user_id, amount_cents, state, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $5)")
    .bind(order)
    .bind(user)
    .bind(amount_cents)
    .bind(state.name())
    .bind(wall_ms());
    tx.execute(insert).await.map(drop)
}

/// Moves a payment from one state to the next; `false` when it was not in `from` any more.
pub(super) async fn advance(
    tx: &mut Tx,
    order: &str,
    from: PaymentState,
    to: PaymentState,
    psp_ref: Option<&str>,
) -> Result<bool, StoreError> {
    let update = sql("UPDATE payments
         SET state = $1, psp_ref = COALESCE($2, psp_ref), updated_at = $3
         WHERE order_id = $4 AND state = $5")
    .bind(to.name())
    .bind(psp_ref.map(str::to_owned))
    .bind(wall_ms())
    .bind(order)
    .bind(from.name());
    Ok(tx.execute(update).await? == 1)
}
