//! What happens while a service is away, and after it has come back.

use serde_json::json;

use crate::boot::Shop;

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
