use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::kit::context::Context;
use crate::testing::{Running, eventually};

#[test]
fn an_order_that_ends_is_told_on_two_channels() {
    let event = Event::new(
        "order.confirmed",
        "o1",
        4,
        &Context::background(),
        json!({}),
    );
    let channels: Vec<_> = render(&event)
        .into_iter()
        .map(|(channel, _)| channel)
        .collect();
    assert_eq!(channels, ["email", "push"]);
}

#[test]
fn an_unknown_type_says_nothing() {
    let event = Event::new(
        "order.teleported",
        "o1",
        4,
        &Context::background(),
        json!({}),
    );
    assert!(render(&event).is_empty());
}

fn event(kind: &str) -> Event {
    Event::new(
        kind,
        "o1",
        1,
        &Context::background(),
        json!({ "user_id": "u1" }),
    )
}

async fn publish(bus: &Running, key: &str, body: String) {
    let event = json!({ "event_id": key, "routing_key": key, "body": body });
    let (status, _) = bus.post("/publish", "", json!({ "events": [event] })).await;
    assert_eq!(status, 200);
}

async fn start(dir: &Path, bus: &Running, more: &[(&str, &str)]) -> Running {
    let mut environment = vec![("BUS_URL", bus.url.as_str())];
    environment.extend_from_slice(more);
    Running::start("notifications", dir, &environment).await
}

async fn ledger(notifications: &Running) -> Vec<Value> {
    let (_, body) = notifications.get("/internal/ledger").await;
    body["rows"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn an_event_published_while_nobody_listened_is_told_once_also_over_a_death() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Running::start("bus", dir.path(), &[]).await;
    publish(
        &bus,
        "order.placed",
        serde_json::to_string(&event("order.placed")).unwrap(),
    )
    .await;
    let point = [("SHOP_KILLPOINT", "consumer.after_commit_before_ack:1:sleep")];
    let dying = start(dir.path(), &bus, &point).await;
    eventually("it is told", async || ledger(&dying).await.len() == 1).await;
    assert_eq!(bus.get("/stats").await.1["unacked"], 1);
    dying.kill();
    let next = start(dir.path(), &bus, &[]).await;
    eventually("the bus is empty", async || {
        let (_, stats) = bus.get("/stats").await;
        (&stats["ready"], &stats["delayed"], &stats["unacked"]) == (&json!(0), &json!(0), &json!(0))
    })
    .await;
    let rows = ledger(&next).await;
    assert_eq!(
        (&rows[0]["effects"], &rows[0]["deliveries"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        next.get("/internal/messages").await.1["rows"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert!(next.stop().await.is_ok());
}

#[tokio::test]
async fn poison_is_kept_with_its_reason_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Running::start("bus", dir.path(), &[]).await;
    publish(&bus, "order.odd", "not an event".to_owned()).await;
    publish(
        &bus,
        "order.placed",
        serde_json::to_string(&event("order.placed")).unwrap(),
    )
    .await;
    let notifications = start(dir.path(), &bus, &[]).await;
    eventually("the good one is told", async || {
        ledger(&notifications).await.len() == 1
    })
    .await;
    let mut letters = Value::Null;
    eventually("the bad one is dead", async || {
        letters = notifications.get("/internal/dlq").await.1;
        letters["rows"]
            .as_array()
            .is_some_and(|rows| rows.len() == 1)
    })
    .await;
    let reason = letters["rows"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("undecodable"), "{reason}");
    let (_, replayed) = notifications
        .post("/internal/dlq/replay", "", json!({}))
        .await;
    assert_eq!(replayed["replayed"], 1);
}

#[tokio::test]
async fn ready_follows_the_bus_and_live_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Running::start("bus", dir.path(), &[]).await;
    let notifications = start(dir.path(), &bus, &[]).await;
    eventually("it is ready", async || {
        notifications.get("/health/ready").await.0 == 200
    })
    .await;
    bus.kill();
    eventually("it is not", async || {
        notifications.get("/health/ready").await.0 == 503
    })
    .await;
    assert_eq!(notifications.get("/health/live").await.0, 200);
}

#[tokio::test]
async fn evidence_asks_for_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Running::start("bus", dir.path(), &[]).await;
    let notifications = start(dir.path(), &bus, &[]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["/internal/ledger", "/internal/info", "/internal/messages"] {
        let url = format!("{}{path}", notifications.url);
        let bare = client.get(&url).send().await.unwrap();
        assert_eq!(bare.status(), 401, "{path}");
        let wrong = client
            .get(&url)
            .header("x-token", "test-tokem")
            .send()
            .await
            .unwrap();
        assert_eq!(wrong.status(), 401, "{path}");
        assert_eq!(notifications.get(path).await.0, 200, "{path}");
    }
}
