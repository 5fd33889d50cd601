//! The HTTP API: Toxiproxy's routes, shapes, texts and headers, and our extensions beside them.
//!
//! `route.rs` says what a method and path mean, `decode.rs` reads bodies as Go does, `calls.rs` makes each
//! call, this file is what surrounds every call.

mod calls;
mod decode;
mod http;
mod leases;
mod metrics;
mod process;
mod route;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use tokio::net::TcpListener;
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

    /// Answers on this listener until it is dropped.
    pub(crate) async fn serve(self, listener: TcpListener) -> Infallible {
        http::serve(self, listener).await
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
    async fn answer(&self, route: Route, headers: &HeaderMap, body: Body) -> Response {
        if from_browser(headers) {
            let refused = plain(StatusCode::FORBIDDEN, Some("User agent not allowed\n"));
            return unread(body, refused).await;
        }
        if !self.admits(headers) {
            return unread(body, calls::refused(&Refusal::Unauthorized)).await;
        }
        let lease = text_of(headers, &LEASE);
        let call = async { calls::make(self, route, read(body).await, lease).await };
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

/// The body of a call, or why there is none.
type Sent = Result<Bytes, Refusal>;

async fn read(body: Body) -> Sent {
    match timeout(BODY_TIMEOUT, to_bytes(body, BODY_MAX)).await {
        Ok(read) => read.map_err(|error| Refusal::Body(error.to_string())),
        Err(_) => Err(Refusal::Body("i/o timeout".to_owned())),
    }
}

/// An answer to a call whose body nobody wants. It is read and dropped all the same: a connection
/// with an unread body must be closed, and a caller that has sent its next call by then would get no
/// answer to that.
async fn unread(body: Body, answer: Response) -> Response {
    let mut pieces = body.into_data_stream();
    let drop_all = async {
        let mut length = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            length += piece.len();
            if length > BODY_MAX {
                break;
            }
        }
    };
    // Whoever sends on and on is cut off by the answer.
    let _ = timeout(BODY_TIMEOUT, drop_all).await;
    answer
}

async fn answer(api: Api, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let route = match find(&request.method, &request.uri) {
        Found::Route(route) => route,
        Found::Elsewhere(place) => return unread(body, moved(&place)).await,
        Found::NoMethod => {
            return unread(body, plain(StatusCode::METHOD_NOT_ALLOWED, None)).await;
        }
        Found::NoPath => return unread(body, not_found()).await,
        Found::NoSense => return unread(body, malformed()).await,
    };
    if route == Route::Metrics && !api.metrics.any() {
        return unread(body, not_found()).await;
    }
    let id = api.request_id();
    let mut response = api.answer(route, &request.headers, body).await;
    let (method, status) = (&request.method, response.status().as_u16());
    tracing::debug!(%method, url = %request.uri, status, "Answered a call");
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
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_calls_are_unique() {
        let api = Api::new(Arc::new(Engine::new(0)), Offered::default(), None);
        let (one, two) = (api.request_id(), api.request_id());
        assert_ne!(one, two);
        assert_eq!((one.len(), two.len()), (20, 20));
    }

    #[tokio::test]
    async fn call_that_takes_too_long_gets_the_page_of_the_original() {
        let response = timed_out();
        assert_eq!(response.status(), 503);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "text/html; charset=utf-8"
        );
        let page = to_bytes(response.into_body(), 1024).await.unwrap();
        assert!(page.starts_with(b"<html><head><title>Timeout</title>"));
    }
}
