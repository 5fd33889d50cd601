//! The bus over HTTP: for services on the data port, for operators behind the token.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::committer::Committer;
use super::queues::{self, Answer, Operation};
use crate::kit::bus::client::Publication;
use crate::kit::bus::{Delivery, Depth};
use crate::kit::error::ApiError;
use crate::kit::evidence::{Evidence, Page};
use crate::kit::killpoint::KillPoints;
use crate::kit::service::Service;
use crate::kit::shutdown::Stop;
use crate::kit::store::Store;

/// Publications per request.
const BATCH_MAX: usize = 500;
/// The longest long poll.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How often a long poll looks for messages whose time has come.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[derive(Clone)]
struct App {
    store: Store,
    committer: Committer,
    /// Wakes long polls after a publish.
    published: Arc<Notify>,
    evidence: Evidence,
    killpoints: KillPoints,
    stop: Stop,
}

/// The routes of the data port and of the admin port.
pub(super) fn routers(service: &Service, store: Store, committer: Committer) -> (Router, Router) {
    let app = App {
        store,
        committer,
        published: Arc::default(),
        evidence: service.evidence(),
        killpoints: service.killpoints().clone(),
        stop: service.stop().clone(),
    };
    let public = Router::new()
        .route("/publish", post(publish))
        .route("/queues/{queue}", put(declare).get(depth))
        .route("/queues/{queue}/fetch", post(fetch))
        .route("/queues/{queue}/ack", post(ack))
        .route("/queues/{queue}/nack", post(nack))
        .route("/queues/{queue}/dead", post(dead))
        .route("/queues/{queue}/dlq", get(dead_letters))
        .route("/queues/{queue}/dlq/replay", post(replay))
        .with_state(app.clone());
    let internal = Router::new()
        .route("/stats", get(stats))
        .route("/dlq", get(all_dead_letters))
        .with_state(app);
    (public, internal)
}

#[derive(Deserialize)]
struct Batch {
    events: Vec<Publication>,
}

/// Answers after the commit, one confirmation per event.
async fn publish(
    State(app): State<App>,
    Json(batch): Json<Batch>,
) -> Result<Json<Value>, ApiError> {
    if batch.events.len() > BATCH_MAX {
        return Err(ApiError::bad_request(format!(
            "at most {BATCH_MAX} events at a time"
        )));
    }
    if batch
        .events
        .iter()
        .any(|event| event.routing_key.is_empty() || event.event_id.is_empty())
    {
        return Err(ApiError::bad_request(
            "an event needs an id and a routing key",
        ));
    }
    let answer = app
        .committer
        .commit(Operation::Publish(batch.events))
        .await?;
    app.published.notify_waiters();
    app.killpoints
        .reach("bus.after_store_before_confirm")
        .await?;
    match answer {
        Answer::Confirmations(confirmations) => Ok(Json(json!({ "confirmations": confirmations }))),
        _ => Err(misfit()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fetch {
    consumer: String,
    incarnation: String,
    max: u32,
    #[serde(default)]
    wait_ms: u64,
}

/// Answers as soon as there is a message, or empty when the wait is over.
async fn fetch(
    State(app): State<App>,
    Path(queue): Path<String>,
    Json(wish): Json<Fetch>,
) -> Result<Json<Value>, ApiError> {
    known(&app, &queue).await?;
    let until = Instant::now() + Duration::from_millis(wish.wait_ms).min(WAIT_MAX);
    loop {
        // Listening begins before looking, so nothing can come in unnoticed between the two.
        let published = app.published.notified();
        let deliveries = take(&app, &queue, &wish).await?;
        let left = until.saturating_duration_since(Instant::now());
        if !deliveries.is_empty() || left.is_zero() || app.stop.asked() {
            return Ok(Json(json!({ "deliveries": deliveries })));
        }
        tokio::select! {
            () = app.stop.wait() => {}
            _woken = timeout(left.min(LOOK_AGAIN), published) => {}
        }
    }
}

async fn take(app: &App, queue: &str, wish: &Fetch) -> Result<Vec<Delivery>, ApiError> {
    let operation = Operation::Fetch {
        queue: queue.to_owned(),
        consumer: wish.consumer.clone(),
        incarnation: wish.incarnation.clone(),
        max: wish.max,
    };
    match app.committer.commit(operation).await? {
        Answer::Deliveries(deliveries) => Ok(deliveries),
        _ => Err(misfit()),
    }
}

#[derive(Deserialize)]
struct Ack {
    tag: String,
}

async fn ack(
    State(app): State<App>,
    Path(queue): Path<String>,
    Json(Ack { tag }): Json<Ack>,
) -> Result<Json<Value>, ApiError> {
    settle(&app, Operation::Ack { queue, tag }).await
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Nack {
    tag: String,
    #[serde(default)]
    delay_ms: u32,
}

async fn nack(
    State(app): State<App>,
    Path(queue): Path<String>,
    Json(Nack { tag, delay_ms }): Json<Nack>,
) -> Result<Json<Value>, ApiError> {
    settle(
        &app,
        Operation::Nack {
            queue,
            tag,
            delay_ms: i64::from(delay_ms),
        },
    )
    .await
}

#[derive(Deserialize)]
struct Dead {
    tag: String,
    reason: String,
}

async fn dead(
    State(app): State<App>,
    Path(queue): Path<String>,
    Json(Dead { tag, reason }): Json<Dead>,
) -> Result<Json<Value>, ApiError> {
    settle(&app, Operation::Dead { queue, tag, reason }).await
}

/// Settles one delivery. 409 when it is not this consumer's any more.
async fn settle(app: &App, operation: Operation) -> Result<Json<Value>, ApiError> {
    match app.committer.commit(operation).await? {
        Answer::Changed(0) => Err(ApiError::conflict(
            "stale-tag",
            "this delivery was settled or has expired",
        )),
        Answer::Changed(_) => Ok(Json(json!({}))),
        _ => Err(misfit()),
    }
}

#[derive(Deserialize)]
struct Declaration {
    patterns: Vec<String>,
}

async fn declare(
    State(app): State<App>,
    Path(queue): Path<String>,
    Json(Declaration { patterns }): Json<Declaration>,
) -> Result<Json<Value>, ApiError> {
    app.committer
        .commit(Operation::Declare { queue, patterns })
        .await?;
    Ok(Json(json!({})))
}

async fn depth(State(app): State<App>, Path(queue): Path<String>) -> Result<Json<Value>, ApiError> {
    let depths = queues::depths(&app.store).await?;
    let found = depths.into_iter().find(|(name, _)| *name == queue);
    let (_, depth) = found.ok_or_else(|| ApiError::not_found("queue"))?;
    Ok(Json(json!({ "queue": queue, "depth": depth })))
}

/// 404 when nobody declared the queue.
async fn known(app: &App, queue: &str) -> Result<(), ApiError> {
    match queues::exists(&app.store, queue).await? {
        true => Ok(()),
        false => Err(ApiError::not_found("queue")),
    }
}

async fn dead_letters(
    State(app): State<App>,
    Path(queue): Path<String>,
    page: Page,
) -> Result<Json<Value>, ApiError> {
    known(&app, &queue).await?;
    letters(&app, &queue, page).await
}

async fn all_dead_letters(State(app): State<App>, page: Page) -> Result<Json<Value>, ApiError> {
    letters(&app, "", page).await
}

async fn letters(app: &App, queue: &str, page: Page) -> Result<Json<Value>, ApiError> {
    let letters = queues::dead_letters(&app.store, queue, page.after, page.limit).await?;
    let rows = letters
        .into_iter()
        .map(|letter| (letter.seq, json!(letter)))
        .collect();
    Ok(app.evidence.page("rows", rows))
}

async fn replay(
    State(app): State<App>,
    Path(queue): Path<String>,
) -> Result<Json<Value>, ApiError> {
    known(&app, &queue).await?;
    match app.committer.commit(Operation::Replay { queue }).await? {
        Answer::Changed(replayed) => {
            app.published.notify_waiters();
            Ok(Json(json!({ "replayed": replayed })))
        }
        _ => Err(misfit()),
    }
}

/// How much waits in all queues together, and in each.
async fn stats(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let mut total = Depth::default();
    let mut queues = Map::new();
    for (name, depth) in queues::depths(&app.store).await? {
        total.ready += depth.ready;
        total.delayed += depth.delayed;
        total.unacked += depth.unacked;
        total.dead += depth.dead;
        queues.insert(name, json!(depth));
    }
    let mut body = json!(total);
    body["queues"] = Value::Object(queues);
    Ok(app.evidence.answer(body))
}

/// An operation got the answer of another one.
fn misfit() -> ApiError {
    ApiError::new(
        http::StatusCode::INTERNAL_SERVER_ERROR,
        "bug",
        "internal error",
    )
}
