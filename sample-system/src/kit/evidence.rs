//! What a service tells about itself on `/internal/…`: for operators and for whoever judges it.
//!
//! Every answer carries `service`, `incarnation`, `mono_ns` and `wall_ms`. Lists are paged by cursor:
//! `?after=CURSOR&limit=N` answers `{"rows": […], "next": CURSOR}`, where `next` is the cursor of the
//! last row and `null` when there are no rows, so a reader goes on until `null` and may come back later
//! with the last cursor it saw. Everything asks for the token in `X-Token`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::clock::{mono_ns, wall_ms};
use super::config::Config;
use super::error::ApiError;
use super::store::{Query as Sql, Row, RowExt, Store, StoreError};

/// Rows per page when the reader does not say.
const PAGE: i64 = 500;
/// Rows per page at most.
const PAGE_MAX: i64 = 5_000;

/// Which part of a list is asked for: rows after the cursor `after`, at most `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The cursor of the last row that the reader has; 0 = from the start.
    pub after: i64,
    /// How many rows to answer at most, 1 to 5,000.
    pub limit: i64,
}

#[derive(Deserialize)]
struct RawPage {
    after: Option<String>,
    limit: Option<i64>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let raw = Query::<RawPage>::from_request_parts(parts, state).await;
        let Query(raw) = raw.map_err(|error| ApiError::bad_request(error.body_text()))?;
        // A reader without a cursor yet may send it empty.
        let after = raw
            .after
            .filter(|text| !text.is_empty())
            .map_or(Ok(0), |text| text.parse());
        let after = after.map_err(|_| ApiError::bad_request("`after` is not a number"))?;
        Ok(Self {
            after,
            limit: raw.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX),
        })
    }
}

/// Makes the answers of one service's evidence endpoints.
#[derive(Clone, Debug)]
pub struct Evidence(Arc<Config>);

impl Evidence {
    /// For the service of this configuration.
    pub fn new(config: Arc<Config>) -> Self {
        Self(config)
    }

    /// An answer with the fields of `body` (an object) beside the common ones.
    pub fn answer(&self, body: Value) -> Json<Value> {
        let mut document = Map::new();
        document.insert("service".into(), self.0.service.into());
        document.insert("incarnation".into(), self.0.incarnation.clone().into());
        document.insert("mono_ns".into(), mono_ns().into());
        document.insert("wall_ms".into(), wall_ms().into());
        match body {
            Value::Object(fields) => document.extend(fields),
            other => drop(document.insert("value".into(), other)),
        }
        Json(Value::Object(document))
    }

    /// A page of a list called `name`; each row with its cursor.
    pub fn page(&self, name: &str, rows: Vec<(i64, Value)>) -> Json<Value> {
        let next = rows.last().map(|(cursor, _)| *cursor);
        let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
        self.answer(json!({ name: rows, "next": next }))
    }

    /// A page of a table: `query` selects the columns `columns`, the first of which is the cursor, with
    /// `$1` = after and `$2` = limit, and orders by the cursor.
    ///
    /// # Errors
    /// The database fails, or a column is neither text nor number.
    pub async fn table(
        &self,
        store: &Store,
        name: &str,
        query: &'static str,
        columns: &[&str],
        page: Page,
    ) -> Result<Json<Value>, StoreError> {
        let query: Sql<'_> = super::store::sql(query).bind(page.after).bind(page.limit);
        let mut rows = Vec::new();
        for row in store.rows(query).await? {
            let cursor = columns
                .first()
                .map_or(Ok(0), |column| row.try_get(*column))?;
            rows.push((cursor, row_json(&row, columns)?));
        }
        Ok(self.page(name, rows))
    }
}

/// A row as a JSON object of its text and number columns.
///
/// # Errors
/// A column is missing or of another type.
pub fn row_json(row: &Row, columns: &[&str]) -> Result<Value, StoreError> {
    let mut object = Map::new();
    for column in columns {
        let value = match row.try_get::<Option<i64>, _>(*column) {
            Ok(number) => json!(number),
            Err(_not_a_number) => json!(row.try_get::<Option<String>, _>(*column)?),
        };
        object.insert((*column).to_owned(), value);
    }
    Ok(Value::Object(object))
}

/// Refuses calls without the token. Compared in constant time; an empty token admits nobody.
pub(crate) async fn require_token(
    State(config): State<Arc<Config>>,
    request: Request,
    next: Next,
) -> Response {
    let given = request
        .headers()
        .get("x-token")
        .map_or(&b""[..], |value| value.as_bytes());
    let expected = config.admin_token.as_bytes();
    let differs = given
        .iter()
        .zip(expected)
        .fold(0, |acc, (a, b)| acc | (a ^ b))
        != 0;
    if expected.is_empty() || given.len() != expected.len() || differs {
        let message = "X-Token is missing or wrong";
        return ApiError::new(StatusCode::UNAUTHORIZED, "token", message).into_response();
    }
    next.run(request).await
}
