//! `inventory`: how much there is of each product, and for whom some of it is held.
//!
//! `PUT /reservations/{order}` holds, `POST …/release` gives back, `POST …/commit` sells; each may
//! be repeated, in any order, with the effect of once. `POST /intake` is the warehouse's door. It
//! knows nothing of orders but their ids, and of prices nothing. Read next: `stock.rs`.

mod stock;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kit::consumer::{ConsumerSpec, HandleError, Handler};
use crate::kit::context::Context;
use crate::kit::edge::IDEMPOTENCY_KEY;
use crate::kit::error::ApiError;
use crate::kit::event::Event;
use crate::kit::evidence::Evidence;
use crate::kit::idempotency::mismatch;
use crate::kit::killpoint::KillPoints;
use crate::kit::service::{RunError, Service};
use crate::kit::store::{Store, Tx};
use stock::{Intake, Line, Outcome};

/// Pieces in one delivery at most: no number of deliveries overflows the stock.
const INTAKE_MAX: i64 = 1_000_000_000;

#[derive(Clone)]
struct App {
    store: Store,
    killpoints: KillPoints,
    evidence: Evidence,
}

/// Runs the service until it is asked to stop.
///
/// # Errors
/// The environment is wrong, the database cannot be opened, or work was cut at the end.
pub(crate) async fn run(service: Service) -> Result<(), RunError> {
    let store = service.store(stock::TABLES).await?;
    let bus = service.bus()?;
    service.relay(&store, &bus);
    let consumer = ConsumerSpec {
        queue: "inventory",
        prefetch: 20,
    };
    service.consume(consumer, &store, &bus, Arc::new(Listener));
    let app = App {
        store,
        killpoints: service.killpoints().clone(),
        evidence: service.evidence(),
    };
    let public = Router::new()
        .route("/reservations/{order}", put(reserve))
        .route("/reservations/{order}/release", post(release))
        .route("/reservations/{order}/commit", post(commit))
        .route("/intake", post(intake))
        .with_state(app.clone());
    let internal = Router::new()
        .route("/internal/stock", get(report))
        .with_state(app);
    service.serve(public, internal).await
}

#[derive(Deserialize)]
struct Reserve {
    items: Vec<Line>,
}

async fn reserve(
    State(app): State<App>,
    context: Context,
    Path(order): Path<String>,
    Json(body): Json<Reserve>,
) -> Result<Response, ApiError> {
    if body.items.is_empty() || body.items.iter().any(|line| line.quantity < 1) {
        return Err(ApiError::bad_request(
            "`items` has lines with a `quantity` of at least 1",
        ));
    }
    let mut tx = app.store.begin().await?;
    let outcome = stock::reserve(&mut tx, &order, &body.items, &context).await?;
    finish(&app, tx, &order, outcome).await
}

async fn release(
    State(app): State<App>,
    context: Context,
    Path(order): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = app.store.begin().await?;
    let outcome = stock::release(&mut tx, &order, &context).await?;
    finish(&app, tx, &order, outcome).await
}

async fn commit(
    State(app): State<App>,
    context: Context,
    Path(order): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = app.store.begin().await?;
    let outcome = stock::commit(&mut tx, &order, &context).await?;
    finish(&app, tx, &order, outcome).await
}

/// Commits, also a refusal (it announces itself), and answers.
async fn finish(app: &App, tx: Tx, order: &str, outcome: Outcome) -> Result<Response, ApiError> {
    tx.commit().await?;
    app.killpoints
        .reach("inventory.after_commit_before_reply")
        .await?;
    match outcome {
        Outcome::Done(state) => {
            Ok(Json(json!({ "order_id": order, "state": state.name() })).into_response())
        }
        Outcome::Short(sku) => Err(ApiError::conflict(
            "out-of-stock",
            format!("not enough of `{sku}`"),
        )),
        Outcome::Conflict(state) => {
            let message = format!("the reservation is {}", state.name());
            Err(ApiError::conflict("wrong-state", message))
        }
        Outcome::OtherItems => Err(mismatch()),
        Outcome::Missing => Err(ApiError::not_found("reservation")),
    }
}

/// `{"sku": "A1", "quantity": 10}` with an `Idempotency-Key`, which names the delivery.
async fn intake(
    State(app): State<App>,
    headers: HeaderMap,
    Json(line): Json<Line>,
) -> Result<Response, ApiError> {
    let key = headers
        .get(IDEMPOTENCY_KEY)
        .and_then(|key| key.to_str().ok());
    let key = key.ok_or_else(|| ApiError::bad_request("`Idempotency-Key` is missing"))?;
    if !(1..=INTAKE_MAX).contains(&line.quantity) {
        return Err(ApiError::bad_request(format!(
            "`quantity` is 1 to {INTAKE_MAX}"
        )));
    }
    let mut tx = app.store.begin().await?;
    let intake = stock::intake(&mut tx, key, &line).await?;
    tx.commit().await?;
    let status = match intake {
        Intake::New => StatusCode::CREATED,
        Intake::Known => StatusCode::OK,
        Intake::Other => return Err(mismatch()),
    };
    Ok((
        status,
        Json(json!({ "sku": line.sku, "quantity": line.quantity })),
    )
        .into_response())
}

async fn report(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    Ok(app.evidence.answer(stock::report(&app.store).await?))
}

/// New products get a row; a cancelled order frees what is still held for it (the saga usually did
/// before).
struct Listener;

impl Handler for Listener {
    fn handle<'a>(
        &'a self,
        tx: &'a mut Tx,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move {
            match event.kind.as_str() {
                "product.created" => stock::stock_product(tx, &event.aggregate_id).await?,
                "order.cancelled" => {
                    stock::release(tx, &event.aggregate_id, &event.context()).await?;
                }
                _ => {}
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Running;

    #[tokio::test]
    async fn a_delivery_counts_once_under_its_key_and_no_other_hides_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let nobody = [("BUS_URL", "http://127.0.0.1:9")];
        let inventory = Running::start("inventory", dir.path(), &nobody).await;
        let deliver = async |key, sku, quantity| {
            let line = json!({ "sku": sku, "quantity": quantity });
            inventory.post("/intake", key, line).await.0
        };
        assert_eq!(deliver("truck-1", "RARE", 7).await, 201);
        assert_eq!(deliver("truck-1", "RARE", 7).await, 200);
        assert_eq!(deliver("truck-1", "RARE", 8).await, 422);
        assert_eq!(deliver("truck-1", "A1", 7).await, 422);
        for overflowing in [0, INTAKE_MAX + 1, i64::MAX] {
            assert_eq!(deliver("truck-2", "RARE", overflowing).await, 400);
        }
        let report = inventory.get("/internal/stock").await.1;
        let rare = &report["stock"].as_array().unwrap()[5];
        assert_eq!(
            (&rare["sku"], &rare["available"]),
            (&json!("RARE"), &json!(10))
        );
    }
}
