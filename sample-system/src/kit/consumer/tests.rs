use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::kit::context::Context;
use crate::kit::fake_bus::{FakeBus, Said};
use crate::kit::store::RowExt;
use crate::testing::eventually;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS effects (event_id TEXT NOT NULL)";

/// Writes one row per event, and fails so often before it succeeds.
struct Effect {
    failures: AtomicU32,
}

impl Handler for Effect {
    fn handle<'a>(
        &'a self,
        tx: &'a mut Tx,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move {
            let insert = sql("INSERT INTO effects (event_id) VALUES ($1)").bind(&event.id);
            tx.execute(insert).await?;
            if event.kind == "a.unfit" {
                let insert = sql("INSERT INTO effects (event_id) VALUES (NULL)");
                tx.execute(insert).await?;
            }
            if event.kind == "a.poison" {
                return Err(HandleError::Poison("cannot be".to_owned()));
            }
            let left = self.failures.load(Ordering::SeqCst);
            if left > 0 {
                self.failures.store(left - 1, Ordering::SeqCst);
                return Err(HandleError::Transient("not now".to_owned()));
            }
            Ok(())
        })
    }
}

struct Bench {
    store: Store,
    bus: Arc<FakeBus>,
    _dir: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let url = format!("sqlite://{}", dir.path().join("consumer.db").display());
        let store = Store::open(&url, &[TABLE]).await.unwrap();
        Self {
            store,
            bus: Arc::default(),
            _dir: dir,
        }
    }

    fn consumer(&self, failures: u32, killpoint: &str) -> Consumer {
        Consumer::new(
            ConsumerSpec {
                queue: "tests",
                prefetch: 8,
            },
            self.store.clone(),
            Arc::clone(&self.bus) as Arc<dyn Bus>,
            Arc::new(Effect {
                failures: AtomicU32::new(failures),
            }),
            KillPoints::parse(killpoint).unwrap(),
            "this-run".to_owned(),
        )
    }

    /// Hands one delivery to a consumer; what it says to the bus about it.
    async fn deliver(&self, consumer: &Consumer, event: &Event, nth: u32) -> Said {
        let body = serde_json::to_string(event).unwrap();
        consumer.take(vec![delivery(body, nth)]).await;
        self.bus.said.lock().unwrap().pop().unwrap()
    }

    async fn effects(&self) -> i64 {
        let row = self
            .store
            .row(sql("SELECT count(*) AS n FROM effects"))
            .await
            .unwrap();
        row.unwrap().try_get("n").unwrap()
    }

    /// Deliveries and effects of the ledger's one row.
    async fn ledger(&self) -> (i64, i64) {
        let row = self
            .store
            .row(sql("SELECT deliveries, effects FROM ledger"))
            .await
            .unwrap();
        let row = row.unwrap();
        (
            row.try_get("deliveries").unwrap(),
            row.try_get("effects").unwrap(),
        )
    }
}

fn delivery(body: String, deliveries: u32) -> Delivery {
    Delivery {
        tag: "t".to_owned(),
        routing_key: "a.a".to_owned(),
        body,
        deliveries,
    }
}

fn event(kind: &str) -> Event {
    Event::new(kind, "1", 1, &Context::background(), json!({}))
}

#[tokio::test]
async fn a_redelivered_event_has_one_effect_and_both_deliveries_are_counted() {
    let bench = Bench::new().await;
    let consumer = bench.consumer(0, "");
    let event = event("a.a");
    for nth in 1..=2 {
        assert_eq!(
            bench.deliver(&consumer, &event, nth).await,
            Said::Ack("t".to_owned())
        );
    }
    assert_eq!(bench.effects().await, 1);
    assert_eq!(bench.ledger().await, (2, 1));
}

#[tokio::test]
async fn a_death_between_commit_and_ack_has_one_effect() {
    let bench = Bench::new().await;
    let event = event("a.a");
    let dying = bench.consumer(0, "consumer.after_commit_before_ack:1:fail");
    bench.deliver(&dying, &event, 1).await;
    let next = bench.consumer(0, "");
    assert_eq!(
        bench.deliver(&next, &event, 2).await,
        Said::Ack("t".to_owned())
    );
    assert_eq!(bench.effects().await, 1);
}

#[tokio::test]
async fn a_transient_failure_leaves_no_trace_and_comes_again_later_each_time() {
    let bench = Bench::new().await;
    let consumer = bench.consumer(4, "");
    let event = event("a.a");
    for (nth, delay_ms) in [(1, 200), (2, 1_000), (3, 5_000), (4, 5_000)] {
        let said = bench.deliver(&consumer, &event, nth).await;
        assert_eq!(said, Said::Nack("t".to_owned(), delay_ms));
        assert_eq!(bench.effects().await, 0);
    }
    assert_eq!(
        bench.deliver(&consumer, &event, 5).await,
        Said::Ack("t".to_owned())
    );
    assert_eq!(bench.effects().await, 1);
}

#[tokio::test]
async fn the_fifth_failure_is_the_last() {
    let bench = Bench::new().await;
    let said = bench
        .deliver(&bench.consumer(9, ""), &event("a.a"), 5)
        .await;
    let Said::Dead(_, reason) = said else {
        panic!("{said:?}")
    };
    assert_eq!(reason, "failed 5 times: not now");
}

#[tokio::test]
async fn an_outage_of_the_own_database_kills_no_event() {
    let bench = Bench::new().await;
    let consumer = bench.consumer(0, "");
    let held = bench.store.begin().await.unwrap();
    let said = bench.deliver(&consumer, &event("a.a"), 50).await;
    assert_eq!(said, Said::Nack("t".to_owned(), 5_000));
    drop(held);
    assert_eq!(
        bench.deliver(&consumer, &event("a.b"), 51).await,
        Said::Ack("t".to_owned())
    );
}

#[tokio::test]
async fn a_sick_database_kills_no_event_and_a_broken_rule_does() {
    let bench = Bench::new().await;
    let consumer = bench.consumer(0, "");
    let said = bench.deliver(&consumer, &event("a.unfit"), 5).await;
    let Said::Dead(_, reason) = said else {
        panic!("{said:?}")
    };
    assert!(reason.contains("NOT NULL"), "{reason}");
    bench
        .store
        .execute(sql("DROP TABLE effects"))
        .await
        .unwrap();
    let said = bench.deliver(&consumer, &event("a.a"), 50).await;
    assert_eq!(said, Said::Nack("t".to_owned(), 5_000));
}

#[tokio::test]
async fn poison_dies_at_once_with_its_reason_and_without_effect() {
    let bench = Bench::new().await;
    let consumer = bench.consumer(0, "");
    let said = bench.deliver(&consumer, &event("a.poison"), 1).await;
    assert_eq!(
        said,
        Said::Dead("t".to_owned(), "poison: cannot be".to_owned())
    );
    consumer
        .take(vec![delivery("{\"no\":\"event\"}".to_owned(), 1)])
        .await;
    let said = bench.bus.said.lock().unwrap().pop().unwrap();
    let Said::Dead(_, reason) = said else {
        panic!("{said:?}")
    };
    assert!(reason.starts_with("undecodable"), "{reason}");
    assert_eq!(bench.effects().await, 0);
}

#[tokio::test]
async fn the_loop_fetches_until_it_is_stopped() {
    let bench = Bench::new().await;
    let body = serde_json::to_string(&event("a.a")).unwrap();
    bench
        .bus
        .waiting
        .lock()
        .unwrap()
        .push_back(delivery(body, 1));
    let stop = Stop::by_hand();
    let running = tokio::spawn(bench.consumer(0, "").run(stop.clone()));
    eventually("it is acknowledged", async || {
        !bench.bus.said.lock().unwrap().is_empty()
    })
    .await;
    stop.ask();
    running.await.unwrap();
}
