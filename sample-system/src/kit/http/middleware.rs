//! Around every handler: ids, deadline, panics, body limit, one log line per failed request.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use crate::kit::context::{CORRELATION_ID, Context, REQUEST_ID};
use crate::kit::error::ApiError;

/// The trace id, for people who read an answer and want its logs.
const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
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

fn on_panic(cause: Box<dyn std::any::Any + Send>) -> Response {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    tracing::error!(panic = text, "handler panicked");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", "internal error").into_response()
}
