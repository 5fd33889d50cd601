//! The host against a worker that misbehaves, spoken by hand.

use serde::Serialize;
use serde_json::{Value, json};

use super::*;
use crate::load::testing;

/// Bounds how long a failing test takes; no claim about speed.
const DEADLINE: Duration = Duration::from_secs(30);

async fn host() -> LoadHost {
    LoadHost::start(testing::assignment("http://127.0.0.1:1"))
        .await
        .unwrap()
}

/// Says something to the host; the status and the body of its answer.
async fn say(host: &LoadHost, token: &str, path: &str, message: &impl Serialize) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client
        .post(format!("{}{path}", host.url()))
        .bearer_auth(token)
        .json(message);
    let answer = request.timeout(DEADLINE).send().await.unwrap();
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or_default(),
    )
}

async fn next(host: &mut LoadHost) -> Option<LoadMessage> {
    tokio::time::timeout(DEADLINE, host.next())
        .await
        .expect("no message in time")
}

fn batch(seq: u64) -> LoadBatch {
    LoadBatch {
        seq,
        ..LoadBatch::default()
    }
}

fn failed() -> Failed {
    Failed {
        why: "no file descriptors".into(),
    }
}

const READY: Ready = Ready {
    users: 4,
    connected: 4,
};

#[tokio::test]
async fn who_does_not_show_the_token_is_not_heard() {
    let host = host().await;
    for token in ["", "wrong", &host.token()[1..]] {
        let (status, answer) = say(&host, token, "/ready", &READY).await;
        assert_eq!((status, answer), (401, Value::Null), "{token:?}");
    }
    assert_eq!(*host.shared.stage.borrow(), Stage::Starting);
    assert_eq!(host.shared.silent_for(), Duration::ZERO);
    let (status, _) = say(&host, host.token(), "/ready", &READY).await;
    assert_eq!((status, host.wait_ready(DEADLINE).await), (200, Ok(READY)));
}

#[tokio::test]
async fn a_batch_that_comes_twice_counts_once_and_a_gap_is_refused() {
    let mut host = host().await;
    let token = host.token().to_owned();
    for _ in 0..2 {
        let answer = say(&host, &token, "/batch", &batch(1)).await;
        assert_eq!(answer, (200, json!({"seq": 1})));
    }
    assert_eq!(say(&host, &token, "/batch", &batch(3)).await.0, 409);
    assert_eq!(
        say(&host, &token, "/batch", &batch(2)).await,
        (200, json!({"seq": 2}))
    );
    for seq in [1, 2] {
        assert_eq!(next(&mut host).await, Some(LoadMessage::Batch(batch(seq))));
    }
    assert!(host.messages.try_recv().is_err());
}

#[tokio::test]
async fn nothing_follows_the_end_even_when_it_comes_twice() {
    let mut host = host().await;
    let token = host.token().to_owned();
    let finished = Finished {
        summary: Default::default(),
        phases: Vec::new(),
    };
    for _ in 0..2 {
        assert_eq!(say(&host, &token, "/finished", &finished).await.0, 200);
    }
    assert_eq!(next(&mut host).await, Some(LoadMessage::Finished(finished)));
    assert_eq!(next(&mut host).await, None);
}

#[tokio::test]
async fn a_silent_worker_is_lost_once_it_was_heard() {
    let assignment = testing::assignment("http://127.0.0.1:1");
    let mut host = LoadHost::with_silence(assignment, Duration::from_millis(300))
        .await
        .unwrap();
    let token = host.token().to_owned();
    assert_eq!(say(&host, &token, "/batch", &batch(1)).await.0, 200);
    assert_eq!(next(&mut host).await, Some(LoadMessage::Batch(batch(1))));
    let lost = LoadMessage::Lost("the load worker was silent for 300ms".into());
    assert_eq!(next(&mut host).await, Some(lost));
    assert_eq!(next(&mut host).await, None);
}

#[tokio::test]
async fn a_failure_is_a_start_that_failed_or_a_worker_that_was_lost() {
    let mut host = host().await;
    let token = host.token().to_owned();
    say(&host, &token, "/failed", &failed()).await;
    assert_eq!(
        host.wait_ready(DEADLINE).await,
        Err(NotReady::Failed(failed().why))
    );

    say(&host, &token, "/ready", &READY).await;
    say(&host, &token, "/failed", &failed()).await;
    assert_eq!(next(&mut host).await, Some(LoadMessage::Lost(failed().why)));
}

#[tokio::test]
async fn a_worker_that_never_dials_is_not_waited_for_for_ever() {
    let within = Duration::from_millis(50);
    assert_eq!(
        host().await.wait_ready(within).await,
        Err(NotReady::TimedOut(within))
    );
}
