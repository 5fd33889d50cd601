//! What came in: a callee's own word on its calls, for whoever wants to hold it against what crossed
//! the links to it.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;

use crate::kit::clock::mono_ns;
use crate::kit::context::Context;
use crate::kit::edge::IDEMPOTENCY_KEY;
use crate::kit::ring::Ring;

/// One request that came in.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ArrivalRow {
    /// Method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// The idempotency key, if the request has one.
    pub key: Option<String>,
    /// The trace it belongs to.
    pub trace: String,
    /// When its head was read, ns of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// The status of the answer.
    pub status: Option<u16>,
    /// `answered`, or `closed-by-caller`.
    pub end: &'static str,
}

/// The requests that came in.
pub(crate) type Arrivals = Ring<ArrivalRow>;

/// Notes each request: a layer, `from_fn_with_state(arrivals, note)`.
pub(crate) async fn note(
    State(arrivals): State<Arrivals>,
    request: Request,
    next: Next,
) -> Response {
    let key = request.headers().get(&IDEMPOTENCY_KEY);
    let context = request.extensions().get::<Context>();
    let mut underway = arrivals.begin(ArrivalRow {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        key: key.and_then(|it| it.to_str().ok()).map(str::to_owned),
        trace: context.map_or_else(String::new, |it| it.trace_id().to_owned()),
        at: mono_ns(),
        status: None,
        end: "closed-by-caller",
    });
    let response = next.run(request).await;
    underway.row.status = Some(response.status().as_u16());
    underway.row.end = "answered";
    response
}
