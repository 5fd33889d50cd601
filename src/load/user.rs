//! One user of the load: takes a ticket, walks its journey, notes how each step went.
//!
//! A user holds one connection per target and one journey at a time. It knows nothing of goose
//! (`host.rs` runs it) and keeps no statistics (`recorder.rs` does).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use serde_json::Value;

use crate::plan::load::{OutcomeClass, Until};

use super::draw;
use super::http::{Answer, Connection, Keep};
use super::journeys::{Header, Step, Values};
use super::render;
use super::shared::{Due, JourneyEnded, Note, Problem, Shared, StepEnded, StepResult};

const POLL_FIRST: Duration = Duration::from_millis(250);
const POLL_MAX: Duration = Duration::from_secs(1);
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("chaos/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// See the module.
#[derive(Debug)]
pub(crate) struct User {
    shared: Arc<Shared>,
    connections: Vec<Connection>,
}

impl User {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let targets = &shared.journeys.targets;
        let connections = targets.iter().cloned().map(Connection::new).collect();
        Self {
            shared,
            connections,
        }
    }

    /// Opens the connections before T0, so that their set-up is no part of any latency. A target
    /// that does not answer is no error yet: a fault may be meant to be there from the start.
    pub(crate) async fn connect(&mut self) {
        let within = self.shared.timeout;
        let mut connected = true;
        for connection in &mut self.connections {
            connected &= connection.open(within).await.is_ok();
        }
        self.shared
            .users_connected
            .fetch_add(connected.into(), Relaxed);
        self.shared.users_ready.fetch_add(1, Relaxed);
    }

    /// Takes tickets until there are no more, or the load is stopped.
    pub(crate) async fn serve(&mut self, tickets: flume::Receiver<Due>, deadline: Duration) {
        let shared = Arc::clone(&self.shared);
        let mut stopped = std::pin::pin!(shared.stop.cancelled());
        loop {
            let due = tokio::select! {
                biased;
                () = &mut stopped => break,
                due = tickets.recv_async() => match due {
                    Ok(due) => due,
                    Err(flume::RecvError::Disconnected) => break,
                },
            };
            let waited = shared.clock.now_ns().saturating_sub(due.at_ns);
            if waited > deadline.as_nanos() as u64 {
                shared.note(Note::Dropped { due_ns: due.at_ns });
                continue;
            }
            shared.user_busy();
            self.walk(due).await;
            shared.user_idle();
        }
    }

    /// The closed model: walks again as soon as it was answered and has thought, until `end_ns`.
    /// Its tickets are due when it is free to take them, which is why it under-counts stalls.
    pub(crate) async fn repeat(
        &mut self,
        think: Duration,
        end_ns: u64,
        next_number: impl Fn() -> Option<u64>,
    ) {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.is_cancelled() && shared.clock.now_ns() < end_ns {
            let Some(number) = next_number() else { break };
            let at_ns = shared.clock.now_ns();
            shared.ticket_issued(at_ns);
            shared.user_busy();
            self.walk(Due { number, at_ns }).await;
            shared.user_idle();
            self.pause(think).await;
        }
    }

    /// Walks the journey of a ticket to its end, whatever that is.
    pub(crate) async fn walk(&mut self, due: Due) {
        let shared = Arc::clone(&self.shared);
        let index = shared.journeys.of_ticket(due.number);
        let journey = &shared.journeys.journeys[index];
        let mut values = shared.journeys.values(due.number);
        let mut ended = JourneyEnded {
            journey: index,
            due_ns: due.at_ns,
            sent_ns: shared.clock.now_ns(),
            ended_ns: due.at_ns,
            complete: false,
            worst: OutcomeClass::Done,
        };
        let mut intended_ns = due.at_ns;
        for (at, step) in journey.steps.iter().enumerate() {
            if !self.think(step, &mut intended_ns, at == 0).await {
                break;
            }
            let trace = shared.journeys.trace(due.number, at);
            let sent_ns = shared.clock.now_ns();
            let result = self
                .step(step, journey.target, intended_ns, &values, &trace)
                .await;
            let ended_ns = shared.clock.now_ns();
            let goes_on = !matches!(
                result.problem,
                Some(Problem::Capture(_) | Problem::Stopped | Problem::Unsendable)
            ) && captured_all(step, &result);
            values.captured.extend(result.captured.iter().cloned());
            ended.worst = ended.worst.max(result.outcome);
            ended.ended_ns = ended_ns;
            shared.note(Note::Operation(Box::new(StepEnded {
                ticket: due.number,
                journey: index,
                step: at,
                key: Arc::clone(&values.key),
                intended_ns,
                sent_ns,
                ended_ns,
                result,
            })));
            ended.complete = goes_on && at + 1 == journey.steps.len();
            if !goes_on {
                break;
            }
            intended_ns = ended_ns;
        }
        shared.note(Note::Journey(ended));
    }

    /// Waits out the think time of a step and settles its intended start; false when the load was
    /// stopped first.
    async fn think(&self, step: &Step, intended_ns: &mut u64, first: bool) -> bool {
        let opened_ns = *intended_ns;
        *intended_ns += step.think.as_nanos() as u64;
        let left = intended_ns.saturating_sub(self.shared.clock.now_ns());
        if !step.think.is_zero() && left > 0 {
            self.pause(Duration::from_nanos(left)).await;
        }
        // The pacer opened the first step when its ticket was due.
        if first && self.shared.second(opened_ns) != self.shared.second(*intended_ns) {
            self.shared.operation_opened(*intended_ns);
            self.shared.operation_booked(opened_ns);
        }
        let stopped = !first && self.shared.stop.is_cancelled();
        if !first && !stopped {
            self.shared.operation_opened(*intended_ns);
        }
        !stopped
    }

    /// Sleeps, but not beyond a stop.
    async fn pause(&self, duration: Duration) {
        if duration.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.shared.stop.cancelled() => {}
        }
    }

    async fn step(
        &mut self,
        step: &Step,
        target: usize,
        intended_ns: u64,
        values: &Values<'_>,
        trace: &str,
    ) -> StepResult {
        match &step.until {
            Some(until) => {
                self.poll(step, until, target, intended_ns, values, trace)
                    .await
            }
            None => {
                let within = self.shared.timeout;
                let attempt = self.attempt(step, target, values, (trace, 0), within).await;
                settle(step, attempt)
            }
        }
    }

    /// Asks again until the answer holds one of the values. One operation, timed to the match.
    async fn poll(
        &mut self,
        step: &Step,
        until: &Until,
        target: usize,
        intended_ns: u64,
        values: &Values<'_>,
        trace: &str,
    ) -> StepResult {
        let deadline_ns = intended_ns + until.within.as_nanos() as u64;
        let left = |shared: &Shared| {
            Duration::from_nanos(deadline_ns.saturating_sub(shared.clock.now_ns()))
        };
        let mut pause = POLL_FIRST;
        let mut requests = 0;
        loop {
            // A user that comes late still asks once.
            let within = left(&self.shared).clamp(Duration::from_millis(1), self.shared.timeout);
            let attempt = self
                .attempt(step, target, values, (trace, requests), within)
                .await;
            requests += 1;
            let matched = attempt.matches(until);
            let mut result = settle(step, attempt);
            result.requests = requests;
            let settled = matches!(result.outcome, OutcomeClass::Done | OutcomeClass::Accepted);
            if (matched && settled) || result.problem == Some(Problem::Stopped) {
                return result;
            }
            if left(&self.shared) <= pause {
                return StepResult {
                    outcome: OutcomeClass::Unsettled,
                    problem: result.problem.or(Some(Problem::Unsettled)),
                    captured: Vec::new(),
                    ..result
                };
            }
            self.pause(pause).await;
            if self.shared.stop.is_cancelled() {
                let problem = Some(Problem::Stopped);
                let outcome = OutcomeClass::Unsettled;
                return StepResult {
                    outcome,
                    problem,
                    ..result
                };
            }
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// Sends one request and reads its answer.
    async fn attempt(
        &mut self,
        step: &Step,
        target: usize,
        values: &Values<'_>,
        (trace, request_number): (&str, u32),
        within: Duration,
    ) -> Attempt {
        let connection = &mut self.connections[target];
        let traceparent = draw::traceparent(trace, request_number);
        let Ok(request) = request(step, connection.target(), values, &traceparent) else {
            return Attempt::failed(Problem::Unsendable);
        };
        let keep = match step.reads_body() {
            true => Keep::Body,
            false => Keep::Nothing,
        };
        let answer = tokio::select! {
            biased;
            answer = connection.exchange(request, within, keep) => answer,
            () = self.shared.cut.cancelled() => return Attempt::failed(Problem::Stopped),
        };
        match answer {
            Ok(Answer { status, body }) => Attempt {
                status: Some(status),
                json: match keep {
                    Keep::Body => serde_json::from_slice(&body).ok(),
                    Keep::Nothing => None,
                },
                problem: None,
            },
            Err(error) => Attempt::failed(Problem::Http(error)),
        }
    }
}

/// What one request brought.
#[derive(Debug)]
struct Attempt {
    status: Option<u16>,
    /// The body, when it was asked for and is JSON.
    json: Option<Value>,
    problem: Option<Problem>,
}

impl Attempt {
    fn failed(problem: Problem) -> Self {
        Self {
            status: None,
            json: None,
            problem: Some(problem),
        }
    }

    fn matches(&self, until: &Until) -> bool {
        let found = self.json.as_ref().and_then(|json| until.json.find(json));
        found.is_some_and(|found| until.values.contains(found))
    }
}

/// The outcome of a request, by its step's declaration.
fn settle(step: &Step, attempt: Attempt) -> StepResult {
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

fn captured_all(step: &Step, result: &StepResult) -> bool {
    step.capture.len() == result.captured.len()
}

/// Why a request cannot be built: a substitution brought what no header or path can hold.
struct Unsendable;

fn request(
    step: &Step,
    target: &super::http::Target,
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
