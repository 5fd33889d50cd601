//! Who a piece of work belongs to: trace, correlation id, request id and deadline.
//!
//! It comes in with a request or an event and goes out with every call, event and log line, so that one
//! order can be followed through all processes. It never carries business data.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::HeaderName;
use http::request::Parts;
use tokio::time::Instant;
use uuid::Uuid;

/// W3C trace context, such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The id that stays the same through every hop, also over the bus.
pub const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
/// The id of one request at one service.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Milliseconds that the caller will still wait for the answer.
pub const DEADLINE_MS: HeaderName = HeaderName::from_static("x-deadline-ms");

/// Trace, correlation id, request id and deadline of a piece of work.
#[derive(Clone, Debug)]
pub struct Context {
    trace_id: String,
    span_id: String,
    /// The same through every hop of one business operation.
    pub correlation_id: String,
    /// The id of the request at hand.
    pub request_id: String,
    deadline: Option<Instant>,
}

impl Context {
    /// A new trace without a deadline: for work that nobody asked for from outside.
    pub fn background() -> Self {
        let trace_id = Uuid::new_v4().simple().to_string();
        Self {
            span_id: new_span_id(),
            correlation_id: trace_id.clone(),
            request_id: Uuid::now_v7().to_string(),
            trace_id,
            deadline: None,
        }
    }

    /// Goes on in the trace of stored work, such as a saga or an event, without a deadline. An
    /// unreadable `traceparent` starts a new trace; an empty correlation id becomes the trace id.
    pub fn resume(traceparent: &str, correlation_id: &str) -> Self {
        let mut context = Self::background();
        if let Some(trace_id) = trace_id_of(traceparent) {
            context.trace_id = trace_id.to_owned();
            context.correlation_id = context.trace_id.clone();
        }
        if !correlation_id.is_empty() {
            context.correlation_id = correlation_id.to_owned();
        }
        context
    }

    /// Reads the headers of a request; what is missing is made up.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let read = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let correlation = read(&CORRELATION_ID)
            .filter(|id| is_plain_id(id))
            .unwrap_or_default();
        let mut context = Self::resume(read(&TRACEPARENT).unwrap_or_default(), correlation);
        if let Some(id) = read(&REQUEST_ID).filter(|id| is_plain_id(id)) {
            context.request_id = id.to_owned();
        }
        let left_ms = read(&DEADLINE_MS).and_then(|text| text.parse::<u64>().ok());
        context.deadline = left_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        context
    }

    /// The same work with at most `left` to go; an earlier deadline stays.
    #[must_use]
    pub fn within(&self, left: Duration) -> Self {
        let limit = Instant::now() + left;
        let deadline = self.deadline.map_or(limit, |deadline| deadline.min(limit));
        Self {
            deadline: Some(deadline),
            ..self.clone()
        }
    }

    /// The same work without a deadline, for what must go on after the caller has left.
    #[must_use]
    pub fn without_deadline(&self) -> Self {
        Self {
            deadline: None,
            ..self.clone()
        }
    }

    /// Time left until the deadline (zero when it passed); none = no deadline.
    pub fn left(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The trace id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// What to store or send so that the work can be resumed in the same trace.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, self.span_id)
    }

    /// The `traceparent` of one call out: the same trace, a span of its own.
    pub fn child_traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, new_span_id())
    }

    /// The span that every log line of this work belongs to.
    pub fn span(&self, name: &'static str) -> tracing::Span {
        tracing::info_span!(
            "work",
            name,
            trace_id = %self.trace_id,
            correlation_id = %self.correlation_id,
            request_id = %self.request_id,
        )
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Context>().cloned();
        Ok(known.unwrap_or_else(|| Self::from_headers(&parts.headers)))
    }
}

fn new_span_id() -> String {
    format!("{:016x}", rand::random::<u64>().max(1))
}

/// The trace id of a `traceparent`, when it has the form that W3C asks for.
fn trace_id_of(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (_version, trace_id, _span) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = trace_id.len() == 32 && trace_id.bytes().all(|b| b.is_ascii_hexdigit());
    (is_hex && trace_id.bytes().any(|b| b != b'0')).then_some(trace_id)
}

/// Ids from outside end up in logs and headers, so they may not be long or contain anything odd.
fn is_plain_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_through_headers() {
        let first = Context::background();
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, first.traceparent().parse().unwrap());
        headers.insert(CORRELATION_ID, "order-7".parse().unwrap());
        let second = Context::from_headers(&headers);
        assert_eq!(second.trace_id(), first.trace_id());
        assert_eq!(second.correlation_id, "order-7");
        assert_ne!(
            second.traceparent(),
            first.traceparent(),
            "each hop is a span of its own"
        );
    }

    #[test]
    fn an_unreadable_trace_starts_a_new_one() {
        let context = Context::resume("00-zz-1-01", "");
        assert_eq!(context.trace_id().len(), 32);
        assert_eq!(context.correlation_id, context.trace_id());
    }

    #[test]
    fn a_later_deadline_does_not_lengthen_an_earlier_one() {
        let context = Context::background()
            .within(Duration::ZERO)
            .within(Duration::from_secs(9));
        assert_eq!(context.left(), Some(Duration::ZERO));
        assert_eq!(context.without_deadline().left(), None);
    }
}
