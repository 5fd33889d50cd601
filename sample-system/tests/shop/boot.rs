//! Starts services, asks them things, stops them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use sample_system::kit::shutdown::Stop;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// How long anything in a test may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What opens `/internal/…`.
const TOKEN: &str = "test-token";
const SERVICES: [&str; 9] = [
    "bus",
    "psp",
    "users",
    "catalog",
    "inventory",
    "payments",
    "orders",
    "notifications",
    "gateway",
];

struct Running {
    stop: Stop,
    task: JoinHandle<Result<(), sample_system::RunError>>,
}

/// A shop that runs until it is dropped.
pub(crate) struct Shop {
    dir: tempfile::TempDir,
    ports: BTreeMap<&'static str, u16>,
    running: BTreeMap<&'static str, Running>,
    client: reqwest::Client,
    extra: BTreeMap<String, String>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_default().to_owned()
    }
}

impl Shop {
    /// All nine services, ready.
    pub(crate) async fn open() -> Self {
        Self::open_with(&[]).await
    }

    /// As [`Shop::open`], with more variables in every service's environment.
    pub(crate) async fn open_with(extra: &[(&str, &str)]) -> Self {
        let holds: Vec<_> = SERVICES
            .iter()
            .map(|name| {
                (
                    *name,
                    TcpListener::bind("127.0.0.1:0").expect("a free port"),
                )
            })
            .collect();
        let ports = holds
            .iter()
            .map(|(name, hold)| (*name, hold.local_addr().expect("bound").port()))
            .collect();
        drop(holds);
        let mut shop = Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
            ports,
            running: BTreeMap::new(),
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
            extra: extra
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        };
        for name in SERVICES {
            shop.start(name);
        }
        for name in SERVICES {
            shop.ready(name).await;
        }
        shop
    }

    fn environment(&self, name: &str) -> BTreeMap<String, String> {
        let mut environment = self.extra.clone();
        for (other, port) in &self.ports {
            let url = format!("http://127.0.0.1:{port}");
            environment.insert(format!("{}_URL", other.to_uppercase()), url);
        }
        let database = format!("sqlite://{}/{name}.db", self.dir.path().display());
        for (key, value) in [
            ("PORT_HTTP", self.ports[name].to_string()),
            ("ADMIN_TOKEN", TOKEN.to_owned()),
            ("DATABASE_URL", database),
            ("JWT_SECRET", "test-secret".to_owned()),
            ("SHOP_LOG", "warn".to_owned()),
        ] {
            environment.insert(key.to_owned(), value);
        }
        environment
    }

    /// Starts a service that is not running.
    pub(crate) fn start(&mut self, name: &'static str) {
        let (stop, environment) = (Stop::by_hand(), self.environment(name));
        let told = stop.clone();
        let task =
            tokio::spawn(async move { sample_system::run_until(name, environment, told).await });
        self.running.insert(name, Running { stop, task });
    }

    /// Waits until a service is ready.
    pub(crate) async fn ready(&self, name: &str) {
        let what = format!("{name} to be ready");
        until(&what, || async {
            self.get(name, "/health/ready", "").await.status == 200
        })
        .await;
    }

    /// Stops a service and waits for its end.
    pub(crate) async fn stop(&mut self, name: &str) {
        let running = self.running.remove(name).expect("it runs");
        running.stop.ask();
        let ended = tokio::time::timeout(PATIENCE, running.task)
            .await
            .expect("it ends in time");
        ended.expect("it does not panic").expect("it ends well");
    }

    /// `GET`; status 0 = no answer.
    pub(crate) async fn get(&self, name: &str, path: &str, token: &str) -> Answer {
        let url = format!("http://127.0.0.1:{}{path}", self.ports[name]);
        let request = self
            .client
            .get(url)
            .header("x-token", TOKEN)
            .bearer_auth(token);
        answer(request).await
    }

    /// `POST` through the gateway; status 0 = no answer.
    pub(crate) async fn post(&self, path: &str, token: &str, key: &str, body: Value) -> Answer {
        let url = format!("http://127.0.0.1:{}{path}", self.ports["gateway"]);
        let mut request = self.client.post(url).json(&body);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        answer(request).await
    }

    /// A token of one of the seeded users.
    pub(crate) async fn login(&self, name: &str) -> String {
        let body = serde_json::json!({
            "email": format!("{name}@shop.test"), "password": format!("secret-{name}"),
        });
        let answer = self.post("/api/login", "", "", body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text("token")
    }

    /// The evidence of a service.
    pub(crate) async fn internal(&self, name: &str, path: &str) -> Value {
        let answer = self.get(name, path, "").await;
        assert_eq!(answer.status, 200, "{name}{path}: {answer:?}");
        answer.body
    }

    /// Has `orders` build its read model again.
    pub(crate) async fn rebuild_view(&self) {
        let url = format!(
            "http://127.0.0.1:{}/internal/projection/rebuild",
            self.ports["orders"]
        );
        let answer = answer(self.client.post(url).header("x-token", TOKEN)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// One column of the stock of a product.
    pub(crate) async fn stock(&self, sku: &str, column: &str) -> i64 {
        let report = self.internal("inventory", "/internal/stock").await;
        let rows = report["stock"].as_array().expect("a list");
        let row = rows
            .iter()
            .find(|row| row["sku"] == sku)
            .expect("the product");
        row[column].as_i64().expect("a number")
    }

    /// What the provider holds of an order, cents: charges less refunds.
    pub(crate) async fn paid(&self, order: &str) -> i64 {
        let ledger = self.get("psp", "/ledger?limit=5000", "").await.body;
        let entries = ledger["entries"].as_array().expect("a list");
        let own = entries.iter().filter(|entry| entry["account"] == order);
        own.map(|entry| entry["net_cents"].as_i64().expect("a number"))
            .sum()
    }

    /// The steps of an order's saga, as `name:phase`.
    pub(crate) async fn steps(&self, order: &str) -> Vec<String> {
        let log = self
            .internal("orders", &format!("/internal/sagas/{order}/log"))
            .await;
        let steps = log["steps"].as_array().expect("a list").clone();
        let text = |step: &Value, name: &str| step[name].as_str().unwrap_or_default().to_owned();
        steps
            .iter()
            .map(|s| format!("{}:{}", text(s, "name"), text(s, "phase")))
            .collect()
    }

    /// Waits until an order has come to `state`.
    pub(crate) async fn sees(&self, token: &str, order: &str, state: &str) {
        let path = format!("/api/orders/{order}");
        until(&format!("{order} to be {state}"), || async {
            self.get("gateway", &path, token).await.text("state") == state
        })
        .await;
    }

    /// Waits until nothing is under way any more.
    pub(crate) async fn drained(&self) {
        until("open sagas to end", || async {
            let open = self.internal("orders", "/internal/sagas?state=open").await;
            open["sagas"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
        for name in ["orders", "payments", "inventory", "users"] {
            until(&format!("the outbox of {name} to drain"), || async {
                self.internal(name, "/internal/outbox").await["unsent"] == 0
            })
            .await;
        }
        until("queues to drain", || async {
            let stats = self.internal("bus", "/stats").await;
            ["ready", "delayed", "unacked"]
                .iter()
                .all(|name| stats[*name] == 0)
        })
        .await;
        until("the projection to catch up", || async {
            self.internal("orders", "/internal/projection").await["lag"] == 0
        })
        .await;
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.stop.insist();
            running.task.abort();
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let Ok(response) = request.timeout(PATIENCE).send().await else {
        return Answer {
            status: 0,
            body: Value::Null,
        };
    };
    let status = response.status().as_u16();
    Answer {
        status,
        body: response.json().await.unwrap_or_default(),
    }
}

/// Waits until a condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "waited too long for {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
