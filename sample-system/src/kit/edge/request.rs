//! What goes out over an edge, what comes back, and what can go wrong.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kit::error::{ApiError, FALLBACK, UPSTREAM};

/// A request to a callee, as often as it may be tried.
#[derive(Clone, Debug)]
pub struct EdgeRequest {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Value>,
    pub(super) key: Option<String>,
    pub(super) careless: bool,
}

impl EdgeRequest {
    fn new(method: Method, path: impl Into<String>) -> Self {
        let (path, headers) = (path.into(), HeaderMap::new());
        Self {
            method,
            path,
            headers,
            body: None,
            key: None,
            careless: false,
        }
    }

    /// `GET path`; may be retried.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// `POST path`; tried once unless it has a key.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// `PUT path`; tried once unless it has a key.
    pub fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    /// `DELETE path`; tried once unless it has a key.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// Sends a JSON body. A value that cannot be JSON is sent as `null`, which no callee accepts.
    #[must_use]
    pub fn json(mut self, body: impl Serialize) -> Self {
        self.body = Some(serde_json::to_value(body).unwrap_or(Value::Null));
        self
    }

    /// Sends `Idempotency-Key`, the same with every try: now a retry can do no harm.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sends one more header. One that is not a valid header is left out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.insert(name, value);
        }
        self
    }

    /// Retries although nothing makes the tries one request. Only a seeded defect asks for this.
    #[must_use]
    pub fn retried_without_key(mut self) -> Self {
        self.key = None;
        self.careless = true;
        self
    }

    /// Whether sending it twice is as good as sending it once.
    pub(super) fn repeatable(&self) -> bool {
        self.careless || self.key.is_some() || self.method == Method::GET
    }
}

/// An answer below 500.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status, 1xx to 4xx.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most 8 MiB.
    pub body: Bytes,
}

impl Reply {
    /// Reads the body as JSON.
    ///
    /// # Errors
    /// The body is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// The `code` of an [`ApiError`] of the callee, if the body is one.
    pub fn error_code(&self) -> Option<String> {
        let body: Value = self.json().ok()?;
        body.pointer("/error/code")?.as_str().map(str::to_owned)
    }
}

/// Why a call brought no answer below 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The deadline passed before a try could begin.
    Deadline,
    /// The breaker is open.
    BreakerOpen,
    /// Too many calls are in flight already.
    BulkheadFull,
    /// No answer within the time-out of the try.
    TimedOut,
    /// Nobody listens, or the connection could not be made. The callee saw nothing.
    Connect,
    /// The connection broke after the request began to go out.
    Broken,
    /// The callee answered 5xx.
    Status(StatusCode),
}

/// A call that failed after all its tries.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{callee}: {failure:?} after {tries} tries")]
pub struct EdgeError {
    /// The service that was called.
    pub callee: String,
    /// How the last try ended.
    pub failure: Failure,
    /// Whether the callee may have done the work: some try went out and got no word back. Refusals
    /// after it do not change that. Ask again with the same key, or treat it as open.
    pub unknown: bool,
    /// The deeper service that the callee blames, from `x-upstream`.
    pub upstream: Option<String>,
    /// How many tries went out.
    pub tries: u32,
}

impl EdgeError {
    /// The service to blame: the one the callee names, else the callee.
    pub fn culprit(&self) -> &str {
        self.upstream.as_deref().unwrap_or(&self.callee)
    }

    /// The value for the `x-fallback` header when an answer is made up because of this error.
    pub fn fallback(&self) -> (http::HeaderName, &'static str) {
        let reason = match self.failure {
            Failure::BreakerOpen => "breaker-open",
            Failure::BulkheadFull => "bulkhead-full",
            Failure::Deadline | Failure::TimedOut => "timed-out",
            Failure::Connect | Failure::Broken | Failure::Status(_) => "upstream-failed",
        };
        (FALLBACK, reason)
    }
}

impl From<EdgeError> for ApiError {
    /// Our own client is told that somebody behind us failed, and who (`x-upstream`).
    fn from(error: EdgeError) -> Self {
        let (status, code) = match error.failure {
            Failure::Deadline | Failure::TimedOut => {
                (StatusCode::GATEWAY_TIMEOUT, "upstream-timed-out")
            }
            Failure::BreakerOpen => (StatusCode::SERVICE_UNAVAILABLE, "upstream-breaker-open"),
            Failure::BulkheadFull => (StatusCode::SERVICE_UNAVAILABLE, "upstream-bulkhead-full"),
            Failure::Connect => (StatusCode::SERVICE_UNAVAILABLE, "upstream-unreachable"),
            Failure::Status(status) if status == StatusCode::SERVICE_UNAVAILABLE => {
                (StatusCode::SERVICE_UNAVAILABLE, "upstream-unavailable")
            }
            Failure::Broken | Failure::Status(_) => (StatusCode::BAD_GATEWAY, "upstream-failed"),
        };
        let message = format!("`{}` did not answer as it should", error.culprit());
        ApiError::new(status, code, message).by(error.culprit())
    }
}

/// Reads `x-upstream`.
pub(super) fn upstream_of(headers: &HeaderMap) -> Option<String> {
    headers.get(UPSTREAM)?.to_str().ok().map(str::to_owned)
}
