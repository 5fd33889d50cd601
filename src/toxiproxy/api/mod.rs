//! The HTTP API: Toxiproxy's routes, shapes, texts and headers, and our extensions beside them.
//!
//! `route.rs` says what a method and path mean, `decode.rs` reads bodies as Go does, `calls.rs` makes each
//! call, this file is what surrounds every call.

mod calls;
mod decode;
mod route;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio::time::timeout;

pub(crate) use decode::proxies as decode_proxies;

use self::route::{Found, find};
use super::clock;
use super::engine::{Engine, Refusal};

/// No call takes longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);

/// Largest body that is read.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// Given to every call that has a route.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-toxiproxy-request-id");

/// What every call has at hand.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) engine: Arc<Engine>,
    calls: Arc<AtomicU64>,
}

impl Api {
    /// The API of an engine.
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            calls: Arc::default(),
        }
    }

    /// As a service.
    pub(crate) fn router(self) -> Router {
        Router::new().fallback(answer).with_state(self)
    }

    /// Twenty characters that no other call of this server has.
    fn request_id(&self) -> HeaderValue {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let count = self.calls.fetch_add(1, Ordering::Relaxed);
        let bits = (u128::from(clock::now()) << 36) | u128::from(count & 0xf_ffff_ffff);
        let digit = |place: usize| DIGITS[((bits >> (5 * place)) & 31) as usize];
        let id: Vec<u8> = (0..20).rev().map(digit).collect();
        HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("0"))
    }
}

async fn answer(State(api): State<Api>, request: Request) -> Response {
    let route = match find(request.method(), request.uri()) {
        Found::Route(route) => route,
        Found::Elsewhere(place) => return moved(&place),
        Found::NoMethod => return plain(StatusCode::METHOD_NOT_ALLOWED, None),
        Found::NoPath => return plain(StatusCode::NOT_FOUND, Some("404 page not found\n")),
    };
    let id = api.request_id();
    let mut response = if from_browser(request.headers()) {
        plain(StatusCode::FORBIDDEN, Some("User agent not allowed\n"))
    } else {
        let body = request.into_body();
        let call = async {
            let body = to_bytes(body, BODY_MAX).await;
            let body = body.map_err(|error| Refusal::Body(error.to_string()));
            calls::make(&api.engine, route, body).await
        };
        timeout(CALL_TIMEOUT, call)
            .await
            .unwrap_or_else(|_| timed_out())
    };
    response.headers_mut().insert(&REQUEST_ID, id);
    response
}

/// Toxiproxy keeps web pages from driving it by their agent, and the text is its own.
fn from_browser(headers: &HeaderMap) -> bool {
    headers
        .get(header::USER_AGENT)
        .is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
}

/// A text as Go's `http.Error` sends it.
fn plain(status: StatusCode, text: Option<&'static str>) -> Response {
    let mut response = Response::new(text.map_or_else(Body::empty, Body::from));
    *response.status_mut() = status;
    if text.is_some() {
        mark_as_text(&mut response);
    }
    response
}

fn mark_as_text(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
}

fn moved(place: &str) -> Response {
    let mut response = plain(StatusCode::MOVED_PERMANENTLY, None);
    if let Ok(place) = HeaderValue::from_str(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

fn timed_out() -> Response {
    const PAGE: &str =
        "<html><head><title>Timeout</title></head><body><h1>Timeout</h1></body></html>";
    let mut response = Response::new(Body::from(PAGE));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}
