//! What `orders` tells operators, and whoever judges it: sagas with their steps, events, the
//! projection.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::machine::{Mode, Phase};
use super::{Shop, redrive, view};
use crate::kit::error::ApiError;
use crate::kit::evidence::{Evidence, Page};
use crate::kit::store::{Row, RowExt, StoreError, sql};

type App = State<(Arc<Shop>, Evidence)>;

pub(super) fn routes(shop: &Arc<Shop>, evidence: Evidence) -> Router {
    Router::new()
        .route("/internal/sagas", get(sagas))
        .route("/internal/sagas/open", get(open))
        .route("/internal/sagas/{id}/log", get(log))
        .route("/internal/sagas/{id}/retry", post(retry))
        .route("/internal/events/{aggregate}", get(events))
        .route("/internal/projection", get(projection))
        .route("/internal/projection/rebuild", post(rebuild))
        .with_state((Arc::clone(shop), evidence))
}

#[derive(Deserialize)]
struct Filter {
    state: Option<String>,
}

/// All sagas, or with `?state=open` those that are not final, oldest first, each with its steps.
async fn sagas(
    State((shop, evidence)): App,
    Query(filter): Query<Filter>,
    page: Page,
) -> Result<Json<Value>, ApiError> {
    let select = match filter.state.as_deref() {
        None | Some("all") => {
            "SELECT seq, id, state, stuck, epoch, created_at, ended_at FROM saga
             WHERE seq > $1 ORDER BY seq LIMIT $2"
        }
        Some("open") => {
            "SELECT seq, id, state, stuck, epoch, created_at, ended_at FROM saga
             WHERE seq > $1 AND state IN ('RUNNING', 'COMPENSATING') ORDER BY seq LIMIT $2"
        }
        Some(_) => return Err(ApiError::bad_request("`state` is `open` or `all`")),
    };
    let found = shop
        .view
        .rows(sql(select).bind(page.after).bind(page.limit))
        .await?;
    let mut steps = steps_between(&shop, page.after, &found).await?;
    let mut rows = Vec::with_capacity(found.len());
    for row in &found {
        let seq: i64 = row.try_get("seq").map_err(StoreError::from)?;
        rows.push((seq, saga(row, &mut steps)?));
    }
    Ok(evidence.page("sagas", rows))
}

/// How many sagas are not final: what is asked for while the system is at work, and so costs it next to
/// nothing.
async fn open(State((shop, evidence)): App) -> Result<Json<Value>, ApiError> {
    let count = sql("SELECT count(*) AS open FROM saga WHERE state IN ('RUNNING', 'COMPENSATING')");
    let row = shop.view.row(count).await?;
    let open = row.map_or(Ok(0), |row| row.try_get::<i64, _>("open"));
    Ok(evidence.answer(json!({ "open": open.map_err(StoreError::from)? })))
}

fn saga(row: &Row, steps: &mut HashMap<String, Vec<Value>>) -> Result<Value, StoreError> {
    let id: String = row.try_get("id")?;
    let state: String = row.try_get("state")?;
    let stuck: i64 = row.try_get("stuck")?;
    let state = Mode::named(&state).ok_or(StoreError::Corrupt(state))?;
    let word = if stuck != 0 && state.is_open() {
        "stuck"
    } else {
        state.word()
    };
    Ok(json!({
        "id": id,
        "key": id,
        "state": word,
        "epoch": row.try_get::<i64, _>("epoch")?,
        "started_at": row.try_get::<i64, _>("created_at")?,
        "ended_at": row.try_get::<Option<i64>, _>("ended_at")?,
        "steps": steps.remove(&id).unwrap_or_default(),
    }))
}

/// The steps of the sagas on one page, by saga.
async fn steps_between(
    shop: &Shop,
    after: i64,
    found: &[Row],
) -> Result<HashMap<String, Vec<Value>>, StoreError> {
    let Some(last) = found.last() else {
        return Ok(HashMap::new());
    };
    let select = sql(
        "SELECT l.saga_id, l.step, l.phase, l.attempt, l.key, l.error, l.at, l.mono_ns,
                l.epoch, l.incarnation
         FROM saga s JOIN saga_log l ON l.saga_id = s.id
         WHERE s.seq > $1 AND s.seq <= $2 ORDER BY s.seq, l.seq",
    );
    let mut steps: HashMap<String, Vec<Value>> = HashMap::new();
    let select = select.bind(after).bind(last.try_get::<i64, _>("seq")?);
    for row in &shop.view.rows(select).await? {
        steps
            .entry(row.try_get("saga_id")?)
            .or_default()
            .push(step(row)?);
    }
    Ok(steps)
}

fn step(row: &Row) -> Result<Value, StoreError> {
    let phase: String = row.try_get("phase")?;
    let phase = Phase::named(&phase).ok_or(StoreError::Corrupt(phase))?;
    Ok(json!({
        "name": row.try_get::<String, _>("step")?,
        "phase": phase.word(),
        "at": row.try_get::<i64, _>("mono_ns")?,
        "at_wall_ms": row.try_get::<i64, _>("at")?,
        "attempt": row.try_get::<i64, _>("attempt")?,
        "epoch": row.try_get::<i64, _>("epoch")?,
        "incarnation": row.try_get::<String, _>("incarnation")?,
        "key": row.try_get::<String, _>("key")?,
        "error": row.try_get::<Option<String>, _>("error")?,
    }))
}

async fn log(
    State((shop, evidence)): App,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let select = sql("SELECT * FROM saga_log WHERE saga_id = $1 ORDER BY seq");
    let rows = shop.view.rows(select.bind(&id)).await?;
    if rows.is_empty() {
        return Err(ApiError::not_found("saga"));
    }
    let steps = rows.iter().map(step).collect::<Result<Vec<_>, _>>()?;
    Ok(evidence.answer(json!({ "id": id, "steps": steps })))
}

/// Makes a saga due now, whatever its pause.
async fn retry(
    State((shop, evidence)): App,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let update = sql("UPDATE saga SET next_at = 0
         WHERE id = $1 AND state IN ('RUNNING', 'COMPENSATING')");
    if shop.store.execute(update.bind(&id)).await? == 0 {
        return Err(ApiError::not_found("open saga"));
    }
    redrive::start(&shop, &id, None);
    Ok(evidence.answer(json!({ "id": id })))
}

async fn events(
    State((shop, evidence)): App,
    Path(aggregate): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let select = sql(
        "SELECT event_id, version, type, owes, data, at, mono_ns FROM events
         WHERE aggregate_id = $1 ORDER BY version",
    );
    let rows = shop.view.rows(select.bind(&aggregate)).await?;
    let events = rows.iter().map(event).collect::<Result<Vec<_>, _>>()?;
    Ok(evidence.answer(json!({ "aggregate_id": aggregate, "events": events })))
}

fn event(row: &Row) -> Result<Value, StoreError> {
    let data: Value = serde_json::from_str(&row.try_get::<String, _>("data")?)?;
    Ok(json!({
        "event_id": row.try_get::<String, _>("event_id")?,
        "version": row.try_get::<i64, _>("version")?,
        "type": row.try_get::<String, _>("type")?,
        "owes": row.try_get::<i64, _>("owes")?,
        "data": data,
        "at": row.try_get::<i64, _>("at")?,
        "mono_ns": row.try_get::<i64, _>("mono_ns")?,
    }))
}

async fn projection(State((shop, evidence)): App) -> Result<Json<Value>, ApiError> {
    let progress = view::lag(&shop.view).await?;
    Ok(evidence.answer(json!({
        "head": progress.head,
        "position": progress.position,
        "lag": progress.lag(),
        "rebuilds": progress.rebuilds,
    })))
}

async fn rebuild(State((shop, evidence)): App) -> Result<Json<Value>, ApiError> {
    view::rebuild(&shop.store).await?;
    shop.appended.notify_one();
    Ok(evidence.answer(json!({ "rebuilding": true })))
}
