//! What a service answers when it cannot do what was asked: one JSON shape, and headers that say whose
//! fault it was.
//!
//! `x-upstream` names the service that failed when it is not the one that answers. A breaker in front of
//! us counts a 5xx only without that header, so an outage two hops away opens the breaker next to it
//! and no other.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::json;

use super::killpoint::Killed;
use super::store::{COMMIT, StoreError};

/// Names the service that failed, when it is another one than the one answering.
pub const UPSTREAM: HeaderName = HeaderName::from_static("x-upstream");
/// Says which fallback an answer comes from, such as `breaker-open`.
pub const FALLBACK: HeaderName = HeaderName::from_static("x-fallback");

/// An answer that is not the one the client hoped for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// A stable, machine-readable name such as `out-of-stock`.
    pub code: &'static str,
    /// One sentence for people; never internals or secrets.
    pub message: String,
    /// The service that failed, when it is not this one.
    pub upstream: Option<String>,
    /// Seconds after which a retry is welcome.
    pub retry_after_s: Option<u32>,
}

impl ApiError {
    /// An error of this service's own.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            code,
            message,
            upstream: None,
            retry_after_s: None,
        }
    }

    /// 400: the request is not understood or breaks a rule.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    /// 404: no such `what`.
    pub fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            format!("no such {what}"),
        )
    }

    /// 409 with a code that says what is in conflict.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 503: this service refuses for the moment; the caller may come back.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// Says that `service`, not this one, failed.
    #[must_use]
    pub fn by(mut self, service: impl Into<String>) -> Self {
        self.upstream = Some(service.into());
        self
    }

    /// Invites the caller to come back after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(
                status = self.status.as_u16(),
                code = self.code,
                upstream = self.upstream.as_deref(),
                reason = %self.message,
                "request failed"
            );
        }
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        let mut response = (self.status, Json(body)).into_response();
        let upstream = self
            .upstream
            .and_then(|name| HeaderValue::try_from(name).ok());
        if let Some(name) = upstream {
            response.headers_mut().insert(UPSTREAM, name);
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<StoreError> for ApiError {
    /// The caller learns that we cannot reach our data, and nothing about it. 503 promises that
    /// nothing was done, and that is only known where no commit was under way.
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %error, "database operation failed");
        let unavailable =
            Self::unavailable("store", "the service cannot reach its data at the moment");
        match error {
            StoreError::Busy | StoreError::Unique => unavailable,
            StoreError::TimedOut(what, _) if what != COMMIT => unavailable,
            _ => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                ..unavailable
            },
        }
    }
}

impl From<Killed> for ApiError {
    fn from(killed: Killed) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "killed",
            killed.to_string(),
        )
    }
}
