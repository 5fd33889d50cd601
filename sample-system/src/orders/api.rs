//! What the gateway asks of `orders`. It trusts `x-user-id`, which only the gateway can set: this
//! port is not public.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::aggregate::{self, Line, Order, Reason, Wish};
use super::place::{self, Placement};
use super::{Shop, view};
use crate::kit::config::Config;
use crate::kit::context::Context;
use crate::kit::edge::IDEMPOTENCY_KEY;
use crate::kit::error::ApiError;
use crate::kit::http::Bulkhead;
use crate::kit::store::{RowExt, StoreError, sql};

/// How long a client waits for the end of its order when it does not say (`Prefer: wait=SECONDS`).
const WAIT: Duration = Duration::from_secs(2);
/// Of the caller's deadline, what is kept for sending the answer.
const ANSWERING: Duration = Duration::from_millis(200);
/// Different products in one order at most.
const LINES_MAX: usize = 50;
/// Pieces of one product at most.
const QUANTITY_MAX: i64 = 1_000;
/// The longest name of a product, as `catalog` has it, or of a method of payment. Both travel in the
/// order's events, which the bus takes only up to a size.
const NAME_BYTES_MAX: usize = 40;

#[derive(Clone)]
struct Api {
    shop: Arc<Shop>,
    commands: Bulkhead,
    queries: Bulkhead,
}

pub(super) fn routes(shop: &Arc<Shop>, config: &Config) -> Router {
    let api = Api {
        shop: Arc::clone(shop),
        commands: Bulkhead::commands(config.profile),
        queries: Bulkhead::queries(config.profile),
    };
    Router::new()
        .route("/orders", post(place_order).get(list_orders))
        .route("/orders/{id}", get(show_order).delete(cancel_order))
        .route("/orders/{id}/cancel", post(cancel_order))
        .route("/cart", get(show_cart))
        .with_state(api)
}

/// `{"sku": "A1", "quantity": 1}` or `{"items": [{"sku": …, "quantity": …}, …]}`, with an optional
/// `method`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceOrder {
    sku: Option<String>,
    quantity: Option<i64>,
    items: Option<Vec<Line>>,
    method: Option<String>,
}

impl PlaceOrder {
    fn wish(self, user_id: String) -> Result<Wish, ApiError> {
        let items = match (self.items, self.sku) {
            (Some(items), None) => items,
            (None, Some(sku)) => vec![Line {
                sku,
                quantity: self.quantity.unwrap_or(1),
            }],
            _ => {
                return Err(ApiError::bad_request(
                    "give either `items` or `sku` and `quantity`",
                ));
            }
        };
        if items.is_empty() || items.len() > LINES_MAX {
            return Err(ApiError::bad_request(format!(
                "`items` has 1 to {LINES_MAX} lines"
            )));
        }
        if items
            .iter()
            .any(|line| !(1..=QUANTITY_MAX).contains(&line.quantity))
        {
            return Err(ApiError::bad_request(format!(
                "`quantity` is 1 to {QUANTITY_MAX}"
            )));
        }
        let method = self.method.unwrap_or_else(|| "card".to_owned());
        let mut skus = items.iter().map(|line| &line.sku);
        for (field, long) in [
            ("sku", skus.any(|sku| sku.len() > NAME_BYTES_MAX)),
            ("method", method.len() > NAME_BYTES_MAX),
        ] {
            if long {
                return Err(ApiError::bad_request(format!(
                    "`{field}` has at most {NAME_BYTES_MAX} bytes"
                )));
            }
        }
        Ok(Wish {
            user_id,
            items,
            method,
        })
    }
}

async fn place_order(
    State(api): State<Api>,
    context: Context,
    headers: HeaderMap,
    Json(body): Json<PlaceOrder>,
) -> Result<Response, ApiError> {
    let key = text(&headers, IDEMPOTENCY_KEY.as_str())
        .ok_or_else(|| ApiError::bad_request("`Idempotency-Key` is missing"))?;
    let wish = body.wish(user(&headers)?)?;
    let executing = api.commands.enter()?;
    let placement = place::place(&api.shop, &context, key, wish).await?;
    // From here on we only wait for somebody else's answer.
    drop(executing);
    Ok(match placement {
        Placement::Known(id, order) => answer(&id, &order),
        Placement::New(id, end) => {
            match tokio::time::timeout(wait(&headers, &context), end).await {
                Ok(Ok(order)) => answer(&id, &order),
                Ok(Err(_parked)) => pending(&id),
                Err(_elapsed) => pending(&id),
            }
        }
    })
}

/// As long as the client prefers, but never so long that the caller has left before the answer.
fn wait(headers: &HeaderMap, context: &Context) -> Duration {
    let preferred = text(headers, "prefer")
        .and_then(|prefer| prefer.strip_prefix("wait=")?.parse().ok())
        .map_or(WAIT, Duration::from_secs);
    let left = context
        .left()
        .map_or(preferred, |left| left.saturating_sub(ANSWERING));
    preferred.min(left)
}

/// 202: the order exists and will become final, either way.
fn pending(id: &str) -> Response {
    let body = json!({ "id": id, "state": "PENDING" });
    (StatusCode::ACCEPTED, [(LOCATION, location(id))], Json(body)).into_response()
}

fn location(id: &str) -> String {
    format!("/api/orders/{id}")
}

/// The answer to a placement, from what the order has come to.
fn answer(id: &str, order: &Order) -> Response {
    let (status, code) = match (order.state, order.reason) {
        (Some(aggregate::State::Confirmed), _) => {
            let body = json!({
                "id": id, "state": "CONFIRMED", "total_cents": order.total_cents,
            });
            return (StatusCode::CREATED, [(LOCATION, location(id))], Json(body)).into_response();
        }
        (Some(state), Some(reason)) if state.is_final() => refusal(reason),
        _ => return pending(id),
    };
    let state = order.state.map(aggregate::State::name);
    let message = "the order was not carried out; nothing is owed";
    let error = json!({ "code": code, "message": message });
    let body = json!({ "id": id, "state": state, "error": error });
    (status, [(LOCATION, location(id))], Json(body)).into_response()
}

fn refusal(reason: Reason) -> (StatusCode, &'static str) {
    match reason {
        Reason::UnknownUser => (StatusCode::NOT_FOUND, "unknown-user"),
        Reason::UnknownProduct => (StatusCode::NOT_FOUND, "unknown-product"),
        Reason::OutOfStock => (StatusCode::CONFLICT, "out-of-stock"),
        Reason::Declined => (StatusCode::PAYMENT_REQUIRED, "declined"),
        Reason::Deadline => (StatusCode::CONFLICT, "not-paid-in-time"),
        Reason::Customer => (StatusCode::CONFLICT, "cancelled"),
    }
}

async fn show_order(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (user_id, _executing) = (user(&headers)?, api.queries.enter()?);
    match view::find(&api.shop.view, &id).await? {
        Some(order) if order["user_id"] == user_id.as_str() => Ok(Json(order)),
        Some(_others) => Err(ApiError::not_found("order")),
        // Younger than the view: whoever placed it may look at once.
        None => place::find(&api.shop, &user_id, &id)
            .await
            .map(|order| Json(shown(&id, &order))),
    }
}

fn shown(id: &str, order: &Order) -> Value {
    json!({
        "id": id,
        "user_id": order.wish.as_ref().map(|wish| wish.user_id.as_str()),
        "state": order.state.map(aggregate::State::name),
        "total_cents": order.total_cents,
        "items": order.wish.as_ref().map(|wish| &wish.items),
        "reason": order.reason,
        "version": order.version,
    })
}

#[derive(Deserialize)]
struct Listing {
    before: Option<String>,
    limit: Option<i64>,
}

async fn list_orders(
    State(api): State<Api>,
    headers: HeaderMap,
    Query(page): Query<Listing>,
) -> Result<Json<Value>, ApiError> {
    let (user_id, _executing) = (user(&headers)?, api.queries.enter()?);
    let limit = page.limit.unwrap_or(20).clamp(1, 100);
    let before = page.before.unwrap_or_default();
    let orders = view::list(&api.shop.view, &user_id, &before, limit).await?;
    Ok(Json(json!({ "orders": orders })))
}

async fn cancel_order(
    State(api): State<Api>,
    context: Context,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (user_id, _executing) = (user(&headers)?, api.commands.enter()?);
    let order = place::cancel(&api.shop, &context.without_deadline(), &user_id, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&id, &order))).into_response())
}

async fn show_cart(State(api): State<Api>, headers: HeaderMap) -> Result<Json<Value>, ApiError> {
    let (user_id, _executing) = (user(&headers)?, api.queries.enter()?);
    let select = sql("SELECT items, created_at FROM carts WHERE user_id = $1");
    let row = api.shop.view.row(select.bind(&user_id)).await?;
    let row = row.ok_or_else(|| ApiError::not_found("cart"))?;
    let items: String = row.try_get("items").map_err(StoreError::from)?;
    let items: Value = serde_json::from_str(&items).map_err(StoreError::from)?;
    Ok(Json(json!({ "user_id": user_id, "items": items })))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get(name)?
        .to_str()
        .ok()
        .filter(|text| !text.is_empty() && text.len() <= 200)
}

fn user(headers: &HeaderMap) -> Result<String, ApiError> {
    let missing = || {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "no-user",
            "`x-user-id` is missing",
        )
    };
    text(headers, "x-user-id")
        .map(str::to_owned)
        .ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(body: Value) -> Result<Wish, String> {
        let body: PlaceOrder = serde_json::from_value(body).unwrap();
        body.wish("u1".to_owned()).map_err(|error| error.message)
    }

    #[test]
    fn an_order_with_a_name_that_no_event_can_carry_is_refused() {
        let (fits, long) = ("x".repeat(40), "x".repeat(41));
        assert!(wish(json!({ "sku": fits, "method": fits })).is_ok());
        let lines = json!([{ "sku": "A1", "quantity": 1 }, { "sku": long, "quantity": 1 }]);
        for (body, field) in [
            (json!({ "sku": long }), "sku"),
            (json!({ "items": lines }), "sku"),
            (json!({ "sku": "A1", "method": long }), "method"),
        ] {
            let refusal = wish(body).unwrap_err();
            assert_eq!(refusal, format!("`{field}` has at most 40 bytes"));
        }
    }
}
