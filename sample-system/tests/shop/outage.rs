//! What happens while a service is away, and after it has come back.

use serde_json::json;

use crate::boot::{Shop, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_payments_an_order_is_accepted_and_finished_later() {
    let mut shop = Shop::open().await;
    let token = shop.login("load1").await;
    shop.stop("payments").await;
    let placed = shop
        .post(
            "/api/orders",
            &token,
            "k1",
            json!({ "sku": "A1", "quantity": 1 }),
        )
        .await;
    assert_eq!(
        (placed.status, placed.text("state").as_str()),
        (202, "PENDING"),
        "{placed:?}"
    );
    let id = placed.text("id");
    shop.start("payments");
    shop.sees(&token, &id, "CONFIRMED").await;
    shop.drained().await;
    assert_eq!(
        (shop.paid(&id).await, shop.stock("A1", "sold").await),
        (450, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_cannot_be_paid_in_time_is_cancelled_and_its_stock_released() {
    let mut shop = Shop::open_with(&[("SHOP_PAYMENT_DEADLINE_MS", "1500")]).await;
    let token = shop.login("load1").await;
    shop.stop("payments").await;
    let placed = shop
        .post(
            "/api/orders",
            &token,
            "k1",
            json!({ "sku": "A1", "quantity": 1 }),
        )
        .await;
    assert_eq!(placed.status, 202, "{placed:?}");
    let id = placed.text("id");
    shop.sees(&token, &id, "CANCELLED").await;
    assert_eq!(
        (
            shop.stock("A1", "reserved").await,
            shop.stock("A1", "sold").await
        ),
        (0, 0)
    );
    let steps = shop.steps(&id).await;
    assert!(
        !steps.iter().any(|step| step.starts_with("charge:undo")),
        "{steps:?}"
    );
    shop.start("payments");
    shop.ready("payments").await;
    shop.drained().await;
    assert_eq!(shop.paid(&id).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_resumes_under_a_new_epoch_what_it_was_stopped_in() {
    let mut shop = Shop::open().await;
    let token = shop.login("load1").await;
    shop.stop("payments").await;
    let placed = shop
        .post(
            "/api/orders",
            &token,
            "k1",
            json!({ "sku": "A1", "quantity": 1 }),
        )
        .await;
    assert_eq!(placed.status, 202, "{placed:?}");
    let id = placed.text("id");
    shop.stop("orders").await;
    shop.start("payments");
    shop.start("orders");
    shop.ready("orders").await;
    shop.sees(&token, &id, "CONFIRMED").await;
    let log = shop
        .internal("orders", &format!("/internal/sagas/{id}/log"))
        .await;
    let epochs: std::collections::BTreeSet<_> = log["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["epoch"].as_i64())
        .collect();
    assert!(epochs.len() >= 2, "{epochs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_can_cancel_until_the_order_is_confirmed() {
    let mut shop = Shop::open().await;
    let token = shop.login("load1").await;
    shop.stop("payments").await;
    let placed = shop
        .post(
            "/api/orders",
            &token,
            "k1",
            json!({ "sku": "A1", "quantity": 1 }),
        )
        .await;
    let id = placed.text("id");
    let path = format!("/api/orders/{id}/cancel");
    assert_eq!(shop.post(&path, &token, "", json!({})).await.status, 202);
    shop.start("payments");
    shop.sees(&token, &id, "CANCELLED").await;
    shop.drained().await;
    assert_eq!(
        (shop.paid(&id).await, shop.stock("A1", "reserved").await),
        (0, 0)
    );
    let done = shop
        .post(
            "/api/orders",
            &token,
            "k2",
            json!({ "sku": "A1", "quantity": 1 }),
        )
        .await;
    shop.sees(&token, &done.text("id"), "CONFIRMED").await;
    let path = format!("/api/orders/{}/cancel", done.text("id"));
    assert_eq!(shop.post(&path, &token, "", json!({})).await.status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_users_and_catalog_orders_go_on_with_what_was_known() {
    let mut shop = Shop::open().await;
    let token = shop.login("load1").await;
    let first = shop
        .post(
            "/api/orders",
            &token,
            "k1",
            json!({ "sku": "A1", "quantity": 1 }),
        )
        .await;
    assert_eq!(first.status, 201, "{first:?}");
    shop.drained().await;
    shop.stop("users").await;
    shop.stop("catalog").await;
    let second = shop
        .post(
            "/api/orders",
            &token,
            "k2",
            json!({ "sku": "A1", "quantity": 1 }),
        )
        .await;
    shop.sees(&token, &second.text("id"), "CONFIRMED").await;
    let path = format!("/internal/events/{}", second.text("id"));
    let events = shop.internal("orders", &path).await;
    assert!(events.to_string().contains("last-known"), "{events}");
}

/// Waits for an order of one `A1` to be confirmed: it was paid, held and sold once.
async fn sold_once(shop: &Shop, token: &str, id: &str) {
    shop.sees(token, id, "CONFIRMED").await;
    shop.drained().await;
    let stock = (
        shop.stock("A1", "sold").await,
        shop.stock("A1", "reserved").await,
    );
    assert_eq!((shop.paid(id).await, stock), (450, (1, 0)));
}

/// Places an order while `orders` fails at a kill point, starts it again and lets it finish.
async fn survives(killpoint: &str) {
    let mut shop = Shop::open_with(&[("SHOP_KILLPOINT", killpoint)]).await;
    let token = shop.login("load1").await;
    let wish = json!({ "sku": "A1", "quantity": 1 });
    let placed = shop.post("/api/orders", &token, "k1", wish.clone()).await;
    assert_ne!(
        placed.status, 201,
        "{killpoint} was not reached: {placed:?}"
    );
    shop.stop("orders").await;
    shop.start("orders");
    shop.ready("orders").await;
    // The client asks again with its key, as it should after no answer or a 202.
    let known = shop.post("/api/orders", &token, "k1", wish).await;
    let id = known.text("id");
    sold_once(&shop, &token, &id).await;
    let sagas = shop.internal("orders", "/internal/sagas").await;
    assert_eq!(
        sagas["sagas"].as_array().map(Vec::len),
        Some(1),
        "{killpoint}: placed once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_after_the_placement_loses_no_order() {
    survives("orders.after_place_commit:1:fail").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_before_a_call_repeats_it() {
    // The third start is the charge.
    survives("saga.after_start_log:3:fail").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_after_a_call_repeats_it_with_the_effect_of_once() {
    // The third call is the charge.
    survives("saga.after_call_before_ok:3:fail").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_before_the_pivot_confirms_once() {
    survives("saga.before_pivot:1:fail").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_in_an_undo_repeats_it() {
    let mut shop = Shop::open_with(&[("SHOP_KILLPOINT", "saga.mid_undo:1:fail")]).await;
    let token = shop.login("load1").await;
    let wish = json!({ "sku": "B2", "quantity": 1, "method": "card-declined" });
    let placed = shop.post("/api/orders", &token, "k1", wish.clone()).await;
    assert_ne!(placed.status, 402, "it was not reached: {placed:?}");
    shop.stop("orders").await;
    shop.start("orders");
    shop.ready("orders").await;
    let id = shop
        .post("/api/orders", &token, "k1", wish)
        .await
        .text("id");
    shop.sees(&token, &id, "REJECTED").await;
    shop.drained().await;
    assert_eq!(
        (shop.paid(&id).await, shop.stock("B2", "reserved").await),
        (0, 0)
    );
}

/// Places an order while a service answers 500 once, after it has committed.
async fn outlives(killpoint: &str) -> (Shop, String, String) {
    let shop = Shop::open_with(&[("SHOP_KILLPOINT", killpoint)]).await;
    let token = shop.login("load1").await;
    let wish = json!({ "sku": "A1", "quantity": 1 });
    let placed = shop.post("/api/orders", &token, "k1", wish).await;
    let id = placed.text("id");
    sold_once(&shop, &token, &id).await;
    (shop, token, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_that_was_held_without_an_answer_is_held_once() {
    let (shop, ..) = outlives("inventory.after_commit_before_reply:1:fail").await;
    let attempts = shop
        .internal("orders", "/internal/attempts?limit=5000")
        .await;
    let attempts = attempts["attempts"].as_array().cloned().unwrap_or_default();
    let failed =
        |it: &&serde_json::Value| it["link"] == "orders -> inventory" && it["status"] == 500;
    assert_eq!(attempts.iter().filter(failed).count(), 1, "it was reached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projection_that_dies_in_a_batch_begins_it_again() {
    let (shop, token, _) = outlives("projection.mid_batch:1:fail").await;
    let before = shop.get("gateway", "/api/orders", &token).await.body;
    shop.rebuild_view().await;
    shop.drained().await;
    let after = shop.get("gateway", "/api/orders", &token).await.body;
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_bus_stored_without_a_confirmation_is_taken_once() {
    let (shop, ..) = outlives("bus.after_store_before_confirm:1:fail").await;
    let ledger = shop
        .internal("notifications", "/internal/ledger?limit=5000")
        .await;
    let rows = ledger["rows"].as_array().cloned().unwrap_or_default();
    assert!(!rows.is_empty(), "{ledger}");
    assert!(rows.iter().all(|row| row["effects"] == 1), "{ledger}");
    assert!(
        rows.iter().any(|row| row["deliveries"] == 2),
        "it was reached: {ledger}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_outage_opens_the_breaker_next_to_it_and_no_other() {
    let mut shop = Shop::open().await;
    let token = shop.login("load1").await;
    shop.stop("psp").await;
    let asks = (0..15).map(|n| {
        let (shop, token) = (&shop, &token);
        async move {
            let wish = json!({ "sku": "A1", "quantity": 1 });
            shop.post("/api/orders", token, &format!("k{n}"), wish)
                .await
        }
    });
    let placed = futures_util::future::join_all(asks).await;
    assert!(
        placed.iter().all(|answer| answer.status == 202),
        "{placed:?}"
    );
    let opened = |breakers: serde_json::Value| {
        let changes = breakers["transitions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        changes
            .iter()
            .filter(|change| change["to"] == "OPEN")
            .count()
    };
    until("the breaker of payments to open", || async {
        opened(shop.internal("payments", "/internal/breakers").await) > 0
    })
    .await;
    shop.start("psp");
    for answer in &placed {
        shop.sees(&token, &answer.text("id"), "CONFIRMED").await;
    }
    assert_eq!(
        opened(shop.internal("orders", "/internal/breakers").await),
        0
    );
    shop.drained().await;
    assert_eq!(
        (
            shop.stock("A1", "sold").await,
            shop.stock("A1", "reserved").await
        ),
        (15, 0)
    );
}
