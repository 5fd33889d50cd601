//! Around every handler: ids, deadline, panics, body limit, one log line per failed request.

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use crate::kit::context::{CORRELATION_ID, Context, REQUEST_ID};
use crate::kit::error::ApiError;

/// The trace id, for people who read an answer and want its logs.
const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
/// The longest refusal that is repeated to the client.
const REFUSAL_BYTES_MAX: usize = 4 << 10;
/// The largest request body.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Puts the layers around `router`, the outermost last.
pub(crate) fn wrap(router: Router) -> Router {
    router
        .fallback(|| async { ApiError::not_found("route") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(on_panic))
        .layer(from_fn(carry_context))
}

/// Reads or makes the ids, refuses work whose caller has stopped waiting, gives up when it does so
/// later, and sends the ids back.
async fn carry_context(mut request: Request, next: Next) -> Response {
    let context = Context::from_headers(request.headers());
    let span = context.span("request");
    request.extensions_mut().insert(context.clone());
    let mut response = async {
        match context.left() {
            Some(left) if left.is_zero() => expired(),
            _ => next.run(request).await,
        }
    }
    .instrument(span)
    .await;
    if is_plain_refusal(&response) {
        response = in_our_shape(response).await;
    }
    let ids = [
        (CORRELATION_ID, context.correlation_id.as_str()),
        (REQUEST_ID, context.request_id.as_str()),
        (TRACE_ID, context.trace_id()),
    ];
    for (name, id) in ids {
        if let Ok(value) = HeaderValue::try_from(id) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn expired() -> Response {
    let message = "the caller's deadline has passed";
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "deadline-passed", message).into_response()
}

/// Whether axum refused the request by itself, in words of its own.
fn is_plain_refusal(response: &Response) -> bool {
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes);
    response.status().is_client_error() && kind.is_some_and(|kind| kind.starts_with(b"text/plain"))
}

/// The same refusal as every other one: an [`ApiError`].
async fn in_our_shape(response: Response) -> Response {
    let status = response.status();
    let text = to_bytes(response.into_body(), REFUSAL_BYTES_MAX)
        .await
        .unwrap_or_default();
    let message = String::from_utf8_lossy(&text).into_owned();
    ApiError::new(status, "bad-request", message).into_response()
}

fn on_panic(cause: Box<dyn std::any::Any + Send>) -> Response {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    tracing::error!(panic = text, "handler panicked");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", "internal error").into_response()
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::body::Body;
    use axum::routing::{get, post};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    async fn call(request: Request) -> (StatusCode, http::HeaderMap, Value) {
        let router = Router::new()
            .route(
                "/echo",
                post(|Json(body): Json<Vec<u8>>| async move { Json(body) }),
            )
            .route("/panic", get(|| async { panic!("on purpose") as () }));
        let response = wrap(router).oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (
            status,
            headers,
            serde_json::from_slice(&body).unwrap_or_default(),
        )
    }

    fn request(method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(CONTENT_TYPE, "application/json")
    }

    #[tokio::test]
    async fn a_body_that_is_not_understood_is_refused_in_our_shape() {
        let bad = request("POST", "/echo").body(Body::from("{}")).unwrap();
        let (status, _, body) = call(bad).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(body["error"]["code"], "bad-request");
    }

    #[tokio::test]
    async fn work_whose_caller_has_stopped_waiting_is_refused() {
        let late = request("POST", "/echo").header("x-deadline-ms", "0");
        let (status, _, body) = call(late.body(Body::from("[1]")).unwrap()).await;
        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(body["error"]["code"], "deadline-passed");
    }

    #[tokio::test]
    async fn a_panic_is_a_500_without_internals() {
        let (status, _, body) = call(request("GET", "/panic").body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!body.to_string().contains("purpose"), "{body}");
    }

    #[tokio::test]
    async fn ids_come_back_and_missing_ones_are_made() {
        let known = request("POST", "/echo").header("x-correlation-id", "c-7");
        let (_, headers, _) = call(known.body(Body::from("[1]")).unwrap()).await;
        assert_eq!(headers["x-correlation-id"], "c-7");
        assert_eq!(headers["x-trace-id"].len(), 32);
        assert!(!headers["x-request-id"].is_empty());
    }
}
