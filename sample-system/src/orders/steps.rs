//! The saga's calls to other services, and what each answer means for the order.
//!
//! A step is tried with the same idempotency key for ever, so an answer may be about an earlier attempt. Only an
//! answer that says so counts as *refused* or *rejected*; everything else is unknown. Nothing here is remembered: the
//! driver writes down how it went.

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::aggregate::{Fact, Order, Reason, Wish};
use super::machine::Step;
use super::prices::Prices;
use super::{MONEY, STEP, Shop};
use crate::kit::context::Context;
use crate::kit::edge::{EdgeError, EdgeRequest, Reply};
use crate::kit::store::sql;

/// The method of payment that is always declined, for trying out what happens then.
const DECLINED_METHOD: &str = "card-declined";
/// The provider's test card for it.
const DECLINED_CARD: &str = "4000000000000002";

/// How one attempt at a step ended.
#[derive(Debug)]
pub(super) enum End {
    /// It happened; with the fact that follows from it.
    Done(Option<Fact>),
    /// A definite no: the order cannot go on.
    Rejected(Reason, String),
    /// This attempt did nothing; another may.
    Failed(String),
    /// Nobody knows.
    Unknown(String),
}

impl From<EdgeError> for End {
    fn from(error: EdgeError) -> Self {
        if error.unknown {
            Self::Unknown(error.to_string())
        } else {
            Self::Failed(error.to_string())
        }
    }
}

/// Tries `step` of the order `id` once.
pub(super) async fn attempt(
    shop: &Shop,
    context: &Context,
    id: &str,
    order: &Order,
    step: Step,
) -> End {
    let Some(wish) = &order.wish else {
        return End::Failed("the order has no `order.placed`".to_owned());
    };
    let limit = if step == Step::Charge { MONEY } else { STEP };
    let context = &context.within(limit);
    let end = match step {
        Step::Validate => Ok(validate(shop, context, id, wish).await),
        Step::Reserve => reserve(shop, context, id, wish).await,
        Step::Charge => charge(shop, context, id, order, wish).await,
        Step::Commit => commit(shop, context, id).await,
        Step::Confirm => Ok(End::Done(None)),
    };
    end.unwrap_or_else(End::from)
}

/// Undoes `step` of the order `id` once; repeated until it answers `Ok`.
///
/// # Errors
/// It is not undone yet, or nobody knows.
pub(super) async fn undo(
    shop: &Shop,
    context: &Context,
    id: &str,
    step: Step,
) -> Result<(), String> {
    let Some(action) = step.undo() else {
        return Ok(());
    };
    let key = format!("{id}:{action}");
    let context = &context.within(if step == Step::Charge { MONEY } else { STEP });
    let answer = if step == Step::Charge {
        let request = EdgeRequest::post(format!("/payments/{id}/refund")).key(key);
        shop.payments.send(context, request.json(json!({}))).await
    } else {
        let request = EdgeRequest::post(format!("/reservations/{id}/release")).key(key);
        shop.inventory.send(context, request.json(json!({}))).await
    };
    match answer {
        Ok(reply) if reply.status == StatusCode::OK => Ok(()),
        Ok(reply) => Err(odd(action, &reply)),
        Err(error) => Err(error.to_string()),
    }
}

fn odd(action: &str, reply: &Reply) -> String {
    let code = reply.error_code().unwrap_or_default();
    format!("{action} answered {} {code}", reply.status.as_u16())
}

async fn validate(shop: &Shop, context: &Context, id: &str, wish: &Wish) -> End {
    let asked = (
        user_exists(shop, context, wish),
        prices(shop, context, id, wish),
    );
    let (user, prices) = tokio::join!(asked.0, asked.1);
    let (prices, source) = match (user, prices) {
        (Ok(false), _) => return End::Rejected(Reason::UnknownUser, "no such user".to_owned()),
        (Err(why), _) | (_, Err(why)) => return End::Failed(why),
        (Ok(true), Ok(found)) => found,
    };
    let total_cents = wish.items.iter().try_fold(0_i64, |total, line| {
        prices
            .get(&line.sku)?
            .checked_mul(line.quantity)?
            .checked_add(total)
    });
    match total_cents {
        Some(total_cents) => End::Done(Some(Fact::Priced {
            total_cents,
            source: source.to_owned(),
        })),
        None => End::Rejected(Reason::UnknownProduct, "a product has no price".to_owned()),
    }
}

/// Asks `users`; when that fails, the replica kept from `user.created` answers.
async fn user_exists(shop: &Shop, context: &Context, wish: &Wish) -> Result<bool, String> {
    let request = EdgeRequest::get(format!("/users/{}", wish.user_id));
    let why = match shop.users.send(context, request).await {
        Ok(reply) if reply.status.is_success() => return Ok(true),
        Ok(reply) if reply.status == StatusCode::NOT_FOUND => return Ok(false),
        Ok(reply) => odd("users", &reply),
        Err(error) => error.to_string(),
    };
    let select = sql("SELECT user_id FROM customers WHERE user_id = $1");
    let known = shop.store.row(select.bind(wish.user_id.as_str())).await;
    match known.map_err(|error| error.to_string())? {
        Some(_) => {
            shop.users.count_fallback();
            Ok(true)
        }
        None => Err(why),
    }
}

/// Asks `catalog` for all prices in one call; when that fails, the last ones it told us stand in.
async fn prices(
    shop: &Shop,
    context: &Context,
    id: &str,
    wish: &Wish,
) -> Result<(Prices, &'static str), String> {
    let skus: Vec<_> = wish.items.iter().map(|line| &line.sku).collect();
    let request = EdgeRequest::post("/products/batch").json(json!({ "skus": skus }));
    let answer = shop
        .catalog
        .send(context, request.key(format!("{id}:prices")))
        .await;
    let why = match answer {
        Ok(reply) if reply.status.is_success() => match reply.json::<Batch>() {
            Ok(batch) => {
                let prices = batch
                    .products
                    .into_iter()
                    .map(|p| (p.sku, p.price_cents))
                    .collect();
                shop.prices.learn(&shop.store, &prices).await;
                return Ok((prices, "catalog"));
            }
            Err(error) => error.to_string(),
        },
        Ok(reply) => odd("catalog", &reply),
        Err(error) => error.to_string(),
    };
    let Some(prices) = shop.prices.last_known(&wish.items) else {
        return Err(why);
    };
    shop.catalog.count_fallback();
    Ok((prices, "last-known"))
}

#[derive(Deserialize)]
struct Batch {
    products: Vec<Priced>,
}

#[derive(Deserialize)]
struct Priced {
    sku: String,
    price_cents: i64,
}

async fn reserve(shop: &Shop, context: &Context, id: &str, wish: &Wish) -> Result<End, EdgeError> {
    let request = EdgeRequest::put(format!("/reservations/{id}"))
        .key(format!("{id}:reserve"))
        .json(json!({ "items": wish.items }));
    let reply = shop.inventory.send(context, request).await?;
    Ok(match reply.status {
        status if status.is_success() => End::Done(Some(Fact::Reserved {})),
        StatusCode::CONFLICT | StatusCode::NOT_FOUND => {
            End::Rejected(Reason::OutOfStock, odd("reserve", &reply))
        }
        _ => End::Unknown(odd("reserve", &reply)),
    })
}

#[derive(Deserialize)]
struct Charged {
    psp_ref: Option<String>,
}

async fn charge(
    shop: &Shop,
    context: &Context,
    id: &str,
    order: &Order,
    wish: &Wish,
) -> Result<End, EdgeError> {
    let request = EdgeRequest::post("/payments")
        .key(format!("{id}:charge"))
        .json(json!({
            "order_id": id,
            "user_id": wish.user_id,
            "amount_cents": order.total_cents,
            "card": (wish.method == DECLINED_METHOD).then_some(DECLINED_CARD),
        }));
    let reply = shop.payments.send(context, request).await?;
    let code = reply.error_code();
    Ok(match reply.status {
        // 202 means that payments does not know either.
        StatusCode::OK | StatusCode::CREATED => {
            let psp_ref = reply
                .json::<Charged>()
                .ok()
                .and_then(|charged| charged.psp_ref);
            End::Done(Some(Fact::Charged {
                psp_ref: psp_ref.unwrap_or_default(),
            }))
        }
        StatusCode::PAYMENT_REQUIRED => End::Rejected(Reason::Declined, odd("charge", &reply)),
        StatusCode::CONFLICT if code.as_deref() == Some("tombstone") => {
            End::Rejected(Reason::Declined, odd("charge", &reply))
        }
        _ => End::Unknown(odd("charge", &reply)),
    })
}

async fn commit(shop: &Shop, context: &Context, id: &str) -> Result<End, EdgeError> {
    let request = EdgeRequest::post(format!("/reservations/{id}/commit"));
    let request = request.key(format!("{id}:commit")).json(json!({}));
    let reply = shop.inventory.send(context, request).await?;
    Ok(match reply.status {
        status if status.is_success() => End::Done(None),
        _ => End::Unknown(odd("commit", &reply)),
    })
}
