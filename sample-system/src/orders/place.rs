//! Placing and cancelling: the two commands that clients give.
//!
//! A placement is one transaction: the key, `order.placed`, its outbox row and the saga. What follows is the saga's
//! business; whether anybody still listens is not.

use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::Shop;
use super::aggregate::{Fact, Order, Reason, State, Wish};
use super::drive::{Run, publish_unsafely};
use super::ledger::{self, Record};
use super::machine::{self, Mode, Saga};
use super::{events, redrive};
use crate::kit::clock::wall_ms;
use crate::kit::context::Context;
use crate::kit::error::ApiError;
use crate::kit::idempotency::{fingerprint, mismatch};
use crate::kit::store::{RowExt, StoreError, sql};

/// A saga that nobody drives is due after this: we died, or too many are being driven.
const GRACE_MS: i64 = 1_000;
/// How often a cancel starts over when the order moves on under it.
const CANCEL_TRIES: usize = 5;

/// What became of a placement.
pub(super) enum Placement {
    /// A new order; the receiver hears how it ends, or is dropped when that takes longer.
    New(String, oneshot::Receiver<Order>),
    /// The order that this key placed before.
    Known(String, Box<Order>),
}

/// Places an order, once per user and key, and starts its saga.
///
/// # Errors
/// 422 when the key placed another order; 503 when the database fails.
pub(super) async fn place(
    shop: &Arc<Shop>,
    context: &Context,
    key: &str,
    wish: Wish,
) -> Result<Placement, ApiError> {
    let id = Uuid::now_v7().to_string();
    let hash = fingerprint(&wish);
    let context = context.without_deadline();
    let plan = machine::plan(&shop.plan).map_err(StoreError::Corrupt)?;
    let record = Record {
        id: id.clone(),
        saga: Saga::new(Mode::Running, plan, wall_ms() + shop.deadline_ms),
        epoch: 1,
        stored: Mode::Running,
        rows: 0,
        context: context.clone(),
    };
    let mut tx = shop.store.begin().await?;
    let claim = sql(
        "INSERT INTO placements (user_id, key, request_hash, order_id)
         VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    );
    let claim = claim.bind(&wish.user_id).bind(key).bind(&hash).bind(&id);
    if tx.execute(claim).await? == 0 {
        drop(tx);
        return known(shop, &wish.user_id, key, &hash).await;
    }
    let facts = [Fact::Placed(wish)];
    ledger::insert(
        &mut tx,
        &record,
        &shop.plan,
        &shop.worker,
        wall_ms() + GRACE_MS,
    )
    .await?;
    let left = events::append(&mut tx, &id, 0, &facts, &context, shop.publish).await?;
    tx.commit().await?;
    shop.killpoints.reach("orders.after_place_commit").await?;
    publish_unsafely(shop, &left).await;
    shop.appended.notify_one();
    let order = Order::fold(&facts).map_err(StoreError::from)?;
    let (answer, answered) = oneshot::channel();
    redrive::start(shop, &id, Some(Run::new(shop, record, order, Some(answer))));
    Ok(Placement::New(id, answered))
}

/// The order that `key` placed: the same answer as far as the order has come since.
async fn known(shop: &Shop, user_id: &str, key: &str, hash: &str) -> Result<Placement, ApiError> {
    let select =
        sql("SELECT request_hash, order_id FROM placements WHERE user_id = $1 AND key = $2");
    let row = shop.store.row(select.bind(user_id).bind(key)).await?;
    let Some(row) = row else {
        return Err(ApiError::not_found("placement"));
    };
    let read = |column: &str| row.try_get::<String, _>(column).map_err(StoreError::from);
    if read("request_hash")? != hash {
        return Err(mismatch());
    }
    let id = read("order_id")?;
    let order = events::load(&shop.store, &id).await?;
    Ok(Placement::Known(id, Box::new(order)))
}

/// Cancels an order that is not confirmed yet; what happened so far is undone. Answers the order as it is then.
///
/// # Errors
/// 404 when the user has no such order, 409 when it is past the point of no return.
pub(super) async fn cancel(
    shop: &Arc<Shop>,
    context: &Context,
    user_id: &str,
    id: &str,
) -> Result<Order, ApiError> {
    for _ in 0..CANCEL_TRIES {
        let order = find(shop, user_id, id).await?;
        match order.state {
            Some(State::Cancelling | State::Cancelled) => return Ok(order),
            Some(State::Confirmed | State::Rejected) => {
                return Err(ApiError::conflict(
                    "final",
                    "the order cannot be cancelled any more",
                ));
            }
            _ => {}
        }
        match try_cancel(shop, context, id, order).await {
            Err(StoreError::Unique) => {}
            other => return Ok(other?),
        }
    }
    Err(ApiError::conflict(
        "busy",
        "the order is changing, try again",
    ))
}

/// The order `id` of this user.
///
/// # Errors
/// 404 when there is none; somebody else's is none.
pub(super) async fn find(shop: &Shop, user_id: &str, id: &str) -> Result<Order, ApiError> {
    let order = events::load(&shop.store, id).await?;
    let owned = order
        .wish
        .as_ref()
        .is_some_and(|wish| wish.user_id == user_id);
    if owned {
        Ok(order)
    } else {
        Err(ApiError::not_found("order"))
    }
}

async fn try_cancel(
    shop: &Arc<Shop>,
    context: &Context,
    id: &str,
    mut order: Order,
) -> Result<Order, StoreError> {
    let mut tx = shop.store.begin().await?;
    let facts = [Fact::Cancelling {
        reason: Reason::Customer,
    }];
    // Whoever drives the saga finds its state changed at the next write, and turns round.
    let turn = sql("UPDATE saga SET state = 'COMPENSATING', next_at = $1
         WHERE id = $2 AND state = 'RUNNING'");
    tx.execute(turn.bind(wall_ms()).bind(id)).await?;
    events::append(&mut tx, id, order.version, &facts, context, shop.publish).await?;
    tx.commit().await?;
    shop.appended.notify_one();
    order.apply(&facts[0])?;
    redrive::start(shop, id, None);
    Ok(order)
}
