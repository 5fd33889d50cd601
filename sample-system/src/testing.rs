//! Real services in a test process: each in a runtime of its own, so that one can be killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::kit::service::RunError;
use crate::kit::shutdown::Stop;

/// What `X-Token` must be.
pub(crate) const TOKEN: &str = "test-token";
/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running service.
pub(crate) struct Running {
    /// Base URL of the data port.
    pub(crate) url: String,
    stop: Stop,
    ended: oneshot::Receiver<Result<(), RunError>>,
    runtime: Option<Runtime>,
    client: reqwest::Client,
}

impl Running {
    /// Starts a service whose files are in `dir`, and waits until it listens. All its endpoints are on
    /// one port.
    pub(crate) async fn start(name: &'static str, dir: &Path, more: &[(&str, &str)]) -> Self {
        let ready = dir.join(format!("{name}.ready"));
        drop(std::fs::remove_file(&ready));
        let database = format!("sqlite://{}", dir.join(format!("{name}.db")).display());
        let mut environment: BTreeMap<String, String> = [
            ("PORT_HTTP", "0"),
            ("ADMIN_TOKEN", TOKEN),
            ("DATABASE_URL", &database),
            ("SHOP_READY_FILE", &ready.display().to_string()),
            ("SHOP_LOG", "warn"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        environment.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let stop = Stop::by_hand();
        let (done, mut ended) = oneshot::channel();
        let told = stop.clone();
        runtime.spawn(async move {
            drop(done.send(crate::run_until(name, environment, told).await));
        });
        let mut url = String::new();
        eventually("the service listens", async || {
            if let Ok(result) = ended.try_recv() {
                panic!("{name} ended at once: {result:?}");
            }
            let Ok(text) = std::fs::read_to_string(&ready) else {
                return false;
            };
            let ports: Value = serde_json::from_str(&text).unwrap();
            url = format!("http://{}", ports["http"].as_str().unwrap());
            true
        })
        .await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let running = Self {
            url,
            stop,
            ended,
            runtime: Some(runtime),
            client,
        };
        eventually("the service is live", async || {
            running.get("/health/live").await.0 == 200
        })
        .await;
        running
    }

    /// `GET path` with the token: status and JSON body (null when there is none).
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.client.get(format!("{}{path}", self.url));
        answer(request.header("x-token", TOKEN)).await
    }

    /// `POST path` with an `Idempotency-Key` (unless it is empty).
    pub(crate) async fn post(&self, path: &str, key: &str, body: Value) -> (u16, Value) {
        let mut request = self.client.post(format!("{}{path}", self.url)).json(&body);
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        answer(request.header("x-token", TOKEN)).await
    }

    /// Asks for a graceful end and waits for it.
    pub(crate) async fn stop(mut self) -> Result<(), RunError> {
        self.stop.ask();
        let ended = tokio::time::timeout(PATIENCE, &mut self.ended).await;
        ended
            .expect("the service ends in time")
            .expect("it says how it ended")
    }

    /// Ends it as `kill -9` would: no more code of it runs.
    pub(crate) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    match request.timeout(PATIENCE).send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            (status, response.json().await.unwrap_or_default())
        }
        Err(_broken) => (0, Value::Null),
    }
}

/// Waits until `condition` is true.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < until, "did not come true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
