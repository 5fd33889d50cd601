//! `POST /payments/{order}/refund`: the compensation of a charge, whether it happened or not.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::charge::charge_key;
use super::table::{self, Payment, PaymentState};
use super::{App, stored, unknown};
use crate::kit::context::Context;
use crate::kit::edge::{EdgeRequest, Reply};
use crate::kit::error::ApiError;
use crate::kit::event::Event;
use crate::kit::outbox;

/// 200 REFUNDED (money went back) or VOID (none had been taken, and none will be), 202 unknown, 503
/// (`x-upstream: psp`) the provider cannot be asked now. Repeatable: the order is the key.
pub(super) async fn refund(
    State(app): State<App>,
    context: Context,
    Path(order): Path<String>,
) -> Result<Response, ApiError> {
    let payment = store_intent(&app, &order).await?;
    if payment.state != PaymentState::Refunding {
        return Ok(Json(payment.document()).into_response());
    }
    let body = json!({
        "order_id": order,
        "charge_key": charge_key(&order),
        "ref": payment.psp_ref,
    });
    let request = EdgeRequest::post("/refunds")
        .json(body)
        .key(format!("{order}:refund"));
    match app.psp.send(&context, request).await {
        Ok(reply) if reply.status.is_success() => {
            let result = store_result(&app, &context, &order, &reply).await;
            stored(&order, result)
        }
        Ok(reply) => {
            tracing::error!(order, status = %reply.status, "the provider refused a refund");
            let message = "the provider refused the refund";
            Err(ApiError::new(http::StatusCode::BAD_GATEWAY, "provider-refused", message).by("psp"))
        }
        Err(error) if error.unknown => Ok(unknown(&order, &error)),
        Err(error) => Err(ApiError::from(error)),
    }
}

/// Commits the intent to refund. Without a charge, or before it, that is all there is to do: no
/// provider was ever asked, because a charge stores its own intent first.
async fn store_intent(app: &App, order: &str) -> Result<Payment, ApiError> {
    let mut tx = app.store.begin().await?;
    match table::find_in(&mut tx, order).await? {
        None => table::insert(&mut tx, order, "", 0, PaymentState::Void).await?,
        Some(payment) => {
            let to = match payment.state {
                PaymentState::Charging | PaymentState::Completed => PaymentState::Refunding,
                PaymentState::Declined => PaymentState::Void,
                settled => settled,
            };
            table::advance(&mut tx, order, payment.state, to, None).await?;
        }
    }
    let payment = table::find_in(&mut tx, order).await?;
    tx.commit().await?;
    payment.ok_or_else(|| ApiError::not_found("payment"))
}

/// Stores what the provider gave back, with the event that tells everybody.
async fn store_result(
    app: &App,
    context: &Context,
    order: &str,
    reply: &Reply,
) -> Result<Response, ApiError> {
    let body: Value = reply.json().unwrap_or_default();
    let Some(cents) = body["refunded_cents"].as_i64() else {
        let message = "the provider's answer is unreadable";
        return Err(
            ApiError::new(http::StatusCode::BAD_GATEWAY, "provider-answer", message).by("psp"),
        );
    };
    let to = if cents > 0 {
        PaymentState::Refunded
    } else {
        PaymentState::Void
    };
    let mut tx = app.store.begin().await?;
    let moved = table::advance(&mut tx, order, PaymentState::Refunding, to, None).await?;
    if moved && cents > 0 {
        let data = json!({ "order_id": order, "amount_cents": cents });
        outbox::put(
            &mut tx,
            &Event::new("payment.refunded", order, 2, context, data),
        )
        .await?;
    }
    let payment = table::find_in(&mut tx, order).await?;
    tx.commit().await?;
    Ok(Json(payment.map(|payment| payment.document())).into_response())
}
