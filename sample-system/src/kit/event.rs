//! What travels over the bus: one envelope for all events.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::clock::wall_ms;
use super::context::Context;

/// A fact that happened to one aggregate. Its `type` is also its routing key, such as `order.placed`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Unique for ever (UUID v7); consumers count by it.
    pub id: String,
    /// What happened, `noun.participle`: the routing key.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it happened to, such as an order's id.
    pub aggregate_id: String,
    /// The version of the aggregate that this event made; rises by one.
    pub version: i64,
    /// When it happened, milliseconds since the Unix epoch.
    pub occurred_at_ms: i64,
    /// See [`Context::correlation_id`].
    pub correlation_id: String,
    /// See [`Context::traceparent`].
    pub traceparent: String,
    /// The event's own fields.
    pub data: Value,
}

impl Event {
    /// A new event that happens now, in the trace of `context`.
    pub fn new(
        kind: &str,
        aggregate_id: &str,
        version: i64,
        context: &Context,
        data: Value,
    ) -> Self {
        Self {
            id: Uuid::now_v7().to_string(),
            kind: kind.to_owned(),
            aggregate_id: aggregate_id.to_owned(),
            version,
            occurred_at_ms: wall_ms(),
            correlation_id: context.correlation_id.clone(),
            traceparent: context.traceparent(),
            data,
        }
    }

    /// The context of whoever handles this event: same trace, same correlation id.
    pub fn context(&self) -> Context {
        Context::resume(&self.traceparent, &self.correlation_id)
    }
}
