//! What customers see, and what is left behind by it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::boot::Shop;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paid_order_is_confirmed_and_everything_adds_up() {
    let shop = Shop::open().await;
    let token = shop.login("load1").await;
    let wish = json!({ "sku": "A1", "quantity": 2 });
    let placed = shop.post("/api/orders", &token, "k1", wish.clone()).await;
    assert_eq!(
        (placed.status, placed.text("state").as_str()),
        (201, "CONFIRMED"),
        "{placed:?}"
    );
    let id = placed.text("id");
    shop.sees(&token, &id, "CONFIRMED").await;
    shop.drained().await;
    assert_eq!(shop.paid(&id).await, 900);
    assert_eq!(
        (
            shop.stock("A1", "sold").await,
            shop.stock("A1", "reserved").await
        ),
        (2, 0)
    );

    // The same key: the same order. The same key for something else: refused.
    let again = shop.post("/api/orders", &token, "k1", wish).await;
    assert_eq!((again.status, again.text("id")), (201, id.clone()));
    let other = shop
        .post(
            "/api/orders",
            &token,
            "k1",
            json!({ "sku": "B2", "quantity": 1 }),
        )
        .await;
    assert_eq!(other.status, 422, "{other:?}");
    assert_eq!(shop.stock("A1", "sold").await, 2);

    // Nobody else sees it.
    let stranger = shop.login("load2").await;
    let seen = shop
        .get("gateway", &format!("/api/orders/{id}"), &stranger)
        .await;
    assert_eq!(seen.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_orders_leave_nothing_behind() {
    let shop = Shop::open().await;
    let token = shop.login("load1").await;
    let declined = json!({ "sku": "B2", "quantity": 1, "method": "card-declined" });
    let declined = shop.post("/api/orders", &token, "k1", declined).await;
    assert_eq!(
        (declined.status, declined.text("state").as_str()),
        (402, "REJECTED")
    );
    let short = shop
        .post(
            "/api/orders",
            &token,
            "k2",
            json!({ "sku": "RARE", "quantity": 4 }),
        )
        .await;
    assert_eq!(
        (short.status, short.text("state").as_str()),
        (409, "REJECTED")
    );
    let odd = shop
        .post(
            "/api/orders",
            &token,
            "k3",
            json!({ "sku": "NONE", "quantity": 1 }),
        )
        .await;
    assert_eq!(odd.status, 404, "{odd:?}");
    shop.drained().await;
    for sku in ["B2", "RARE"] {
        assert_eq!(
            (
                shop.stock(sku, "reserved").await,
                shop.stock(sku, "sold").await
            ),
            (0, 0)
        );
    }
    assert_eq!(shop.paid(&declined.text("id")).await, 0);
    let steps = shop.steps(&short.text("id")).await;
    assert!(
        !steps.iter().any(|step| step.starts_with("charge")),
        "{steps:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_provider_and_its_caller_tell_of_the_same_calls() {
    let shop = Shop::open().await;
    let token = shop.login("load1").await;
    for (key, method) in [("k1", "card"), ("k2", "card-declined")] {
        let wish = json!({ "sku": "A1", "quantity": 1, "method": method });
        shop.post("/api/orders", &token, key, wish).await;
    }
    shop.drained().await;
    // A look into its books is no call of payments.
    shop.paid("nobody's").await;
    let told = async |service, list: &str| -> Vec<serde_json::Value> {
        let path = format!("/internal/{list}?limit=5000");
        let report = shop.internal(service, &path).await;
        let rows = report[list].as_array().expect("a list").iter();
        let to_psp = rows.filter(|row| row["link"] == "payments -> psp" || service == "psp");
        let names = ["method", "path", "key", "trace", "status", "end"];
        to_psp
            .map(|row| json!(names.map(|name| &row[name])))
            .collect()
    };
    let received = told("psp", "arrivals").await;
    assert_eq!(received, told("payments", "attempts").await);
    let statuses: Vec<_> = received.iter().map(|row| row[4].clone()).collect();
    assert_eq!(statuses, [201, 402]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order_is_one_trace_over_all_hops() {
    let shop = Shop::open().await;
    let token = shop.login("load1").await;
    let wish = json!({ "sku": "A1", "quantity": 1 });
    shop.post("/api/orders", &token, "k1", wish).await;
    shop.drained().await;
    let mut traces: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for service in ["gateway", "orders", "payments"] {
        let report = shop
            .internal(service, "/internal/attempts?limit=5000")
            .await;
        for row in report["attempts"].as_array().expect("a list") {
            let text = |name: &str| row[name].as_str().expect("a text").to_owned();
            traces
                .entry(text("link"))
                .or_default()
                .insert(text("trace"));
        }
    }
    let order = traces["gateway -> orders"].clone();
    assert_eq!(order.len(), 1);
    for link in [
        "orders -> inventory",
        "orders -> payments",
        "payments -> psp",
    ] {
        assert_eq!(traces[link], order, "{link}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_pieces_are_sold_once_however_many_ask_at_a_time() {
    let shop = Shop::open().await;
    let token = shop.login("load1").await;
    let asks = (0..10).map(|n| {
        let (shop, token) = (&shop, &token);
        async move {
            let wish = json!({ "sku": "RARE", "quantity": 1 });
            shop.post("/api/orders", token, &format!("k{n}"), wish)
                .await
                .status
        }
    });
    let mut statuses = futures_util::future::join_all(asks).await;
    shop.drained().await;
    statuses.sort_unstable();
    // Who waited too long for an answer got a 202; what counts is what was sold.
    assert!(
        statuses
            .iter()
            .all(|status| [201, 202, 409].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(
        (
            shop.stock("RARE", "sold").await,
            shop.stock("RARE", "available").await
        ),
        (3, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_opens_only_with_a_good_token() {
    let shop = Shop::open().await;
    let wish = json!({ "sku": "A1", "quantity": 1 });
    assert_eq!(
        shop.post("/api/orders", "", "k", wish.clone()).await.status,
        401
    );
    assert_eq!(
        shop.post("/api/orders", "forged", "k", wish).await.status,
        403
    );
    assert_eq!(
        shop.get("gateway", "/api/products?limit=3", "")
            .await
            .status,
        200
    );
    let ann = json!({ "email": "ann@shop.test", "name": "Ann", "password": "a good one" });
    let created = shop.post("/api/register", "", "", ann.clone()).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert!(!created.body.to_string().contains("argon2"));
    assert_eq!(shop.post("/api/register", "", "", ann).await.status, 409);
    let token = created.text("token");
    let me = shop.get("gateway", "/api/users/me", &token).await;
    assert_eq!(me.text("email"), "ann@shop.test");
    // A new user gets a cart, by an event.
    shop.drained().await;
    assert_eq!(shop.get("gateway", "/api/cart", &token).await.status, 200);
    // A refresh token works once.
    let refresh = json!({ "refresh_token": created.text("refresh_token") });
    assert_eq!(
        shop.post("/api/refresh", "", "", refresh.clone())
            .await
            .status,
        200
    );
    assert_eq!(shop.post("/api/refresh", "", "", refresh).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_view_equals_the_one_before() {
    let shop = Shop::open().await;
    let token = shop.login("load1").await;
    for n in 0..5 {
        let wish = json!({ "sku": "C3", "quantity": 1 });
        shop.post("/api/orders", &token, &format!("k{n}"), wish)
            .await;
    }
    shop.drained().await;
    let before = shop.get("gateway", "/api/orders", &token).await.body;
    assert_eq!(before["orders"].as_array().map(Vec::len), Some(5));
    shop.rebuild_view().await;
    shop.drained().await;
    assert_eq!(
        shop.get("gateway", "/api/orders", &token).await.body,
        before
    );
}
