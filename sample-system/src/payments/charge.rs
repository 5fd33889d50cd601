//! `POST /payments`: intent, call, result.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::table::{self, Payment, PaymentState};
use super::{App, stored, unknown};
use crate::kit::context::Context;
use crate::kit::edge::{EdgeRequest, Reply};
use crate::kit::error::ApiError;
use crate::kit::event::Event;
use crate::kit::outbox;

/// What `orders` asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChargeWish {
    order_id: String,
    user_id: String,
    amount_cents: i64,
    #[serde(default)]
    card: Option<String>,
}

/// The key of an order's charge at the provider: the same for ever.
pub(super) fn charge_key(order: &str) -> String {
    format!("{order}:charge")
}

/// 200 COMPLETED, 402 declined, 202 unknown, 409 taken back before it came, 503 (`x-upstream: psp`) the
/// provider cannot be asked now and nothing happened. Repeatable: the order is the key.
pub(super) async fn charge(
    State(app): State<App>,
    context: Context,
    Json(wish): Json<ChargeWish>,
) -> Result<Response, ApiError> {
    if wish.amount_cents <= 0 || wish.order_id.is_empty() {
        return Err(ApiError::bad_request(
            "an order and an amount above 0 are needed",
        ));
    }
    if let Some(known) = store_intent(&app, &wish).await? {
        return answer(&known);
    }
    let key = charge_key(&wish.order_id);
    let body = json!({
        "order_id": wish.order_id,
        "amount_cents": wish.amount_cents,
        "card": wish.card,
    });
    let mut request = EdgeRequest::post("/charges").json(body).key(key);
    if app.retries_without_key {
        request = request.retried_without_key();
    }
    match app.psp.send(&context, request).await {
        Ok(reply) => {
            app.killpoints
                .reach("payments.after_psp_before_commit")
                .await?;
            let result = store_result(&app, &context, &wish, &reply).await;
            stored(&wish.order_id, result)
        }
        Err(error) if error.unknown => Ok(unknown(&wish.order_id, &error)),
        Err(error) => Err(ApiError::from(error)),
    }
}

/// Commits the intent to charge; answers with the payment when there is nothing left to ask for.
async fn store_intent(app: &App, wish: &ChargeWish) -> Result<Option<Payment>, ApiError> {
    let mut tx = app.store.begin().await?;
    let Some(known) = table::find_in(&mut tx, &wish.order_id).await? else {
        let state = PaymentState::Charging;
        table::insert(
            &mut tx,
            &wish.order_id,
            &wish.user_id,
            wish.amount_cents,
            state,
        )
        .await?;
        tx.commit().await?;
        return Ok(None);
    };
    match known.state {
        PaymentState::Charging | PaymentState::Completed | PaymentState::Declined
            if known.amount_cents != wish.amount_cents =>
        {
            Err(crate::kit::idempotency::mismatch())
        }
        PaymentState::Charging => Ok(None),
        _ => Ok(Some(known)),
    }
}

/// Stores what the provider said, with the event that tells everybody.
async fn store_result(
    app: &App,
    context: &Context,
    wish: &ChargeWish,
    reply: &Reply,
) -> Result<Response, ApiError> {
    let (state, kind) = match reply.status {
        StatusCode::OK | StatusCode::CREATED => (PaymentState::Completed, "payment.completed"),
        StatusCode::PAYMENT_REQUIRED => (PaymentState::Declined, "payment.failed"),
        StatusCode::CONFLICT => return Err(taken_back()),
        status => {
            tracing::error!(order = wish.order_id, %status, "the provider does not understand us");
            let message = "the provider refused the request";
            let code = "provider-refused";
            return Err(ApiError::new(StatusCode::BAD_GATEWAY, code, message).by("psp"));
        }
    };
    let psp_ref = reply.json::<Value>().ok();
    let psp_ref = psp_ref.as_ref().and_then(|body| body["ref"].as_str());
    let mut tx = app.store.begin().await?;
    let from = PaymentState::Charging;
    if table::advance(&mut tx, &wish.order_id, from, state, psp_ref).await? {
        let data = json!({
            "order_id": wish.order_id,
            "user_id": wish.user_id,
            "amount_cents": wish.amount_cents,
            "psp_ref": psp_ref,
        });
        outbox::put(&mut tx, &Event::new(kind, &wish.order_id, 1, context, data)).await?;
    }
    let payment = table::find_in(&mut tx, &wish.order_id).await?;
    tx.commit().await?;
    // Somebody else with the same order may have been faster, or a refund: the row knows.
    answer(&payment.ok_or_else(|| ApiError::not_found("payment"))?)
}

/// The answer to a charge that has its result.
fn answer(payment: &Payment) -> Result<Response, ApiError> {
    match payment.state {
        PaymentState::Completed => Ok(Json(payment.document()).into_response()),
        PaymentState::Declined => Err(ApiError::new(
            StatusCode::PAYMENT_REQUIRED,
            "declined",
            "the card was declined",
        )),
        PaymentState::Charging => {
            Ok((StatusCode::ACCEPTED, Json(payment.document())).into_response())
        }
        PaymentState::Refunding | PaymentState::Refunded | PaymentState::Void => Err(taken_back()),
    }
}

fn taken_back() -> ApiError {
    ApiError::conflict("tombstone", "the payment of this order was taken back")
}
