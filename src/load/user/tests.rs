//! One user against scripted servers: what it sends, and what it makes of each kind of answer.

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
    let operations = notes.iter().filter_map(|note| match note {
        Note::Operation(ended) => Some(&ended.result),
        _ => None,
    });
    operations.collect()
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

fn place_order() -> StepPlan {
    let mut step = testing::get("place-order", "/orders");
    step.request.method = "POST".into();
    step.request.json = Some(json!({"key": "$(key)"}));
    capturing(step, "order", ".id")
}

#[tokio::test]
async fn a_capture_is_used_by_the_next_step_and_polls_are_one_operation() {
    let url = serve(shop()).await;
    let notes = walk(&url, vec![place_order(), until_confirmed(PATIENT)], PATIENT).await;
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
async fn what_is_settled_already_is_seen_at_the_first_look() {
    let settled = || async { axum::Json(json!({"state": "CONFIRMED"})) };
    let place = || async { (StatusCode::CREATED, axum::Json(json!({"id": "o-1"}))) };
    let router = Router::new()
        .route("/orders", post(place))
        .route("/orders/o-1", get(settled));
    let url = serve(router).await;
    let notes = walk(&url, vec![place_order(), until_confirmed(PATIENT)], PATIENT).await;
    let result = results(&notes)[1];
    assert_eq!((result.outcome, result.requests), (OutcomeClass::Done, 1));
}

/// The first look is taken at once: nothing is left for a second one.
#[tokio::test]
async fn polls_that_do_not_come_true_are_unsettled() {
    let url = serve(shop()).await;
    let steps = vec![place_order(), until_confirmed(POLL_FIRST)];
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
        serve(Router::new().route("/orders", post(|| async { (StatusCode::CREATED, "{}") }))).await;
    let notes = walk(&url, vec![place_order(), until_confirmed(PATIENT)], PATIENT).await;
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
