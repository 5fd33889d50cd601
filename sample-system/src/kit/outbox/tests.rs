use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::kit::context::Context;
use crate::kit::fake_bus::FakeBus;

async fn store(dir: &TempDir) -> Store {
    let url = format!("sqlite://{}", dir.path().join("outbox.db").display());
    Store::open(&url, &[]).await.unwrap()
}

/// Stores one event per (type, aggregate) in one transaction; answers their ids.
async fn fill(store: &Store, events: &[(&str, &str)]) -> Vec<String> {
    let mut tx = store.begin().await.unwrap();
    let mut ids = Vec::new();
    for (kind, aggregate) in events {
        let event = Event::new(kind, aggregate, 1, &Context::background(), json!({}));
        put(&mut tx, &event).await.unwrap();
        ids.push(event.id);
    }
    tx.commit().await.unwrap();
    ids
}

fn relay(store: &Store, bus: &Arc<FakeBus>, killpoint: &str) -> Relay {
    let killpoints = KillPoints::parse(killpoint).unwrap();
    Relay::new(store.clone(), Arc::clone(bus) as Arc<dyn Bus>, killpoints)
}

async fn unsent(store: &Store) -> i64 {
    backlog(store).await.unwrap()["unsent"].as_i64().unwrap()
}

#[tokio::test]
async fn events_go_out_in_order_and_once() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    let bus = Arc::new(FakeBus::default());
    let ids = fill(&store, &[("a.a", "1"), ("a.b", "2"), ("a.c", "1")]).await;
    let relay = relay(&store, &bus, "");
    assert_eq!(relay.round().await.unwrap(), Round::Sent);
    assert_eq!(relay.round().await.unwrap(), Round::Idle);
    assert_eq!(*bus.published.lock().unwrap(), ids);
    assert_eq!(unsent(&store).await, 0);
}

#[tokio::test]
async fn an_event_of_a_dropped_transaction_does_not_exist() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    let mut tx = store.begin().await.unwrap();
    let event = Event::new("a.a", "1", 1, &Context::background(), json!({}));
    put(&mut tx, &event).await.unwrap();
    drop(tx);
    assert_eq!(unsent(&store).await, 0);
}

#[tokio::test]
async fn a_bus_that_is_down_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    let bus = Arc::new(FakeBus::default());
    let ids = fill(&store, &[("a.a", "1"), ("a.b", "1")]).await;
    *bus.down.lock().unwrap() = true;
    let relay = relay(&store, &bus, "");
    assert_eq!(relay.round().await.unwrap(), Round::Stuck);
    assert_eq!(unsent(&store).await, 2);
    *bus.down.lock().unwrap() = false;
    assert_eq!(relay.round().await.unwrap(), Round::Sent);
    assert_eq!(*bus.published.lock().unwrap(), ids);
}

#[tokio::test]
async fn a_death_between_publish_and_mark_publishes_again() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    let bus = Arc::new(FakeBus::default());
    let ids = fill(&store, &[("a.a", "1")]).await;
    let dying = relay(&store, &bus, "outbox.after_publish_before_mark:1:fail");
    assert!(matches!(dying.round().await, Err(StoreError::Killed(_))));
    let next = relay(&store, &bus, "");
    next.forget_claims().await.unwrap();
    assert_eq!(next.round().await.unwrap(), Round::Sent);
    assert_eq!(
        *bus.published.lock().unwrap(),
        [ids[0].clone(), ids[0].clone()]
    );
}

#[tokio::test]
async fn a_refused_event_holds_back_its_own_aggregate_only() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    let bus = Arc::new(FakeBus::default());
    *bus.unwanted.lock().unwrap() = Some("a.odd".to_owned());
    fill(&store, &[("a.odd", "1"), ("a.b", "1"), ("a.c", "2")]).await;
    assert_eq!(relay(&store, &bus, "").round().await.unwrap(), Round::Stuck);
    assert_eq!(unsent(&store).await, 2);
}

#[tokio::test]
async fn an_event_that_the_bus_never_takes_stops_its_own_aggregate_only() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    let bus = Arc::new(FakeBus::default());
    *bus.refused.lock().unwrap() = Some("a.huge".to_owned());
    let before = [("a.a", "1"), ("a.b", "2"), ("a.huge", "1"), ("a.c", "1")];
    let mut ids = fill(&store, &before).await;
    ids.truncate(2);
    let relay = relay(&store, &bus, "");
    assert_eq!(relay.round().await.unwrap(), Round::Stuck);
    assert_eq!(*bus.published.lock().unwrap(), ids);
    // While it rests, others pass it in batches.
    ids.push(fill(&store, &[("a.d", "1"), ("a.d", "2")]).await.remove(1));
    assert_eq!(relay.round().await.unwrap(), Round::Sent);
    assert_eq!(*bus.published.lock().unwrap(), ids);
    assert_eq!(unsent(&store).await, 3);
    // Once the bus takes it, what waited follows in order.
    *bus.refused.lock().unwrap() = None;
    relay.forget_claims().await.unwrap();
    assert_eq!(relay.round().await.unwrap(), Round::Sent);
    assert_eq!(unsent(&store).await, 0);
}

#[tokio::test]
async fn what_another_holds_is_left_alone_with_all_that_follows_it() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    let bus = Arc::new(FakeBus::default());
    fill(&store, &[("a.a", "1")]).await;
    let holder = relay(&store, &bus, "");
    assert_eq!(holder.claim().await.unwrap().len(), 1);
    fill(&store, &[("a.b", "1"), ("a.c", "2")]).await;
    let claimed = relay(&store, &bus, "").claim().await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].event.kind, "a.c");
}

#[tokio::test]
async fn a_stopped_relay_sends_what_is_left() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    let bus = Arc::new(FakeBus::default());
    fill(&store, &[("a.a", "1")]).await;
    let stop = Stop::by_hand();
    stop.ask();
    relay(&store, &bus, "").run(stop).await;
    assert_eq!(unsent(&store).await, 0);
}
