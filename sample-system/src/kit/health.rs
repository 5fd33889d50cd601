//! Whether the process lives, and whether it should get work.
//!
//! Live says nothing about dependencies: a provider's outage must not restart every service. Ready asks
//! the service's own database and the bus, and turns back when they are gone. Positive answers are kept
//! for a second, negative ones never.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::clock::wall_ms;

/// How long one check may take.
const CHECK: Duration = Duration::from_millis(500);
/// How long a positive answer is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// Asks one dependency whether it is there; the error says why not.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What each dependency answered.
type Results = BTreeMap<&'static str, Result<(), String>>;

/// All checks of one service.
#[derive(Default)]
pub struct Health {
    checks: std::sync::Mutex<BTreeMap<&'static str, Check>>,
    last_good: Mutex<Option<(Instant, Results)>>,
}

impl Health {
    /// Adds a dependency that must be there for the service to be ready.
    pub fn require(&self, name: &'static str, check: Check) {
        let mut checks = self
            .checks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        checks.insert(name, check);
    }

    /// Asks all dependencies: whether the service is ready, and the document to say so with.
    pub async fn ready(&self, service: &str) -> (bool, Value) {
        let results = self.results().await;
        let up = results.values().all(Result::is_ok);
        let checks: BTreeMap<_, _> = results
            .iter()
            .map(|(name, result)| match result {
                Ok(()) => (*name, json!({ "status": "UP" })),
                Err(reason) => (*name, json!({ "status": "DOWN", "reason": reason })),
            })
            .collect();
        (up, document(service, up, &json!(checks)))
    }

    async fn results(&self) -> Results {
        let mut last_good = self.last_good.lock().await;
        if let Some((at, results)) = last_good.as_ref()
            && at.elapsed() < BELIEVED
        {
            return results.clone();
        }
        let checks = {
            let checks = self
                .checks
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            checks.clone()
        };
        let asked = checks.into_iter().map(|(name, check)| async move {
            let late = || Err(format!("no answer within {CHECK:?}"));
            (
                name,
                timeout(CHECK, check())
                    .await
                    .unwrap_or_else(|_elapsed| late()),
            )
        });
        let results: Results = join_all(asked).await.into_iter().collect();
        let good = results.values().all(Result::is_ok);
        *last_good = good.then(|| (Instant::now(), results.clone()));
        results
    }
}

/// The document of every health endpoint: `status`, `service`, `time` and `checks`.
pub fn document(service: &str, up: bool, checks: &Value) -> Value {
    json!({
        "status": if up { "UP" } else { "DOWN" },
        "service": service,
        "time": wall_ms(),
        "checks": checks,
    })
}
