//! The endpoints that every service has: health for orchestrators, evidence for operators.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::breaker::State as BreakerState;
use super::bus::Bus;
use super::clock::mono_ns;
use super::error::ApiError;
use super::evidence::{Evidence, Page, require_token, row_json};
use super::health::document;
use super::outbox;
use super::service::{Shared, lock};
use super::store::{Store, sql};

type App = State<Arc<Shared>>;

/// Health, in all its spellings; open to everybody.
pub(super) fn health(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/actuator/health/liveness", get(live))
        .route("/health/ready", get(ready))
        .route("/actuator/health/readiness", get(ready))
        .route("/health", get(ready))
        .with_state(Arc::clone(shared))
}

/// Metrics in Prometheus' text format; for operators, without a token, as scrapers have none.
pub(super) fn metrics(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(Arc::clone(shared))
}

/// The kit's evidence and the service's own, behind the token.
pub(super) fn internal(shared: &Arc<Shared>, own: Router) -> Router {
    Router::new()
        .route("/internal/info", get(info))
        .route("/internal/edges", get(edges))
        .route("/internal/attempts", get(attempts))
        .route("/internal/breakers", get(breakers))
        .route("/internal/outbox", get(outbox_backlog))
        .route("/internal/ledger", get(ledger))
        .route("/internal/idempotency/{key}", get(idempotency))
        .route("/internal/dlq", get(dead_letters))
        .route("/internal/dlq/replay", post(replay))
        .with_state(Arc::clone(shared))
        .merge(own)
        .route_layer(from_fn_with_state(
            Arc::clone(&shared.config),
            require_token,
        ))
}

fn evidence(shared: &Shared) -> Evidence {
    Evidence::new(Arc::clone(&shared.config))
}

fn store(shared: &Shared) -> Result<Store, ApiError> {
    lock(&shared.stores)
        .clone()
        .ok_or_else(|| ApiError::not_found("database in this service"))
}

async fn live(State(shared): App) -> Json<Value> {
    Json(document(shared.config.service, true, &json!({})))
}

async fn ready(State(shared): App) -> Response {
    if shared.stopping() {
        let body = document(shared.config.service, false, &json!({ "stopping": true }));
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    }
    let (up, body) = shared.health.ready(shared.config.service).await;
    let status = if up {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

async fn info(State(shared): App) -> Json<Value> {
    let config = &shared.config;
    let edges: Vec<Value> = lock(&shared.edges)
        .iter()
        .map(super::edge::Edge::view)
        .collect();
    evidence(&shared).answer(json!({
        "version": config.version,
        "pid": std::process::id(),
        "profile": config.profile.name(),
        "defects": config.defects.names(),
        "in-flight": shared.in_flight.now(),
        "edges": edges,
    }))
}

async fn edges(State(shared): App) -> Json<Value> {
    let edges: Vec<Value> = lock(&shared.edges)
        .iter()
        .map(super::edge::Edge::view)
        .collect();
    evidence(&shared).answer(json!({ "edges": edges }))
}

/// What went out over all edges, try by try.
async fn attempts(State(shared): App, page: Page) -> Json<Value> {
    evidence(&shared).page("attempts", shared.attempts.page(page))
}

#[derive(Deserialize)]
struct BreakerQuery {
    link: Option<String>,
}

/// All breakers, and their transitions in one list. The cursor is the instant of the transition, which
/// is the only order that breakers of several edges share.
async fn breakers(
    State(shared): App,
    Query(query): Query<BreakerQuery>,
    page: Page,
) -> Json<Value> {
    let edges = lock(&shared.edges).clone();
    let wanted = |link: &str| query.link.as_deref().is_none_or(|wanted| wanted == link);
    let until = i64::try_from(mono_ns()).unwrap_or(i64::MAX);
    let mut states = Vec::new();
    let mut rows = Vec::new();
    for view in edges
        .iter()
        .map(|edge| (edge.breaker().view(), edge.breaker().transitions(0)))
    {
        let (view, transitions) = view;
        if !wanted(&view.link) {
            continue;
        }
        for change in transitions {
            let cursor = i64::try_from(change.mono_ns).unwrap_or(i64::MAX);
            let mut row = json!(change);
            row["link"] = view.link.clone().into();
            row["incarnation"] = shared.config.incarnation.clone().into();
            rows.push((cursor, row));
        }
        states.push(view);
    }
    let mut answer = evidence(&shared).page("transitions", one_list(rows, until, page));
    answer["breakers"] = json!(states);
    answer
}

/// The page of `rows`, which were read after `until`. Younger ones are left for the next page: a breaker
/// that was read before may have changed just before them, and their cursor would skip that.
fn one_list(mut rows: Vec<(i64, Value)>, until: i64, page: Page) -> Vec<(i64, Value)> {
    rows.retain(|(cursor, _)| page.after < *cursor && *cursor <= until);
    rows.sort_by_key(|(cursor, _)| *cursor);
    rows.truncate(usize::try_from(page.limit).unwrap_or(usize::MAX));
    rows
}

async fn outbox_backlog(State(shared): App) -> Result<Json<Value>, ApiError> {
    let backlog = outbox::backlog(&store(&shared)?).await?;
    Ok(evidence(&shared).answer(backlog))
}

async fn ledger(State(shared): App, page: Page) -> Result<Json<Value>, ApiError> {
    let query = "SELECT seq, consumer, event_id, type, aggregate_id, version, deliveries, effects,
             first_at, last_at, mono_ns, incarnation
         FROM ledger WHERE seq > $1 ORDER BY seq LIMIT $2";
    let columns = [
        "seq",
        "consumer",
        "event_id",
        "type",
        "aggregate_id",
        "version",
        "deliveries",
        "effects",
        "first_at",
        "last_at",
        "mono_ns",
        "incarnation",
    ];
    let store = store(&shared)?;
    Ok(evidence(&shared)
        .table(&store, "rows", query, &columns, page)
        .await?)
}

async fn idempotency(State(shared): App, Path(key): Path<String>) -> Result<Json<Value>, ApiError> {
    let select = sql("SELECT key, request_hash, state, status, created_at
         FROM idempotency WHERE key = $1");
    let row = store(&shared)?.row(select.bind(key)).await?;
    let row = row.ok_or_else(|| ApiError::not_found("idempotency key"))?;
    let row = row_json(
        &row,
        &["key", "request_hash", "state", "status", "created_at"],
    )?;
    Ok(evidence(&shared).answer(row))
}

/// Requests in flight, unsent events, and per edge the state of its breaker (0 closed, 1 half-open,
/// 2 open) and its counters.
async fn scrape(State(shared): App) -> String {
    let mut text = format!("shop_requests_in_flight {}\n", shared.in_flight.now());
    if let Ok(store) = store(&shared)
        && let Ok(backlog) = outbox::backlog(&store).await
    {
        text += &format!("shop_outbox_unsent {}\n", backlog["unsent"]);
    }
    for edge in lock(&shared.edges).iter() {
        let state = match edge.breaker().state() {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        let callee = edge.callee();
        text += &format!("shop_breaker_state{{callee=\"{callee}\"}} {state}\n");
        let view = edge.view();
        for (name, value) in view["counters"].as_object().into_iter().flatten() {
            text += &format!("shop_edge_{name}_total{{callee=\"{callee}\"}} {value}\n");
        }
    }
    text
}

fn bus(shared: &Shared) -> Result<(Arc<dyn Bus>, Vec<&'static str>), ApiError> {
    let bus = lock(&shared.bus)
        .clone()
        .ok_or_else(|| ApiError::not_found("bus in this service"));
    Ok((bus?, lock(&shared.queues).clone()))
}

async fn dead_letters(State(shared): App, page: Page) -> Result<Json<Value>, ApiError> {
    let (bus, queues) = bus(&shared)?;
    let limit = u32::try_from(page.limit).unwrap_or(u32::MAX);
    let mut rows = Vec::new();
    for queue in queues {
        let letters = bus.dead_letters(queue, page.after, limit).await;
        let letters = letters.map_err(|error| ApiError::unavailable("bus", error.to_string()));
        rows.extend(
            letters?
                .into_iter()
                .map(|letter| (letter.seq, json!(letter))),
        );
    }
    rows.sort_by_key(|(seq, _)| *seq);
    rows.truncate(usize::try_from(page.limit).unwrap_or(usize::MAX));
    Ok(evidence(&shared).page("rows", rows))
}

async fn replay(State(shared): App) -> Result<Json<Value>, ApiError> {
    let (bus, queues) = bus(&shared)?;
    let mut replayed = 0;
    for queue in queues {
        let count = bus.replay(queue).await;
        replayed += count.map_err(|error| ApiError::unavailable("bus", error.to_string()))?;
    }
    Ok(evidence(&shared).answer(json!({ "replayed": replayed })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_while_breakers_are_read_is_left_for_the_next_page() {
        let rows = |cursors: &[i64]| cursors.iter().map(|n| (*n, json!(n))).collect();
        let page = |rows, until, after| -> Vec<i64> {
            let rows = one_list(rows, until, Page { after, limit: 9 });
            rows.into_iter().map(|(cursor, _)| cursor).collect()
        };
        // The first breaker was read before it changed at 31, the second after it changed at 32.
        let first = page(rows(&[5, 12, 32]), 30, 5);
        assert_eq!(first, [12]);
        assert_eq!(page(rows(&[5, 31, 12, 32]), 60, 12), [31, 32]);
    }
}
