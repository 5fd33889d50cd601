//! The only way out of a service: one [`Edge`] per callee.
//!
//! Every call passes, in this order: deadline → retry (with a budget) → breaker → bulkhead → time-out of
//! the try → HTTP. The breaker hears of every try. What counts as the callee's failure is decided in
//! `Edge::send_once`: a connection that cannot be made or breaks, this edge's time-out, and 5xx that do
//! not blame a deeper upstream. Refusals of our own, 4xx, and blame passed on count as nothing, else
//! one outage would open every breaker on the way to it.
//!
//! It never retries what could be done twice. Next: `edge::request`, `edge::policy`, `breaker`.

mod attempts;
mod counters;
mod policy;
mod request;

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::BytesMut;
use http::header::{HeaderName, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::retry::budget::{Budget, TpsBudget};

use super::breaker::{Breaker, Outcome};
use super::clock::{Clock, mono_ns};
use super::config::Defects;
use super::context::{CORRELATION_ID, Context, DEADLINE_MS, REQUEST_ID, TRACEPARENT};
pub use attempts::{AttemptRow, Attempts};
use counters::Counters;
pub use policy::EdgePolicy;
use request::upstream_of;
pub use request::{EdgeError, EdgeRequest, Failure, Reply};

/// The key that makes a repeated request the same request.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The largest answer that is read.
const REPLY_BYTES_MAX: usize = 8 << 20;
/// The longest `Retry-After` that is waited for within one request.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

/// The client of one callee; clones share breaker, bulkhead, budget and counters.
#[derive(Clone, Debug)]
pub struct Edge(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    link: String,
    callee: String,
    base_url: String,
    policy: EdgePolicy,
    client: reqwest::Client,
    breaker: Breaker,
    bulkhead: Semaphore,
    budget: TpsBudget,
    counters: Counters,
    attempts: Attempts,
}

/// How one try ended, when it brought no answer below 500.
struct Failed {
    failure: Failure,
    /// The callee may have done the work.
    unknown: bool,
    upstream: Option<String>,
    retry_after: Option<Duration>,
    /// It went out to the callee.
    sent: bool,
}

impl Failed {
    fn refused(failure: Failure) -> Self {
        Self {
            failure,
            unknown: false,
            upstream: None,
            retry_after: None,
            sent: false,
        }
    }

    /// Whether another try could help: never after a refusal of our own, never when the callee says that
    /// somebody behind it failed, and after 429 and 503 only when invited.
    fn retriable(&self) -> bool {
        match self.failure {
            Failure::Deadline | Failure::BreakerOpen | Failure::BulkheadFull => false,
            Failure::TimedOut | Failure::Connect | Failure::Broken => true,
            Failure::Status(StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => {
                self.upstream.is_none() && self.retry_after.is_some()
            }
            Failure::Status(_) => self.upstream.is_none(),
        }
    }
}

/// How one try ended.
enum Attempt {
    Answered(Reply),
    /// 429 with an invitation to come back: an answer if nobody tries again.
    Invited(Reply, Duration),
    Failed(Failed),
}

impl Edge {
    /// An edge from `caller` to `callee` at `base_url` (no trailing slash); what goes out is noted in
    /// `attempts`.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(
        caller: &str,
        callee: &str,
        base_url: String,
        policy: EdgePolicy,
        clock: Clock,
        defects: &Defects,
        attempts: Attempts,
    ) -> Result<Self, reqwest::Error> {
        let link = format!("{caller} -> {callee}");
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(policy.timeout().min(Duration::from_secs(1)))
            .pool_idle_timeout(Duration::from_secs(30))
            .build()?;
        let share = policy.retry_budget_percent as f32 / 100.0;
        Ok(Self(Arc::new(Shared {
            breaker: Breaker::new(&link, policy.breaker, clock, defects),
            bulkhead: Semaphore::new(policy.bulkhead),
            budget: TpsBudget::new(Duration::from_secs(10), 1, share),
            counters: Counters::default(),
            attempts,
            callee: callee.to_owned(),
            link,
            base_url,
            policy,
            client,
        })))
    }

    /// Sends a request within the deadline of `context` and answers with any status below 500.
    ///
    /// # Errors
    /// See [`Failure`]; [`EdgeError::unknown`] says whether the work may have been done.
    pub async fn send(&self, context: &Context, request: EdgeRequest) -> Result<Reply, EdgeError> {
        let shared = &*self.0;
        shared.counters.requests.add();
        shared.budget.deposit();
        let mut pauses = self.pauses();
        let mut unknown = false;
        let mut tries = 0;
        loop {
            let (failed, fallback) = match self.send_once(context, &request).await {
                Attempt::Answered(reply) => return Ok(reply),
                Attempt::Invited(reply, after) => (invited(after), Some(reply)),
                Attempt::Failed(failed) => (failed, None),
            };
            tries += u32::from(failed.sent);
            unknown |= failed.unknown;
            let pause = pauses
                .next()
                .filter(|_| failed.retriable() && request.repeatable());
            if let Some(pause) =
                pause.map(|pause| pause.max(failed.retry_after.unwrap_or_default()))
                && self.may_retry(context, pause)
            {
                tokio::time::sleep(pause).await;
                shared.counters.retries.add();
                continue;
            }
            if let Some(reply) = fallback {
                return Ok(reply);
            }
            let (callee, upstream) = (shared.callee.clone(), failed.upstream);
            return Err(EdgeError {
                callee,
                failure: failed.failure,
                unknown,
                upstream,
                tries,
            });
        }
    }

    /// The name of the callee.
    pub fn callee(&self) -> &str {
        &self.0.callee
    }

    /// The limits in force.
    pub fn policy(&self) -> &EdgePolicy {
        &self.0.policy
    }

    /// The breaker in front of the callee.
    pub fn breaker(&self) -> &Breaker {
        &self.0.breaker
    }

    /// Counts an answer that the caller made up because this edge failed.
    pub fn count_fallback(&self) {
        self.0.counters.fallback.add();
    }

    /// Configuration, counters and state of the breaker, for `/internal/edges`.
    pub fn view(&self) -> Value {
        let shared = &*self.0;
        json!({
            "link": shared.link,
            "callee": shared.callee,
            "policy": shared.policy,
            "state": shared.breaker.state(),
            "in-flight": shared.policy.bulkhead - shared.bulkhead.available_permits(),
            "counters": shared.counters.view(),
        })
    }

    /// The pauses before each further try: exponential ceilings, each drawn with full jitter.
    fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        let policy = self.0.policy;
        let floor = Duration::from_millis(policy.backoff_min_ms);
        let cap = Duration::from_millis(policy.backoff_max_ms);
        let ceilings = ExponentialBuilder::default()
            .with_factor(2.0)
            .with_min_delay(floor * 4)
            .with_max_delay(cap)
            .with_max_times(policy.tries.saturating_sub(1) as usize)
            .build();
        ceilings.map(move |ceiling| rand::random_range(floor..=ceiling.max(floor)))
    }

    /// Whether there is time, a closed way and a budget for another try after `pause`.
    fn may_retry(&self, context: &Context, pause: Duration) -> bool {
        let needs = Duration::from_millis(self.0.policy.retry_needs_ms);
        let in_time = context.left().is_none_or(|left| left >= pause + needs);
        if !in_time || self.0.breaker.state() == super::breaker::State::Open {
            return false;
        }
        let allowed = self.0.budget.withdraw();
        if !allowed {
            self.0.counters.retries_denied.add();
        }
        allowed
    }

    /// One try: deadline, breaker, bulkhead, time-out, HTTP.
    async fn send_once(&self, context: &Context, request: &EdgeRequest) -> Attempt {
        let shared = &*self.0;
        let whole = shared.policy.timeout();
        let limit = context.left().map_or(whole, |left| left.min(whole));
        if limit < Duration::from_millis(1) {
            shared.counters.rejected_deadline.add();
            return Attempt::Failed(Failed::refused(Failure::Deadline));
        }
        let Some(permit) = shared.breaker.admit() else {
            shared.counters.rejected_breaker.add();
            return Attempt::Failed(Failed::refused(Failure::BreakerOpen));
        };
        let Ok(_place) = shared.bulkhead.try_acquire() else {
            shared.counters.rejected_bulkhead.add();
            return Attempt::Failed(Failed::refused(Failure::BulkheadFull));
        };
        shared.counters.attempts.add();
        let mut note = shared.attempts.begin(self.row(context, request));
        let exchange = self.exchange(context, limit, request, &mut note.row);
        let attempt = match tokio::time::timeout(limit, exchange).await {
            Ok(attempt) => attempt,
            Err(_elapsed) => {
                shared.counters.timeout.add();
                Attempt::Failed(lost(Failure::TimedOut))
            }
        };
        // A caller in such a hurry that the callee had less than half of its time proves nothing.
        let hurried = limit < whole / 2;
        let outcome = self.judge(&attempt, hurried);
        permit.record(outcome);
        attempt
    }

    /// What a try says about the callee itself.
    fn judge(&self, attempt: &Attempt, hurried: bool) -> Outcome {
        let counters = &self.0.counters;
        let (counter, outcome) = match attempt {
            Attempt::Answered(reply) if reply.status.is_client_error() => {
                (&counters.success, Outcome::Ignored)
            }
            Attempt::Invited(..) => (&counters.success, Outcome::Ignored),
            Attempt::Answered(_) => (&counters.success, Outcome::Success),
            Attempt::Failed(failed) if failed.upstream.is_some() => {
                (&counters.upstream, Outcome::Ignored)
            }
            Attempt::Failed(failed) if hurried && failed.failure == Failure::TimedOut => {
                (&counters.fail, Outcome::Ignored)
            }
            Attempt::Failed(_) => (&counters.fail, Outcome::Failure),
        };
        counter.add();
        outcome
    }

    /// Sends the request and reads the whole answer.
    async fn exchange(
        &self,
        context: &Context,
        limit: Duration,
        request: &EdgeRequest,
        row: &mut AttemptRow,
    ) -> Attempt {
        let url = format!("{}{}", self.0.base_url, request.path);
        let mut call = self.0.client.request(request.method.clone(), url);
        call = call.headers(headers_for(context, limit, request));
        if let Some(body) = &request.body {
            call = call.json(body);
        }
        let response = match call.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                tracing::debug!(link = %self.0.link, %error, "cannot connect");
                row.end = "refused";
                return Attempt::Failed(Failed {
                    sent: true,
                    ..Failed::refused(Failure::Connect)
                });
            }
            Err(error) => {
                tracing::debug!(link = %self.0.link, %error, "connection broke");
                row.end = "closed-by-callee";
                return Attempt::Failed(lost(Failure::Broken));
            }
        };
        row.first_byte = Some(mono_ns());
        row.status = Some(response.status().as_u16());
        match read(response).await {
            Some(reply) => {
                row.end = "answered";
                sort(reply)
            }
            None => {
                row.end = "closed-by-callee";
                Attempt::Failed(lost(Failure::Broken))
            }
        }
    }

    /// A try that goes out now and that nobody has heard of yet.
    fn row(&self, context: &Context, request: &EdgeRequest) -> AttemptRow {
        let path = request.path.split('?').next().unwrap_or_default();
        AttemptRow {
            link: self.0.link.clone(),
            method: request.method.to_string(),
            path: path.to_owned(),
            key: request.key.clone(),
            trace: context.trace_id().to_owned(),
            at: mono_ns(),
            first_byte: None,
            status: None,
            end: "closed-by-caller",
        }
    }
}

/// A try that went out and brought no word back.
fn lost(failure: Failure) -> Failed {
    Failed {
        unknown: true,
        sent: true,
        ..Failed::refused(failure)
    }
}

fn invited(after: Duration) -> Failed {
    let failed = Failed::refused(Failure::Status(StatusCode::TOO_MANY_REQUESTS));
    Failed {
        retry_after: Some(after),
        sent: true,
        ..failed
    }
}

/// Sorts a complete answer by what it means for the caller.
fn sort(reply: Reply) -> Attempt {
    let retry_after = retry_after(&reply.headers);
    if reply.status == StatusCode::TOO_MANY_REQUESTS
        && let Some(after) = retry_after
    {
        return Attempt::Invited(reply, after);
    }
    if !reply.status.is_server_error() {
        return Attempt::Answered(reply);
    }
    Attempt::Failed(Failed {
        failure: Failure::Status(reply.status),
        // 503 is the one 5xx that promises that nothing was done.
        unknown: reply.status != StatusCode::SERVICE_UNAVAILABLE,
        upstream: upstream_of(&reply.headers),
        retry_after,
        sent: true,
    })
}

/// `Retry-After` in seconds, when it is short enough to wait for.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|after| *after <= RETRY_AFTER_MAX)
}

/// The headers of one try: the caller's own, the context's, and the time left for this try.
fn headers_for(context: &Context, limit: Duration, request: &EdgeRequest) -> HeaderMap {
    let mut headers = request.headers.clone();
    let key = request.key.clone().map(|key| (IDEMPOTENCY_KEY, key));
    let values = [
        (TRACEPARENT, context.child_traceparent()),
        (CORRELATION_ID, context.correlation_id.clone()),
        (REQUEST_ID, context.request_id.clone()),
        (DEADLINE_MS, limit.as_millis().to_string()),
    ];
    for (name, value) in values.into_iter().chain(key) {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    headers
}

/// Reads an answer up to [`REPLY_BYTES_MAX`]; none when it breaks off or is larger.
async fn read(mut response: reqwest::Response) -> Option<Reply> {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > REPLY_BYTES_MAX {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(Reply {
        status,
        headers,
        body: body.freeze(),
    })
}

#[cfg(test)]
mod tests;
