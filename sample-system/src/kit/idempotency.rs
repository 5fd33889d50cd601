//! The table that makes a repeated request the same request.
//!
//! Claim and answer are written in the transaction of the effect itself, so there is never an effect
//! without its answer. A second request with the same key gets the first one's answer, byte for byte;
//! with another body it is refused.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::Value;

use super::clock::wall_ms;
use super::error::ApiError;
use super::store::{RowExt, StoreError, Tx, sql};

/// What is known about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody used it: do the work, then call [`finish`] in the same transaction.
    New,
    /// The work is done: send this answer again.
    Replay(Answer),
    /// The key was used for another request: 422.
    Mismatch,
}

/// A stored answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status it was sent with.
    pub status: u16,
    /// The JSON body.
    pub body: String,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let marks = [
            (CONTENT_TYPE.as_str(), "application/json"),
            ("idempotent-replayed", "true"),
        ];
        (status, marks, self.body).into_response()
    }
}

/// Claims `key` for a request with the fingerprint `request` (see [`fingerprint`]).
///
/// # Errors
/// The database fails.
pub async fn claim(tx: &mut Tx, key: &str, request: &str) -> Result<Claim, StoreError> {
    let insert = sql(
        "INSERT INTO idempotency (key, request_hash, state, created_at)
         VALUES ($1, $2, 'claimed', $3) ON CONFLICT DO NOTHING",
    )
    .bind(key)
    .bind(request)
    .bind(wall_ms());
    if tx.execute(insert).await? == 1 {
        return Ok(Claim::New);
    }
    let select = sql("SELECT request_hash, status, response FROM idempotency WHERE key = $1");
    let Some(row) = tx.row(select.bind(key)).await? else {
        return Err(StoreError::Corrupt(format!(
            "idempotency key `{key}` vanished"
        )));
    };
    if row.try_get::<String, _>("request_hash")? != request {
        return Ok(Claim::Mismatch);
    }
    match row.try_get::<Option<i64>, _>("status")? {
        // Claimed without an answer: whoever claimed it committed half its work. Do it again.
        None => Ok(Claim::New),
        Some(status) => Ok(Claim::Replay(Answer {
            status: u16::try_from(status).unwrap_or(200),
            body: row
                .try_get::<Option<String>, _>("response")?
                .unwrap_or_default(),
        })),
    }
}

/// Stores the answer of a claimed key.
///
/// # Errors
/// The database fails.
pub async fn finish(
    tx: &mut Tx,
    key: &str,
    status: StatusCode,
    body: &Value,
) -> Result<(), StoreError> {
    let update = sql(
        "UPDATE idempotency SET state = 'done', status = $1, response = $2
         WHERE key = $3",
    )
    .bind(i64::from(status.as_u16()))
    .bind(body.to_string())
    .bind(key);
    tx.execute(update).await.map(drop)
}

/// A fingerprint of a request: equal requests have equal ones. FNV-1a, 64 bits, over the JSON; it tells
/// mistakes apart, it does not withstand an attacker.
pub fn fingerprint(request: &impl Serialize) -> String {
    let text = serde_json::to_string(request).unwrap_or_default();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// 422: the key belongs to another request.
pub fn mismatch() -> ApiError {
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency-key-reused",
        "this Idempotency-Key was used with another request",
    )
}
