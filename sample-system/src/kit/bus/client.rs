//! The adapter for `busd`: the bus over HTTP.

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use super::{Bus, BusError, Confirmation, DeadLetter, Delivery, Depth};
use crate::kit::config::Config;
use crate::kit::context::Context;
use crate::kit::edge::{Edge, EdgeRequest, Failure};
use crate::kit::event::Event;

/// How long a fetch waits at the bus for a first message.
const POLL_MS: u64 = 1_000;
/// How long one round trip that does not wait may take.
const ROUND_TRIP: Duration = Duration::from_secs(2);

/// One published event as it goes over the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Publication {
    /// The event's id, by which a queue knows it again.
    pub event_id: String,
    /// The routing key.
    pub routing_key: String,
    /// The event as JSON text; the bus does not look into it.
    pub body: String,
}

/// A client of `busd`.
#[derive(Clone, Debug)]
pub struct BusClient {
    edge: Edge,
    consumer: String,
    incarnation: String,
}

impl BusClient {
    /// A client over `edge`, for the service and incarnation of `config`.
    pub fn new(edge: Edge, config: &Config) -> Self {
        let (consumer, incarnation) = (config.service.to_owned(), config.incarnation.clone());
        Self {
            edge,
            consumer,
            incarnation,
        }
    }

    /// Whether the bus answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<(), BusError> {
        self.call::<Value>(EdgeRequest::get("/health/live"), "")
            .await
            .map(drop)
    }

    /// Sends a request and reads the field `field` of the answer; an empty name reads all of it.
    async fn call<T: DeserializeOwned>(
        &self,
        request: EdgeRequest,
        field: &str,
    ) -> Result<T, BusError> {
        let context = Context::background();
        let sent = timeout(ROUND_TRIP + Duration::from_millis(POLL_MS), async {
            self.edge.send(&context, request).await
        });
        let reply = match sent.await {
            Err(_elapsed) => return Err(BusError::Unavailable("time is up".to_owned())),
            Ok(Err(error)) if error.failure == Failure::BreakerOpen => {
                return Err(BusError::Unavailable("breaker open".to_owned()));
            }
            Ok(Err(error)) => return Err(BusError::Unavailable(error.to_string())),
            Ok(Ok(reply)) => reply,
        };
        if !reply.status.is_success() {
            let code = reply
                .error_code()
                .unwrap_or_else(|| reply.status.to_string());
            return Err(BusError::Refused(code));
        }
        let unreadable = |error: serde_json::Error| BusError::Refused(error.to_string());
        let mut body: Value = reply.json().map_err(unreadable)?;
        let part = if field.is_empty() {
            body
        } else {
            body[field].take()
        };
        serde_json::from_value(part).map_err(unreadable)
    }

    async fn settle(&self, queue: &str, how: &str, body: Value) -> Result<(), BusError> {
        let request = EdgeRequest::post(format!("/queues/{queue}/{how}")).json(body);
        self.call::<Value>(request, "").await.map(drop)
    }
}

impl Bus for BusClient {
    fn publish<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<Vec<Confirmation>, BusError>> {
        Box::pin(async move {
            let mut batch = Vec::with_capacity(events.len());
            for event in events {
                let body = serde_json::to_string(event);
                let body = body.map_err(|error| BusError::Refused(error.to_string()))?;
                let (event_id, routing_key) = (event.id.clone(), event.kind.clone());
                batch.push(Publication {
                    event_id,
                    routing_key,
                    body,
                });
            }
            let request = EdgeRequest::post("/publish").json(json!({ "events": batch }));
            self.call(request, "confirmations").await
        })
    }

    fn fetch<'a>(
        &'a self,
        queue: &'a str,
        max: u32,
    ) -> BoxFuture<'a, Result<Vec<Delivery>, BusError>> {
        Box::pin(async move {
            let body = json!({
                "consumer": self.consumer,
                "incarnation": self.incarnation,
                "max": max,
                "wait-ms": POLL_MS,
            });
            let request = EdgeRequest::post(format!("/queues/{queue}/fetch")).json(body);
            self.call(request, "deliveries").await
        })
    }

    fn ack<'a>(&'a self, queue: &'a str, tag: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(self.settle(queue, "ack", json!({ "tag": tag })))
    }

    fn nack<'a>(
        &'a self,
        queue: &'a str,
        tag: &'a str,
        delay_ms: u64,
    ) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(self.settle(queue, "nack", json!({ "tag": tag, "delay-ms": delay_ms })))
    }

    fn dead<'a>(
        &'a self,
        queue: &'a str,
        tag: &'a str,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(self.settle(queue, "dead", json!({ "tag": tag, "reason": reason })))
    }

    fn declare<'a>(
        &'a self,
        queue: &'a str,
        patterns: &'a [&'a str],
    ) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            let request = EdgeRequest::put(format!("/queues/{queue}"));
            let request = request.json(json!({ "patterns": patterns }));
            self.call::<Value>(request, "").await.map(drop)
        })
    }

    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Depth, BusError>> {
        Box::pin(async move {
            let request = EdgeRequest::get(format!("/queues/{queue}"));
            self.call(request, "depth").await
        })
    }

    fn dead_letters<'a>(
        &'a self,
        queue: &'a str,
        after: i64,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, BusError>> {
        Box::pin(async move {
            let path = format!("/queues/{queue}/dlq?after={after}&limit={limit}");
            self.call(EdgeRequest::get(path), "rows").await
        })
    }

    fn replay<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<u64, BusError>> {
        Box::pin(async move {
            let request = EdgeRequest::post(format!("/queues/{queue}/dlq/replay"));
            self.call(request, "replayed").await
        })
    }
}
