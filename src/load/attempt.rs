//! One request of a step: built from the step's templates, and what its answer means by the step's
//! declaration.
//!
//! Pure: it sends nothing (`user.rs` does) and reads no clock.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use serde_json::Value;

use crate::plan::load::{OutcomeClass, Until};

use super::http::{Answer, Error, Target};
use super::journeys::{Header, Step, Values};
use super::render;
use super::shared::{Problem, StepResult};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("chaos/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What one request brought.
#[derive(Debug)]
pub(crate) struct Attempt {
    status: Option<u16>,
    /// The body, when it was asked for and is JSON.
    json: Option<Value>,
    problem: Option<Problem>,
}

impl Attempt {
    /// An answer, or why there is none.
    pub(crate) fn of(step: &Step, answer: Result<Answer, Error>) -> Self {
        match answer {
            Ok(Answer { status, body }) => Self {
                status: Some(status),
                json: match step.reads_body() {
                    true => serde_json::from_slice(&body).ok(),
                    false => None,
                },
                problem: None,
            },
            Err(error) => Self::failed(Problem::Http(error)),
        }
    }

    pub(crate) fn failed(problem: Problem) -> Self {
        Self {
            status: None,
            json: None,
            problem: Some(problem),
        }
    }

    /// Whether the body holds one of the values that a poll waits for.
    pub(crate) fn matches(&self, until: &Until) -> bool {
        let found = self.json.as_ref().and_then(|json| until.json.find(json));
        found.is_some_and(|found| until.values.contains(found))
    }
}

/// The outcome of a request, by its step's declaration.
pub(crate) fn settle(step: &Step, attempt: Attempt) -> StepResult {
    let mut result = StepResult {
        outcome: OutcomeClass::Unknown,
        status: attempt.status,
        problem: attempt.problem,
        requests: 1,
        captured: Vec::new(),
    };
    let Some(status) = attempt.status else {
        // Nothing was sent, or nobody knows.
        return result;
    };
    result.outcome = step.outcome.class(status);
    if result.outcome == OutcomeClass::Unknown {
        result.problem = Some(Problem::Status(status));
    }
    if !matches!(result.outcome, OutcomeClass::Done | OutcomeClass::Accepted) || !step.reads_body()
    {
        return result;
    }
    let Some(json) = attempt.json else {
        return StepResult {
            outcome: OutcomeClass::Unknown,
            problem: Some(Problem::Body),
            ..result
        };
    };
    let denied = step
        .outcome
        .body_null
        .as_ref()
        .and_then(|path| path.find(&json));
    if denied.is_some_and(|value| !value.is_null()) {
        result.outcome = OutcomeClass::Unknown;
        result.problem = Some(Problem::Body);
        return result;
    }
    for capture in &step.capture {
        match capture.json.find(&json) {
            Some(value) => result.captured.push((capture.name.clone(), value.clone())),
            None => result.problem = Some(Problem::Capture(capture.name.clone())),
        }
    }
    result
}

/// Why a request cannot be built: a substitution brought what no header or path can hold.
pub(crate) struct Unsendable;

/// The request of a step, for one ticket.
pub(crate) fn request(
    step: &Step,
    target: &Target,
    values: &Values<'_>,
    traceparent: &str,
) -> Result<Request<Full<Bytes>>, Unsendable> {
    let path = render::path(&step.path, values).map_err(|_| Unsendable)?;
    let uri = format!("{}{path}", target.prefix);
    let mut request = Request::builder()
        .method(&step.method)
        .uri(uri)
        .header(HOST, &target.authority)
        .header(USER_AGENT, AGENT);
    for (name, value) in &step.headers {
        request = match value {
            Header::Constant(value) => request.header(name, value),
            Header::Rendered(template) => request.header(
                name,
                render::text(template, values).map_err(|_| Unsendable)?,
            ),
        };
    }
    request = request.header(TRACEPARENT, traceparent);
    let body = match &step.json {
        Some(template) => {
            // GraphQL or a vendor's type: the step's own header wins.
            if !step.headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
                request = request.header(CONTENT_TYPE, JSON);
            }
            let json = template.render(values).map_err(|_| Unsendable)?;
            Bytes::from(json.to_string())
        }
        None => Bytes::new(),
    };
    request.body(Full::new(body)).map_err(|_| Unsendable)
}
