//! The payment provider: an outside company with its own durable ledger, and so an independent witness
//! of what was really charged.
//!
//! A charge with an `Idempotency-Key` happens once per key, however often it is asked for. A charge
//! without one is a new charge each time, as at a real provider. A refund that arrives before its charge
//! voids the charge's key, so that the late charge is refused.

use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::kit::clock::{mono_ns, wall_ms};
use crate::kit::edge::IDEMPOTENCY_KEY;
use crate::kit::error::ApiError;
use crate::kit::evidence::{Evidence, Page};
use crate::kit::http::arrivals::{Arrivals, note};
use crate::kit::idempotency::{self, Claim};
use crate::kit::service::{RunError, Service};
use crate::kit::store::{RowExt, Store, StoreError, Tx, sql};

/// The test card that is always declined.
const DECLINED_CARD: &str = "4000000000000002";

/// The provider's tables. `entries` is the ledger: rows are only ever added.
const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS entries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, ref TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
        account TEXT NOT NULL, key TEXT, charge_ref TEXT UNIQUE, amount_cents BIGINT NOT NULL,
        at BIGINT NOT NULL, mono_ns BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS entries_key ON entries (key)",
    "CREATE TABLE IF NOT EXISTS voided (key TEXT PRIMARY KEY, at BIGINT NOT NULL)",
];

#[derive(Clone)]
struct App {
    store: Store,
    evidence: Evidence,
    arrivals: Arrivals,
}

/// Serves the provider until it is stopped.
pub(crate) async fn run(service: Service) -> Result<(), RunError> {
    let store = service.store(&TABLES).await?;
    let app = App {
        store,
        evidence: service.evidence(),
        arrivals: Arrivals::default(),
    };
    let public = Router::new()
        .route("/charges", post(charge))
        .route("/refunds", post(refund))
        .route_layer(from_fn_with_state(app.arrivals.clone(), note))
        .route("/ledger", get(ledger))
        .with_state(app.clone());
    let internal = Router::new()
        .route("/internal/arrivals", get(arrivals))
        .with_state(app);
    service.serve(public, internal).await
}

/// A wish to be paid.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Charge {
    /// The merchant's name for what is paid for.
    order_id: String,
    amount_cents: i64,
    #[serde(default)]
    card: Option<String>,
}

/// A wish to give back the charge that was made with `charge_key`, or that has the reference `ref`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Refund {
    order_id: String,
    charge_key: String,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
}

fn key_of(headers: &HeaderMap) -> Option<String> {
    headers
        .get(&IDEMPOTENCY_KEY)?
        .to_str()
        .ok()
        .map(str::to_owned)
}

async fn charge(
    State(app): State<App>,
    headers: HeaderMap,
    Json(wish): Json<Charge>,
) -> Result<Response, ApiError> {
    if wish.amount_cents <= 0 {
        return Err(ApiError::bad_request("`amount_cents` must be above 0"));
    }
    let key = key_of(&headers);
    let mut tx = app.store.begin().await?;
    if let Some(key) = &key {
        if let Some(answer) = known(&mut tx, key, &wish).await? {
            return Ok(answer);
        }
        let voided = sql("SELECT at FROM voided WHERE key = $1").bind(key);
        if tx.row(voided).await?.is_some() {
            return Err(ApiError::conflict(
                "voided",
                "this charge was taken back before it came",
            ));
        }
    }
    let (status, body) = if wish.card.as_deref() == Some(DECLINED_CARD) {
        let error = json!({ "code": "declined", "message": "the card was declined" });
        (StatusCode::PAYMENT_REQUIRED, json!({ "error": error }))
    } else {
        let entry = Entry::new("charge", &wish.order_id, wish.amount_cents);
        entry.insert(&mut tx, key.as_deref(), None).await?;
        (
            StatusCode::CREATED,
            json!({ "ref": entry.reference, "amount_cents": entry.cents }),
        )
    };
    answer(tx, key.as_deref(), status, body).await
}

async fn refund(
    State(app): State<App>,
    headers: HeaderMap,
    Json(wish): Json<Refund>,
) -> Result<Response, ApiError> {
    let key = key_of(&headers);
    let mut tx = app.store.begin().await?;
    if let Some(key) = &key
        && let Some(answer) = known(&mut tx, key, &wish).await?
    {
        return Ok(answer);
    }
    let refunded_cents = match charge_of(&mut tx, &wish).await? {
        Some((reference, cents)) => {
            give_back(&mut tx, &wish, &reference, cents, key.as_deref()).await?;
            cents
        }
        None => {
            let void = sql("INSERT INTO voided (key, at) VALUES ($1, $2) ON CONFLICT DO NOTHING");
            tx.execute(void.bind(&wish.charge_key).bind(wall_ms()))
                .await?;
            0
        }
    };
    answer(
        tx,
        key.as_deref(),
        StatusCode::OK,
        json!({ "refunded_cents": refunded_cents }),
    )
    .await
}

/// The stored answer to a request that was answered before, or 422 when the key is another request's.
async fn known(
    tx: &mut Tx,
    key: &str,
    wish: &impl Serialize,
) -> Result<Option<Response>, ApiError> {
    match idempotency::claim(tx, key, &idempotency::fingerprint(wish)).await? {
        Claim::New => Ok(None),
        Claim::Replay(answer) => Ok(Some(answer.into_response())),
        Claim::Mismatch => Err(idempotency::mismatch()),
    }
}

/// Stores the answer beside its effect, commits both, and only then answers.
async fn answer(
    mut tx: Tx,
    key: Option<&str>,
    status: StatusCode,
    body: Value,
) -> Result<Response, ApiError> {
    if let Some(key) = key {
        idempotency::finish(&mut tx, key, status, &body).await?;
    }
    tx.commit().await?;
    Ok((status, Json(body)).into_response())
}

/// The charge that a refund means: its reference and amount.
async fn charge_of(tx: &mut Tx, wish: &Refund) -> Result<Option<(String, i64)>, StoreError> {
    let select = sql("SELECT ref, amount_cents FROM entries
         WHERE kind = 'charge' AND account = $1 AND (ref = $2 OR key = $3) ORDER BY seq LIMIT 1")
    .bind(&wish.order_id)
    .bind(wish.reference.clone().unwrap_or_default())
    .bind(&wish.charge_key);
    let Some(row) = tx.row(select).await? else {
        return Ok(None);
    };
    Ok(Some((row.try_get("ref")?, row.try_get("amount_cents")?)))
}

/// Adds the refund of a charge, unless it was given back already.
async fn give_back(
    tx: &mut Tx,
    wish: &Refund,
    charge_ref: &str,
    cents: i64,
    key: Option<&str>,
) -> Result<(), StoreError> {
    let select = sql("SELECT ref FROM entries WHERE charge_ref = $1").bind(charge_ref);
    if tx.row(select).await?.is_some() {
        return Ok(());
    }
    Entry::new("refund", &wish.order_id, cents)
        .insert(tx, key, Some(charge_ref))
        .await
}

/// A line of the ledger before it has its place.
struct Entry {
    reference: String,
    kind: &'static str,
    account: String,
    cents: i64,
}

impl Entry {
    fn new(kind: &'static str, account: &str, cents: i64) -> Self {
        let reference = format!("{kind}-{}", Uuid::now_v7());
        Self {
            reference,
            kind,
            account: account.to_owned(),
            cents,
        }
    }

    async fn insert(
        &self,
        tx: &mut Tx,
        key: Option<&str>,
        charge_ref: Option<&str>,
    ) -> Result<(), StoreError> {
        let insert = sql("INSERT INTO entries
             (ref, kind, account, key, charge_ref, amount_cents, at, mono_ns)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
        .bind(&self.reference)
        .bind(self.kind)
        .bind(&self.account)
        .bind(key.map(str::to_owned))
        .bind(charge_ref.map(str::to_owned))
        .bind(self.cents)
        .bind(wall_ms())
        .bind(i64::try_from(mono_ns()).unwrap_or(i64::MAX));
        tx.execute(insert).await.map(drop)
    }
}

/// The ledger, oldest first: `account` (the order), `kind` charge or refund, `amount_cents` above 0,
/// `net_cents` below 0 for a refund.
async fn ledger(State(app): State<App>, page: Page) -> Result<Json<Value>, ApiError> {
    let query = "SELECT seq, ref, kind, account, key, amount_cents,
             CASE kind WHEN 'refund' THEN -amount_cents ELSE amount_cents END AS net_cents,
             'cent' AS unit, at, mono_ns
         FROM entries WHERE seq > $1 ORDER BY seq LIMIT $2";
    let columns = [
        "seq",
        "ref",
        "kind",
        "account",
        "key",
        "amount_cents",
        "net_cents",
        "unit",
        "at",
        "mono_ns",
    ];
    Ok(app
        .evidence
        .table(&app.store, "entries", query, &columns, page)
        .await?)
}

/// The wishes that came in, each time they came, oldest first.
async fn arrivals(State(app): State<App>, page: Page) -> Json<Value> {
    app.evidence.page("arrivals", app.arrivals.page(page))
}
