//! Charges orders at the provider, exactly once each, whatever breaks in between.
//!
//! ```text
//! (none) ─charge─▶ CHARGING ─201─▶ COMPLETED ─refund─▶ REFUNDING ─▶ REFUNDED
//!    │                │ └──402─▶ DECLINED                  │
//!    └─refund─▶ VOID  └─refund────────────────────────▶ REFUNDING ─▶ VOID (nothing had been charged)
//! ```
//!
//! The intent is committed before the provider is called, and the provider is always called with the
//! order's own key: killed at any moment, the same request again finds out what happened. A time-out is
//! *unknown*, never a failure. A refund that comes first leaves a tombstone, so a late charge is refused.
//!
//! It never decides to ask again on its own: `orders` does. Next: `payments::charge`, `payments::refund`.

mod charge;
mod refund;
mod table;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::kit::edge::{Edge, EdgePolicy};
use crate::kit::error::ApiError;
use crate::kit::evidence::{Evidence, Page};
use crate::kit::killpoint::KillPoints;
use crate::kit::service::{RunError, Service};
use crate::kit::store::Store;

/// What the handlers share.
#[derive(Clone)]
struct App {
    store: Store,
    psp: Edge,
    evidence: Evidence,
    killpoints: KillPoints,
    /// Defect m25: tries are repeated without the key that makes them one charge.
    retries_without_key: bool,
}

/// Serves payments until it is stopped.
pub(crate) async fn run(service: Service) -> Result<(), RunError> {
    let profile = service.config().profile;
    let store = service.store(&table::TABLES).await?;
    let psp = service.edge("psp", EdgePolicy::psp(profile))?;
    let bus = service.bus()?;
    service.relay(&store, &bus);
    let app = App {
        store,
        psp,
        evidence: service.evidence(),
        killpoints: service.killpoints().clone(),
        retries_without_key: service.config().defects.on("m25"),
    };
    let public = Router::new()
        .route("/payments", post(charge::charge))
        .route("/payments/{order}", get(show))
        .route("/payments/{order}/refund", post(refund::refund))
        .with_state(app.clone());
    let internal = Router::new()
        .route("/internal/payments", get(list))
        .with_state(app);
    service.serve(public, internal).await
}

async fn show(State(app): State<App>, Path(order): Path<String>) -> Result<Json<Value>, ApiError> {
    let payment = table::find(&app.store, &order).await?;
    let payment = payment.ok_or_else(|| ApiError::not_found("payment"))?;
    Ok(Json(payment.document()))
}

async fn list(State(app): State<App>, page: Page) -> Result<Json<Value>, ApiError> {
    let query =
        "SELECT seq, order_id, user_id, amount_cents, state, psp_ref, created_at, updated_at
         FROM payments WHERE seq > $1 ORDER BY seq LIMIT $2";
    let columns = [
        "seq",
        "order_id",
        "user_id",
        "amount_cents",
        "state",
        "psp_ref",
        "created_at",
        "updated_at",
    ];
    Ok(app
        .evidence
        .table(&app.store, "rows", query, &columns, page)
        .await?)
}

/// 202: it may have happened. Ask again with the same key.
fn unknown(order: &str, error: &dyn std::error::Error) -> Response {
    tracing::warn!(order, %error, "outcome at the provider is unknown");
    let body = json!({ "order_id": order, "state": "UNKNOWN" });
    (http::StatusCode::ACCEPTED, Json(body)).into_response()
}

/// What could not be stored after the provider had done it is unknown to the caller, never refused:
/// 503 would promise that nothing happened.
fn stored(order: &str, stored: Result<Response, ApiError>) -> Result<Response, ApiError> {
    match stored {
        Err(error) if error.status == http::StatusCode::SERVICE_UNAVAILABLE => {
            Ok(unknown(order, &error))
        }
        stored => stored,
    }
}

#[cfg(test)]
mod tests;
