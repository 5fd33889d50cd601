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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::load::journeys::Journeys;
    use crate::load::testing;
    use crate::plan::StepPlan;
    use crate::plan::load::{Capture, JsonPath};

    /// Walks one journey with these steps against `url` and returns the notes it left.
    async fn walk(url: &str, steps: Vec<StepPlan>, timeout: Duration) -> Vec<Note> {
        let mut assignment = testing::assignment(url);
        assignment.load.journeys = vec![testing::journey("ordering", steps)];
        let journeys = Journeys::new(&assignment).unwrap();
        let second = Duration::from_secs(1);
        let (shared, notes) = Shared::new(journeys, assignment.clock, timeout, second, second);
        let shared = Arc::new(shared);
        let at_ns = shared.clock.now_ns();
        shared.begin(at_ns);
        shared.ticket_issued(at_ns);
        User::new(Arc::clone(&shared))
            .walk(Due { number: 7, at_ns })
            .await;
        notes.drain().collect()
    }

    const PATIENT: Duration = Duration::from_secs(30);

    fn results(notes: &[Note]) -> Vec<&StepResult> {
        let operation = |note| match note {
            &Note::Operation(ref ended) => Some(&ended.result),
            _ => None,
        };
        notes.iter().filter_map(operation).collect()
    }

    fn ended(notes: &[Note]) -> JourneyEnded {
        match notes.last() {
            Some(Note::Journey(ended)) => *ended,
            other => panic!("the last note is {other:?}"),
        }
    }

    async fn serve(router: Router) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    /// A server that reads a request, writes `answer` and closes.
    async fn serve_raw(answer: &'static [u8], reset: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                if reset {
                    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                }
            }
        });
        url
    }

    fn capturing(mut step: StepPlan, name: &str, path: &str) -> StepPlan {
        step.capture.push(Capture {
            name: name.into(),
            json: JsonPath::parse(path).unwrap(),
        });
        step
    }

    fn until_confirmed(within: Duration) -> StepPlan {
        let mut step = testing::get("see-order", "/orders/$(order)");
        step.until = Some(Until {
            json: JsonPath::parse(".state").unwrap(),
            values: vec![json!("CONFIRMED"), json!("CANCELLED")],
            within,
        });
        step
    }

    /// Orders that are confirmed at the third look.
    fn shop() -> Router {
        let looks = Arc::new(AtomicU32::new(0));
        let see = move |path: axum::extract::Path<String>| {
            let state = match looks.fetch_add(1, Relaxed) {
                0 | 1 => "PENDING",
                _ => "CONFIRMED",
            };
            async move { axum::Json(json!({"id": path.0, "state": state})) }
        };
        let place = || async { (StatusCode::CREATED, axum::Json(json!({"id": "o-1"}))) };
        Router::new()
            .route("/orders", post(place))
            .route("/orders/{id}", get(see))
    }

    fn place() -> StepPlan {
        let mut step = testing::get("place-order", "/orders");
        step.request.method = "POST".into();
        step.request.json = Some(json!({"key": "$(key)"}));
        capturing(step, "order", ".id")
    }

    #[tokio::test]
    async fn a_capture_is_used_by_the_next_step_and_polls_are_one_operation() {
        let url = serve(shop()).await;
        let notes = walk(&url, vec![place(), until_confirmed(PATIENT)], PATIENT).await;
        let results = results(&notes);
        assert_eq!(results[0].captured, [("order".to_owned(), json!("o-1"))]);
        assert_eq!(results[1].outcome, OutcomeClass::Done);
        assert_eq!((results[1].requests, &results[1].problem), (3, &None));
        let (Note::Operation(first), Note::Operation(second)) = (&notes[0], &notes[1]) else {
            panic!("{notes:?}");
        };
        assert_eq!(second.intended_ns, first.ended_ns);
        // 250 ms and 500 ms passed between the three polls.
        assert!(second.ended_ns - second.intended_ns >= 750_000_000);
        assert!(ended(&notes).complete);
        assert_eq!(ended(&notes).due_ns, first.intended_ns);
    }

    #[tokio::test]
    async fn polls_that_do_not_come_true_are_unsettled() {
        let url = serve(shop()).await;
        let steps = vec![place(), until_confirmed(Duration::from_millis(100))];
        let notes = walk(&url, steps, PATIENT).await;
        let result = results(&notes)[1];
        assert_eq!(result.outcome, OutcomeClass::Unsettled);
        assert_eq!((result.status, result.requests), (Some(200), 1));
        assert!(ended(&notes).complete);
        assert_eq!(ended(&notes).worst, OutcomeClass::Unsettled);
    }

    #[tokio::test]
    async fn a_journey_ends_where_the_answer_lacks_what_comes_next() {
        let url =
            serve(Router::new().route("/orders", post(|| async { (StatusCode::CREATED, "{}") })))
                .await;
        let notes = walk(&url, vec![place(), until_confirmed(PATIENT)], PATIENT).await;
        assert_eq!(results(&notes).len(), 1);
        let problem = Some(Problem::Capture("order".into()));
        assert_eq!(results(&notes)[0].problem, problem);
        assert!(!ended(&notes).complete);
    }

    #[tokio::test]
    async fn statuses_and_bodies_settle_the_outcome() {
        let status = |path: axum::extract::Path<u16>| async move {
            (
                StatusCode::from_u16(path.0).unwrap(),
                r#"{"errors": ["no"]}"#,
            )
        };
        let url = serve(Router::new().route("/{status}", get(status))).await;
        let step = |path: &str| testing::get("look", path);
        let mut denied = step("/200");
        denied.outcome.body_null = Some(JsonPath::parse(".errors").unwrap());
        let mut allowed = step("/200");
        allowed.outcome.body_null = Some(JsonPath::parse(".warnings").unwrap());
        let steps = vec![
            step("/200"),
            step("/202"),
            step("/409"),
            step("/503"),
            denied,
            allowed,
        ];
        let notes = walk(&url, steps, PATIENT).await;
        let seen: Vec<_> = results(&notes)
            .iter()
            .map(|result| (result.outcome, result.problem.clone()))
            .collect();
        use OutcomeClass::*;
        let expected = [
            (Done, None),
            (Accepted, None),
            (Refused, None),
            (Unknown, Some(Problem::Status(503))),
            (Unknown, Some(Problem::Body)),
            (Done, None),
        ];
        assert_eq!(seen, expected);
        assert_eq!(ended(&notes).worst, Unknown);
    }

    #[tokio::test]
    async fn each_way_to_get_no_answer_has_a_name() {
        let whole = Duration::from_millis(300);
        let one = |url: String| async move {
            let notes = walk(&url, vec![testing::get("look", "/")], whole).await;
            let result = results(&notes)[0].clone();
            assert_eq!(
                (result.outcome, result.status),
                (OutcomeClass::Unknown, None)
            );
            result.problem.unwrap().text()
        };
        assert_eq!(one(serve_raw(b"", false).await).await, "closed");
        assert_eq!(one(serve_raw(b"", true).await).await, "reset");
        let short = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
        assert_eq!(one(serve_raw(short, false).await).await, "body");
        assert_eq!(
            one(serve_raw(b"SSH-2.0-what\r\n", false).await).await,
            "body"
        );

        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", nobody.local_addr().unwrap());
        // Accepted by the kernel, answered by nobody.
        assert_eq!(one(url.clone()).await, "timeout");
        drop(nobody);
        assert_eq!(one(url).await, "connect");
    }

    #[tokio::test]
    async fn a_time_out_reaches_through_the_body() {
        let trickle = || async {
            let bytes = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((Ok::<_, std::io::Error>("x"), ()))
            });
            axum::body::Body::from_stream(bytes)
        };
        let url = serve(Router::new().route("/", get(trickle))).await;
        let timeout = Duration::from_millis(300);
        let notes = walk(&url, vec![testing::get("look", "/")], timeout).await;
        assert_eq!(
            results(&notes)[0].problem.as_ref().unwrap().text(),
            "timeout"
        );
        let took_ns = ended(&notes).ended_ns - ended(&notes).due_ns;
        assert!(took_ns >= timeout.as_nanos() as u64);
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_idle_is_replaced() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let url = serve_raw(answer, false).await;
        let look = || testing::get("look", "/");
        let notes = walk(&url, vec![look(), look(), look()], PATIENT).await;
        let problems: Vec<_> = results(&notes).iter().map(|r| r.problem.clone()).collect();
        // A close that crosses a request on the wire is the server's: it is told, not retried.
        let closed = Some(Problem::Http(crate::load::http::Error::Closed));
        let reset = Some(Problem::Http(crate::load::http::Error::Reset));
        assert_eq!(problems[0], None);
        assert!(
            problems
                .iter()
                .all(|p| p.is_none() || *p == closed || *p == reset)
        );
        assert!(ended(&notes).complete);
    }

    #[tokio::test]
    async fn every_request_carries_the_operations_trace_and_the_steps_headers() {
        let echo = |headers: axum::http::HeaderMap| async move {
            let text = |name: &str| headers[name].to_str().unwrap().to_owned();
            axum::Json(json!({"trace": text("traceparent"), "key": text("idempotency-key")}))
        };
        let url = serve(Router::new().route("/", get(echo))).await;
        let mut step = testing::get("look", "/");
        let key = crate::plan::Template::parse("$(key)").unwrap();
        step.request.headers.push(("Idempotency-Key".into(), key));
        let step = capturing(capturing(step, "trace", ".trace"), "key", ".key");
        let notes = walk(&url, vec![step], PATIENT).await;
        let captured = &results(&notes)[0].captured;
        let traceparent = draw::traceparent(&draw::trace(1, 7, 0), 0);
        assert_eq!(captured[0].1, json!(traceparent));
        assert_eq!(captured[1].1, json!(draw::key(1, 7)));
    }
}
