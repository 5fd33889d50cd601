//! What any bus must do, asked of a `busd` that really runs.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::kit::bus::{Bus, BusClient, BusError, Confirmation, Delivery, Depth};
use crate::kit::clock::Clock;
use crate::kit::config::{Config, Defects, Profile};
use crate::kit::context::Context;
use crate::kit::edge::{Attempts, Edge, EdgePolicy};
use crate::kit::event::Event;
use crate::testing::{Running, eventually};

async fn start(dir: &Path) -> Running {
    let topology = "stars=order.*;pays=payment.#;both=order.placed,payment.*";
    Running::start("bus", dir, &[("BUS_TOPOLOGY", topology)]).await
}

/// A consumer in a new incarnation.
fn client(bus: &Running) -> Arc<dyn Bus> {
    let environment = [("PORT_HTTP".to_owned(), "0".to_owned())].into();
    let config = Config::from_environment("tester", &environment).unwrap();
    let policy = EdgePolicy::bus(Profile::Fast);
    let url = bus.url.clone();
    let edge = Edge::new(
        "t",
        "bus",
        url,
        policy,
        Clock::system(),
        &Defects::default(),
        Attempts::default(),
    )
    .unwrap();
    Arc::new(BusClient::new(edge, &config))
}

fn event(kind: &str) -> Event {
    Event::new(kind, "a1", 1, &Context::background(), json!({}))
}

async fn publish(bus: &Arc<dyn Bus>, kinds: &[&str]) -> Vec<Confirmation> {
    let events: Vec<Event> = kinds.iter().map(|kind| event(kind)).collect();
    bus.publish(&events).await.unwrap()
}

fn keys(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries
        .iter()
        .map(|delivery| delivery.routing_key.as_str())
        .collect()
}

fn tags(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| delivery.tag.clone())
        .collect()
}

#[tokio::test]
async fn each_queue_gets_what_it_wants_in_order_and_the_unwanted_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let busd = start(dir.path()).await;
    let bus = client(&busd);
    let kinds = [
        "order.placed",
        "payment.completed",
        "product.created",
        "order.confirmed",
    ];
    let (yes, no) = (Confirmation::Confirmed, Confirmation::Unroutable);
    assert_eq!(
        publish(&bus, &kinds).await,
        [yes.clone(), yes.clone(), no, yes]
    );
    let stars = bus.fetch("stars", 10).await.unwrap();
    assert_eq!(keys(&stars), ["order.placed", "order.confirmed"]);
    let both = bus.fetch("both", 10).await.unwrap();
    assert_eq!(keys(&both), ["order.placed", "payment.completed"]);
}

#[tokio::test]
async fn what_was_confirmed_survives_a_death_of_the_bus() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path()).await;
    let bus = client(&first);
    publish(&bus, &["order.placed", "order.confirmed"]).await;
    let held = bus.fetch("stars", 1).await.unwrap();
    assert_eq!(held[0].deliveries, 1);
    first.kill();
    let second = start(dir.path()).await;
    let bus = client(&second);
    let again = bus.fetch("stars", 10).await.unwrap();
    assert_eq!(keys(&again), ["order.placed", "order.confirmed"]);
    assert_eq!([again[0].deliveries, again[1].deliveries], [2, 1]);
}

#[tokio::test]
async fn a_consumer_holds_no_more_than_its_prefetch() {
    let dir = tempfile::tempdir().unwrap();
    let busd = start(dir.path()).await;
    let bus = client(&busd);
    publish(&bus, &["order.a", "order.b", "order.c"]).await;
    let held = bus.fetch("stars", 2).await.unwrap();
    assert_eq!(keys(&held), ["order.a", "order.b"]);
    assert_eq!(bus.fetch("stars", 2).await.unwrap().len(), 0);
    bus.ack("stars", &tags(&held[..1])).await.unwrap();
    assert_eq!(keys(&bus.fetch("stars", 2).await.unwrap()), ["order.c"]);
}

#[tokio::test]
async fn a_new_incarnation_gets_what_the_old_one_held_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let busd = start(dir.path()).await;
    let (old, new) = (client(&busd), client(&busd));
    publish(&old, &["order.placed"]).await;
    let held = old.fetch("stars", 5).await.unwrap();
    let again = new.fetch("stars", 5).await.unwrap();
    assert_eq!(again[0].deliveries, 2);
    assert!(
        old.ack("stars", &tags(&held[..1])).await.is_err(),
        "the old tag is worth nothing"
    );
    new.ack("stars", &tags(&again[..1])).await.unwrap();
    assert_eq!(new.depth("stars").await.unwrap(), Depth::default());
}

#[tokio::test]
async fn a_nacked_message_waits_and_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let busd = start(dir.path()).await;
    let bus = client(&busd);
    publish(&bus, &["order.placed"]).await;
    let held = bus.fetch("stars", 5).await.unwrap();
    bus.nack("stars", &held[0].tag, 600_000).await.unwrap();
    assert_eq!(
        bus.depth("stars").await.unwrap(),
        Depth {
            delayed: 1,
            ..Depth::default()
        }
    );
    assert_eq!(bus.fetch("stars", 5).await.unwrap().len(), 0);
    publish(&bus, &["order.confirmed"]).await;
    let other = bus.fetch("stars", 5).await.unwrap();
    bus.nack("stars", &other[0].tag, 50).await.unwrap();
    let mut again = Vec::new();
    eventually("it comes again", async || {
        again = bus.fetch("stars", 5).await.unwrap();
        !again.is_empty()
    })
    .await;
    assert_eq!(
        (again[0].routing_key.as_str(), again[0].deliveries),
        ("order.confirmed", 2)
    );
}

#[tokio::test]
async fn a_dead_letter_keeps_its_reason_until_it_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let busd = start(dir.path()).await;
    let bus = client(&busd);
    publish(&bus, &["order.placed"]).await;
    let held = bus.fetch("stars", 5).await.unwrap();
    bus.dead("stars", &held[0].tag, "poison: no such thing")
        .await
        .unwrap();
    let letters = bus.dead_letters("stars", 0, 10).await.unwrap();
    assert_eq!(letters[0].reason, "poison: no such thing");
    assert_eq!(
        bus.dead_letters("stars", letters[0].seq, 10)
            .await
            .unwrap()
            .len(),
        0
    );
    assert_eq!(busd.get("/stats").await.1["dead"], 1);
    assert_eq!(bus.replay("stars").await.unwrap(), 1);
    assert_eq!(bus.replay("stars").await.unwrap(), 0);
    assert_eq!(
        keys(&bus.fetch("stars", 5).await.unwrap()),
        ["order.placed"]
    );
}

#[tokio::test]
async fn a_publish_is_repeatable_while_the_queue_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let busd = start(dir.path()).await;
    let bus = client(&busd);
    let events = [event("order.placed")];
    bus.publish(&events).await.unwrap();
    bus.publish(&events).await.unwrap();
    assert_eq!(bus.depth("stars").await.unwrap().ready, 1);
}

#[tokio::test]
async fn a_queue_may_be_declared_later_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let busd = start(dir.path()).await;
    let bus = client(&busd);
    assert!(bus.fetch("late", 1).await.is_err());
    bus.declare("late", &["product.#"]).await.unwrap();
    bus.declare("late", &["product.#"]).await.unwrap();
    assert_eq!(
        publish(&bus, &["product.created"]).await,
        [Confirmation::Confirmed]
    );
    assert_eq!(bus.depth("late").await.unwrap().ready, 1);
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_a_publish() {
    let dir = tempfile::tempdir().unwrap();
    let busd = start(dir.path()).await;
    let bus = client(&busd);
    let (fetched, _) = tokio::join!(bus.fetch("stars", 5), publish(&bus, &["order.placed"]));
    assert_eq!(fetched.unwrap().len(), 1);
}

#[tokio::test]
async fn a_publication_that_is_too_large_is_refused_and_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bus = start(dir.path()).await;
    let tester = client(&bus);
    let large = |kib: usize| {
        let data = json!({ "sku": "x".repeat(kib << 10) });
        Event::new("order.placed", "a1", 1, &Context::background(), data)
    };
    // By one event, and by many that would do alone.
    for events in [vec![large(1_100)], vec![large(300); 4]] {
        let refused = tester.publish(&events).await;
        assert!(matches!(refused, Err(BusError::Refused(_))), "{refused:?}");
    }
    assert_eq!(tester.depth("stars").await.unwrap(), Depth::default());
}
