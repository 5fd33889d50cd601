use super::*;
use proptest::prelude::*;

async fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/inventory.db", dir.path().display());
    (dir, Store::open(&url, TABLES).await.unwrap())
}

fn rare(quantity: i64) -> Vec<Line> {
    vec![Line {
        sku: "RARE".into(),
        quantity,
    }]
}

async fn available(store: &Store, sku: &str) -> i64 {
    let select = sql("SELECT available FROM stock WHERE sku = $1").bind(sku);
    store
        .row(select)
        .await
        .unwrap()
        .unwrap()
        .try_get("available")
        .unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Ask {
    Reserve,
    Release,
    Commit,
}

async fn ask(store: &Store, order: &str, ask: Ask, quantity: i64) -> Outcome {
    let (mut tx, context) = (store.begin().await.unwrap(), Context::background());
    let outcome = match ask {
        Ask::Reserve => reserve(&mut tx, order, &rare(quantity), &context).await,
        Ask::Release => release(&mut tx, order, &context).await,
        Ask::Commit => commit(&mut tx, order, &context).await,
    };
    tx.commit().await.unwrap();
    outcome.unwrap()
}

#[tokio::test]
async fn a_repeated_reserve_holds_once() {
    let (_dir, store) = store().await;
    for _ in 0..2 {
        assert_eq!(
            ask(&store, "o1", Ask::Reserve, 2).await,
            Outcome::Done(State::Held)
        );
    }
    assert_eq!(available(&store, "RARE").await, 1);
    assert_eq!(
        ask(&store, "o1", Ask::Reserve, 1).await,
        Outcome::OtherItems
    );
}

#[tokio::test]
async fn a_release_before_its_reserve_refuses_the_late_reserve() {
    let (_dir, store) = store().await;
    assert_eq!(
        ask(&store, "o1", Ask::Release, 0).await,
        Outcome::Done(State::Tombstone)
    );
    assert_eq!(
        ask(&store, "o1", Ask::Reserve, 1).await,
        Outcome::Conflict(State::Tombstone)
    );
    assert_eq!(available(&store, "RARE").await, 3);
}

#[tokio::test]
async fn short_stock_holds_nothing_of_any_line() {
    let (_dir, store) = store().await;
    let items = vec![
        Line {
            sku: "A1".into(),
            quantity: 1,
        },
        Line {
            sku: "RARE".into(),
            quantity: 2,
        },
        Line {
            sku: "RARE".into(),
            quantity: 2,
        },
    ];
    let mut tx = store.begin().await.unwrap();
    let outcome = reserve(&mut tx, "o1", &items, &Context::background())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(outcome, Outcome::Short("RARE".into()));
    assert_eq!(
        (
            available(&store, "A1").await,
            available(&store, "RARE").await
        ),
        (1_000_000, 3)
    );
}

#[tokio::test]
async fn an_earlier_try_that_arrives_after_a_refusal_holds_nothing() {
    let (_dir, store) = store().await;
    let refused = Outcome::Short("RARE".into());
    assert_eq!(ask(&store, "o1", Ask::Reserve, 4).await, refused);
    let mut tx = store.begin().await.unwrap();
    intake(&mut tx, "truck-1", &rare(1)[0]).await.unwrap();
    tx.commit().await.unwrap();
    let refused = Outcome::Conflict(State::Tombstone);
    assert_eq!(ask(&store, "o1", Ask::Reserve, 4).await, refused);
    assert_eq!(available(&store, "RARE").await, 4);
}

#[tokio::test]
async fn an_intake_counts_once() {
    let (_dir, store) = store().await;
    for expected in [Intake::New, Intake::Known] {
        let mut tx = store.begin().await.unwrap();
        let line = Line {
            sku: "RARE".into(),
            quantity: 7,
        };
        let intake = intake(&mut tx, "truck-1", &line).await.unwrap();
        assert_eq!(intake, expected);
        tx.commit().await.unwrap();
    }
    assert_eq!(available(&store, "RARE").await, 10);
}

fn any_ask() -> impl Strategy<Value = (usize, Ask)> {
    let ask = prop_oneof![Just(Ask::Reserve), Just(Ask::Release), Just(Ask::Commit)];
    (0..4_usize, ask)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_is_asked_in_whatever_order_stock_adds_up(
        asks in proptest::collection::vec(any_ask(), 1..30)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_dir, store) = store().await;
            for (order, what) in asks {
                ask(&store, &format!("o{order}"), what, 1).await;
            }
            let report = report(&store).await.unwrap();
            let rare = &report["stock"].as_array().unwrap()[5];
            let n = |name: &str| rare[name].as_i64().unwrap();
            assert_eq!(n("available") + n("reserved") + n("sold"), 3);
            assert_eq!(report["reservations"]["HELD"], n("reserved"));
            assert_eq!(report["reservations"]["COMMITTED"], n("sold"));
        });
    }
}
