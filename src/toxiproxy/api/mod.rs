//! The HTTP API: Toxiproxy's routes, shapes, texts and headers, and our extensions beside them.
//!
//! `route.rs` says what a method and path mean, `decode.rs` reads bodies as Go does, `calls.rs` makes each
//! call, this file is what surrounds every call.

mod calls;
mod decode;
mod leases;
mod metrics;
mod process;
mod route;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio::time::timeout;

pub(crate) use decode::proxies as decode_proxies;
pub(crate) use metrics::Offered;

use self::leases::Leases;
use self::route::{Found, Route, find};
use super::clock;
use super::engine::{Engine, Refusal};

/// No call takes longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);

/// No body takes longer to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// Largest body that is read.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// Given to every call that has a route.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-toxiproxy-request-id");

/// Extension: under which lease toxics are set.
static LEASE: HeaderName = HeaderName::from_static("x-chaos-lease");

/// What every call has at hand.
#[derive(Clone)]
pub(crate) struct Api {
    engine: Arc<Engine>,
    leases: Arc<Leases>,
    metrics: Offered,
    token: Option<Arc<str>>,
    calls: Arc<AtomicU64>,
}

impl Api {
    /// The API of an engine. With a token, only calls that carry it are answered.
    pub(crate) fn new(engine: Arc<Engine>, metrics: Offered, token: Option<Arc<str>>) -> Self {
        Self {
            engine,
            leases: Arc::new(Leases::new(leases::SHORTEST)),
            metrics,
            token,
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

    /// What the caller asks for, if it may.
    async fn answer(&self, route: Route, request: Request) -> Response {
        if from_browser(request.headers()) {
            return plain(StatusCode::FORBIDDEN, Some("User agent not allowed\n"));
        }
        if !self.admits(request.headers()) {
            return calls::refused(&Refusal::Unauthorized);
        }
        let lease = text_of(request.headers(), &LEASE).map(str::to_owned);
        let call = async {
            let body = read(request.into_body()).await;
            calls::make(self, route, body, lease.as_deref()).await
        };
        timeout(CALL_TIMEOUT, call)
            .await
            .unwrap_or_else(|_| timed_out())
    }

    /// Whether the caller has the token, if one is asked for. Takes as long for a wrong one as for the right.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let given = text_of(headers, &header::AUTHORIZATION)
            .and_then(|text| text.strip_prefix("Bearer "))
            .unwrap_or_default();
        let pairs = token.bytes().zip(given.bytes());
        let differs = pairs.fold(0, |differs, (wanted, given)| differs | (wanted ^ given));
        differs == 0 && token.len() == given.len()
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    match timeout(BODY_TIMEOUT, to_bytes(body, BODY_MAX)).await {
        Ok(read) => read.map_err(|error| Refusal::Body(error.to_string())),
        Err(_) => Err(Refusal::Body("i/o timeout".to_owned())),
    }
}

async fn answer(State(api): State<Api>, request: Request) -> Response {
    let route = match find(request.method(), request.uri()) {
        Found::Route(route) => route,
        Found::Elsewhere(place) => return moved(&place),
        Found::NoMethod => return plain(StatusCode::METHOD_NOT_ALLOWED, None),
        Found::NoPath => return not_found(),
        Found::NoSense => return malformed(),
    };
    if route == Route::Metrics && !api.metrics.any() {
        return not_found();
    }
    let id = api.request_id();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut response = api.answer(route, request).await;
    let status = response.status().as_u16();
    tracing::debug!(%method, url = %uri, status, "Answered a call");
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

fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, Some("404 page not found\n"))
}

/// What Go's server answers before any handler sees the request.
fn malformed() -> Response {
    let mut response = plain(StatusCode::BAD_REQUEST, Some("400 Bad Request"));
    response
        .headers_mut()
        .remove(header::X_CONTENT_TYPE_OPTIONS);
    response
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
