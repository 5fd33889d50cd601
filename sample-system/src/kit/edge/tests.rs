use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Request, State as AppState};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use super::*;
use crate::kit::breaker::State;
use crate::kit::config::Profile;
use crate::kit::error::UPSTREAM;

/// A callee that answers as told, and remembers what it saw.
#[derive(Clone)]
struct Callee {
    answer: fn(usize) -> Response,
    seen: Arc<AtomicUsize>,
    keys: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Callee {
    async fn start(answer: fn(usize) -> Response) -> (Self, String) {
        let callee = Self {
            answer,
            seen: Arc::default(),
            keys: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(callee.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (callee, url)
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

async fn serve(AppState(callee): AppState<Callee>, request: Request) -> Response {
    let key = request
        .headers()
        .get(&IDEMPOTENCY_KEY)
        .map(|key| key.to_str().unwrap().to_owned());
    callee.keys.lock().unwrap().push(key.unwrap_or_default());
    let nth = callee.seen.fetch_add(1, Ordering::SeqCst);
    if request.uri().path() == "/hang" {
        std::future::pending::<()>().await;
    }
    (callee.answer)(nth)
}

fn ok(_nth: usize) -> Response {
    StatusCode::OK.into_response()
}

fn fails(_nth: usize) -> Response {
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

fn fails_once(nth: usize) -> Response {
    if nth == 0 { fails(nth) } else { ok(nth) }
}

fn blames(_nth: usize) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(UPSTREAM, "bank")]).into_response()
}

fn edge(url: &str, change: impl FnOnce(&mut EdgePolicy)) -> Edge {
    let mut policy = EdgePolicy::ordinary(Profile::Fast);
    (policy.backoff_min_ms, policy.backoff_max_ms) = (1, 2);
    change(&mut policy);
    let clock = Clock::by_hand();
    let (defects, attempts) = (Defects::default(), Attempts::default());
    Edge::new("a", "b", url.to_owned(), policy, clock, &defects, attempts).unwrap()
}

async fn send(edge: &Edge, request: EdgeRequest) -> Result<Reply, EdgeError> {
    edge.send(&Context::background(), request).await
}

#[tokio::test]
async fn a_keyed_post_is_retried_with_the_same_key() {
    let (callee, url) = Callee::start(fails_once).await;
    let reply = send(&edge(&url, |_| {}), EdgeRequest::post("/").key("k1"))
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(*callee.keys.lock().unwrap(), ["k1", "k1"]);
}

#[tokio::test]
async fn a_post_without_a_key_is_tried_once_unless_a_defect_says_otherwise() {
    let (callee, url) = Callee::start(fails_once).await;
    let edge = edge(&url, |_| {});
    let error = send(&edge, EdgeRequest::post("/")).await.unwrap_err();
    assert_eq!((error.tries, error.unknown, callee.seen()), (1, true, 1));
    let (callee, url) = Callee::start(fails_once).await;
    let careless = EdgeRequest::post("/").key("k1").retried_without_key();
    send(&self::edge(&url, |_| {}), careless).await.unwrap();
    assert_eq!(*callee.keys.lock().unwrap(), ["", ""]);
}

#[tokio::test]
async fn a_refusal_in_the_name_of_a_deeper_upstream_is_not_retried_and_not_counted() {
    let (callee, url) = Callee::start(blames).await;
    let edge = edge(&url, |_| {});
    for _ in 0..30 {
        let error = send(&edge, EdgeRequest::get("/")).await.unwrap_err();
        assert_eq!(
            (error.culprit(), error.unknown, error.tries),
            ("bank", false, 1)
        );
    }
    assert_eq!(callee.seen(), 30);
    assert_eq!(edge.breaker().state(), State::Closed);
    assert_eq!(edge.breaker().view().window.calls, 0);
}

#[tokio::test]
async fn failures_of_the_callee_open_the_breaker_and_then_nothing_is_sent() {
    let (callee, url) = Callee::start(fails).await;
    let edge = edge(&url, |policy| policy.tries = 1);
    for _ in 0..10 {
        send(&edge, EdgeRequest::get("/")).await.unwrap_err();
    }
    let error = send(&edge, EdgeRequest::get("/")).await.unwrap_err();
    assert_eq!(
        (error.failure, error.unknown, error.tries),
        (Failure::BreakerOpen, false, 0)
    );
    assert_eq!(callee.seen(), 10);
}

#[tokio::test]
async fn client_errors_are_answers_and_say_nothing_about_the_callee() {
    let (_callee, url) = Callee::start(|_| StatusCode::NOT_FOUND.into_response()).await;
    let edge = edge(&url, |_| {});
    for _ in 0..30 {
        let reply = send(&edge, EdgeRequest::get("/")).await.unwrap();
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(edge.breaker().view().window.calls, 0);
}

#[tokio::test]
async fn a_silent_callee_times_out_and_the_outcome_is_unknown() {
    let (callee, url) = Callee::start(ok).await;
    let edge = edge(&url, |policy| (policy.timeout_ms, policy.tries) = (20, 1));
    let error = send(&edge, EdgeRequest::post("/hang").key("k1"))
        .await
        .unwrap_err();
    assert_eq!((error.failure, error.unknown), (Failure::TimedOut, true));
    assert_eq!(callee.seen(), 1);
    assert_eq!(
        edge.breaker().view().window,
        crate::kit::breaker::Counts {
            calls: 1,
            failures: 1
        }
    );
}

#[tokio::test]
async fn an_unknown_first_try_stays_unknown_when_later_tries_are_refused() {
    let (_callee, url) = Callee::start(ok).await;
    let edge = edge(&url, |policy| {
        policy.timeout_ms = 20;
        policy.breaker.trip = crate::kit::breaker::Trip::Consecutive { failures: 1 };
    });
    let error = send(&edge, EdgeRequest::post("/hang").key("k1"))
        .await
        .unwrap_err();
    assert!(error.unknown);
    assert_eq!(error.failure, Failure::TimedOut);
}

#[tokio::test]
async fn no_further_try_without_its_time() {
    let (callee, url) = Callee::start(fails).await;
    let edge = edge(&url, |policy| policy.retry_needs_ms = 60_000);
    let context = Context::background().within(Duration::from_secs(30));
    let error = edge
        .send(&context, EdgeRequest::get("/"))
        .await
        .unwrap_err();
    assert_eq!((error.tries, callee.seen()), (1, 1));
}

#[tokio::test]
async fn a_passed_deadline_sends_nothing() {
    let (callee, url) = Callee::start(ok).await;
    let edge = edge(&url, |_| {});
    let late = Context::background().within(Duration::ZERO);
    let error = edge.send(&late, EdgeRequest::get("/")).await.unwrap_err();
    assert_eq!(
        (error.failure, error.tries, callee.seen()),
        (Failure::Deadline, 0, 0)
    );
}

#[tokio::test]
async fn nobody_listening_is_known_to_have_done_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = send(&edge(&url, |_| {}), EdgeRequest::post("/").key("k"))
        .await
        .unwrap_err();
    assert_eq!((error.failure, error.unknown), (Failure::Connect, false));
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let (callee, url) = Callee::start(fails).await;
    let edge = edge(&url, |policy| policy.breaker.trip = never());
    for _ in 0..200 {
        send(&edge, EdgeRequest::get("/")).await.unwrap_err();
    }
    // A fifth of 200, and the reserve of ten that every edge has.
    assert!(callee.seen() <= 200 + 40 + 10, "{}", callee.seen());
    assert!(callee.seen() > 200, "there were retries at all");
}

fn never() -> crate::kit::breaker::Trip {
    crate::kit::breaker::Trip::Consecutive { failures: u32::MAX }
}

#[tokio::test]
async fn a_full_bulkhead_refuses_at_once_and_counts_as_nothing() {
    let (_callee, url) = Callee::start(ok).await;
    let edge = edge(&url, |policy| policy.bulkhead = 0);
    let error = send(&edge, EdgeRequest::get("/")).await.unwrap_err();
    assert_eq!((error.failure, error.tries), (Failure::BulkheadFull, 0));
    assert_eq!(edge.breaker().view().window.calls, 0);
}

/// The first answer; every other one is 200.
fn first(nth: usize, status: StatusCode, retry_after: Option<&'static str>) -> Response {
    match (nth, retry_after) {
        (0, Some(seconds)) => (status, [(RETRY_AFTER, seconds)]).into_response(),
        (0, None) => status.into_response(),
        _ => ok(nth),
    }
}

#[tokio::test]
async fn a_refusal_is_tried_again_only_when_the_callee_invites() {
    type Answers = fn(usize) -> Response;
    const BUSY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    const MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;
    let cases: [(Answers, u16, usize); 5] = [
        (|nth| first(nth, BUSY, Some("0")), 200, 2),
        (|nth| first(nth, BUSY, None), 503, 1),
        // Longer than one request may wait.
        (|nth| first(nth, BUSY, Some("3")), 503, 1),
        (|nth| first(nth, MANY, Some("0")), 200, 2),
        (|nth| first(nth, MANY, None), 429, 1),
    ];
    for (case, (answer, status, seen)) in cases.into_iter().enumerate() {
        let (callee, url) = Callee::start(answer).await;
        let told = match send(&edge(&url, |_| {}), EdgeRequest::get("/")).await {
            Ok(reply) => reply.status,
            Err(EdgeError {
                failure: Failure::Status(status),
                ..
            }) => status,
            Err(error) => panic!("{case}: {error}"),
        };
        assert_eq!((told.as_u16(), callee.seen()), (status, seen), "{case}");
    }
}

#[tokio::test]
async fn an_invitation_that_leaves_no_time_for_another_try_is_declined() {
    let (callee, url) =
        Callee::start(|nth| first(nth, StatusCode::SERVICE_UNAVAILABLE, Some("2"))).await;
    // Enough without the pause.
    let edge = edge(&url, |policy| policy.retry_needs_ms = 29_000);
    let context = Context::background().within(Duration::from_secs(30));
    let error = edge
        .send(&context, EdgeRequest::get("/"))
        .await
        .unwrap_err();
    assert_eq!((error.tries, callee.seen()), (1, 1));
    assert_eq!(edge.view()["counters"]["retries"], 0);
}

#[test]
fn pauses_grow_and_are_drawn_anew_each_time() {
    let edge = edge("http://127.0.0.1:1", |policy| {
        policy.tries = 4;
        (policy.backoff_min_ms, policy.backoff_max_ms) = (10, 100);
    });
    let drawn: Vec<Vec<u128>> = (0..200)
        .map(|_| edge.pauses().map(|pause| pause.as_millis()).collect())
        .collect();
    // Four times the floor, then twice as much, then the cap.
    for (nth, ceiling) in [40, 80, 100].into_iter().enumerate() {
        let mut pauses = drawn.iter().map(|pauses| pauses[nth]);
        assert!(pauses.clone().all(|pause| (10..=ceiling).contains(&pause)));
        assert!(pauses.clone().any(|pause| pause < ceiling / 2));
        assert!(pauses.any(|pause| pause > ceiling * 3 / 4));
    }
    assert!(drawn.iter().all(|pauses| pauses.len() == 3));
}
