use std::path::Path;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use serde_json::{Value, json};

use crate::kit::store::Store;
use crate::testing::{Running, eventually};

/// payments with a provider and a bus that are really there.
struct Shop {
    psp: Running,
    bus: Running,
    payments: Running,
}

async fn shop(dir: &Path, payments: &[(&str, &str)]) -> Shop {
    let psp = Running::start("psp", dir, &[]).await;
    let bus = Running::start("bus", dir, &[]).await;
    let payments = start_payments(dir, &psp.url, &bus.url, payments).await;
    Shop { psp, bus, payments }
}

async fn start_payments(dir: &Path, psp: &str, bus: &str, more: &[(&str, &str)]) -> Running {
    let mut environment = vec![("PSP_URL", psp), ("BUS_URL", bus)];
    environment.extend_from_slice(more);
    Running::start("payments", dir, &environment).await
}

fn wish(order: &str) -> Value {
    json!({ "order_id": order, "user_id": "u1", "amount_cents": 1_250 })
}

impl Shop {
    async fn charge(&self, order: &str) -> (u16, Value) {
        self.payments
            .post("/payments", &format!("{order}:charge"), wish(order))
            .await
    }

    async fn refund(&self, order: &str) -> (u16, Value) {
        let key = format!("{order}:refund");
        self.payments
            .post(&format!("/payments/{order}/refund"), &key, json!({}))
            .await
    }

    /// The provider's entries for an order: their net amounts.
    async fn ledger(&self, order: &str) -> Vec<i64> {
        let (_, body) = self.psp.get("/ledger").await;
        let entries = body["entries"].as_array().unwrap().iter();
        let own = entries.filter(|entry| entry["account"] == order);
        own.map(|entry| entry["net_cents"].as_i64().unwrap())
            .collect()
    }
}

#[tokio::test]
async fn an_order_is_charged_once_however_often_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop(dir.path(), &[]).await;
    let (status, first) = shop.charge("o1").await;
    assert_eq!(
        (status, &first["state"]),
        (200, &json!("COMPLETED")),
        "{first}"
    );
    let (_, second) = shop.charge("o1").await;
    assert_eq!(first, second);
    assert_eq!(shop.ledger("o1").await, [1_250]);
    eventually("the event reaches the queue", async || {
        shop.bus.get("/queues/notifications").await.1["depth"]["ready"] == 1
    })
    .await;
    assert!(shop.payments.stop().await.is_ok());
}

#[tokio::test]
async fn a_refund_gives_back_once_and_refuses_a_late_charge() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop(dir.path(), &[]).await;
    shop.charge("o1").await;
    assert_eq!(shop.refund("o1").await.1["state"], "REFUNDED");
    assert_eq!(shop.refund("o1").await.1["state"], "REFUNDED");
    assert_eq!(shop.ledger("o1").await, [1_250, -1_250]);
    assert_eq!(shop.refund("o2").await.1["state"], "VOID");
    assert_eq!(shop.charge("o2").await.0, 409);
    assert_eq!(shop.ledger("o2").await, Vec::<i64>::new());
}

#[tokio::test]
async fn a_declined_card_is_402_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop(dir.path(), &[]).await;
    let mut body = wish("o1");
    body["card"] = json!("4000000000000002");
    for _ in 0..2 {
        let (status, body) = shop
            .payments
            .post("/payments", "o1:charge", body.clone())
            .await;
        assert_eq!((status, &body["error"]["code"]), (402, &json!("declined")));
    }
    assert_eq!(shop.ledger("o1").await, Vec::<i64>::new());
}

#[tokio::test]
async fn a_death_after_the_charge_is_resumed_without_a_second_charge() {
    let dir = tempfile::tempdir().unwrap();
    let point = [("SHOP_KILLPOINT", "payments.after_psp_before_commit:1:fail")];
    let mut shop = shop(dir.path(), &point).await;
    assert_eq!(shop.charge("o1").await.0, 500);
    assert_eq!(shop.ledger("o1").await, [1_250], "the provider has charged");
    assert_eq!(
        shop.payments.get("/payments/o1").await.1["state"],
        "CHARGING"
    );
    let (psp, bus) = (shop.psp.url.clone(), shop.bus.url.clone());
    let old = std::mem::replace(
        &mut shop.payments,
        start_payments(
            dir.path(),
            &psp,
            &bus,
            &[("SHOP_READY_FILE", &ready(dir.path()))],
        )
        .await,
    );
    old.kill();
    assert_eq!(shop.charge("o1").await.1["state"], "COMPLETED");
    assert_eq!(shop.ledger("o1").await, [1_250]);
}

fn ready(dir: &Path) -> String {
    dir.join("payments.ready").display().to_string()
}

#[tokio::test]
async fn a_dead_provider_is_refused_by_name_and_nothing_is_charged() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop(dir.path(), &[("PSP_URL", "http://127.0.0.1:9")]).await;
    let request = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = request
        .post(format!("{}/payments", shop.payments.url))
        .json(&wish("o1"));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["x-upstream"], "psp");
    assert_eq!(
        shop.payments.get("/payments/o1").await.1["state"],
        "CHARGING"
    );
}

/// Stands before the provider, passes everything on, and loses the first reply.
async fn lossy(psp: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let lost = Arc::new(AtomicBool::new(false));
    let router = Router::new().fallback(move |request: Request| {
        let (psp, lost) = (psp.clone(), Arc::clone(&lost));
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let passed = client.request(parts.method, format!("{psp}{}", parts.uri));
            let reply = passed
                .headers(parts.headers)
                .body(body)
                .send()
                .await
                .unwrap();
            let (status, body) = (reply.status(), reply.bytes().await.unwrap());
            match lost.swap(true, Ordering::SeqCst) {
                true => (status, body),
                false => (http::StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
            }
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn charges_after_a_lost_reply(defects: &str) -> Vec<i64> {
    let dir = tempfile::tempdir().unwrap();
    let psp = Running::start("psp", dir.path(), &[]).await;
    let bus = Running::start("bus", dir.path(), &[]).await;
    let front = lossy(psp.url.clone()).await;
    let defects = [("SHOP_DEFECTS", defects)];
    let payments = start_payments(dir.path(), &front, &bus.url, &defects).await;
    let shop = Shop { psp, bus, payments };
    assert_eq!(shop.charge("o1").await.1["state"], "COMPLETED");
    shop.ledger("o1").await
}

#[tokio::test]
async fn a_lost_reply_is_asked_for_again_and_charges_once() {
    assert_eq!(charges_after_a_lost_reply("").await, [1_250]);
}

#[tokio::test]
async fn defect_m25_charges_again_after_a_lost_reply() {
    assert_eq!(charges_after_a_lost_reply("m25").await, [1_250, 1_250]);
}

/// Charges, and before it says so takes payments' database away for as long as it lives.
async fn locking(psp: String, database: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let held = Arc::new(tokio::sync::Mutex::new(None));
    let router = Router::new().fallback(move |request: Request| {
        let (psp, database, held) = (psp.clone(), database.clone(), Arc::clone(&held));
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let passed = client.request(parts.method, format!("{psp}{}", parts.uri));
            let reply = passed.headers(parts.headers).body(body).send();
            let reply = reply.await.unwrap();
            let store = Store::open(&database, &[]).await.unwrap();
            *held.lock().await = Some(store.begin().await.unwrap());
            (reply.status(), reply.bytes().await.unwrap())
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn a_charge_that_cannot_be_stored_is_unknown_never_refused() {
    let dir = tempfile::tempdir().unwrap();
    let psp = Running::start("psp", dir.path(), &[]).await;
    let bus = Running::start("bus", dir.path(), &[]).await;
    let database = format!("sqlite://{}", dir.path().join("payments.db").display());
    let front = locking(psp.url.clone(), database).await;
    let payments = start_payments(dir.path(), &front, &bus.url, &[]).await;
    let shop = Shop { psp, bus, payments };
    let (status, body) = shop.charge("o1").await;
    assert_eq!((status, &body["state"]), (202, &json!("UNKNOWN")), "{body}");
    assert_eq!(shop.ledger("o1").await, [1_250]);
}
