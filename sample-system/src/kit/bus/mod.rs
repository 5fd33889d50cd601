//! The message bus as a service sees it, whatever runs behind it.
//!
//! At-least-once, durable, topic routing. A publish counts only once it is *confirmed*; a message that
//! no queue wants is refused, never dropped. Next: `bus::client` (the adapter for `busd`),
//! `bus::topology` (who listens to what), `outbox` and `consumer`, which are the only users.

pub mod client;
pub mod topology;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::event::Event;
pub use client::BusClient;
pub use topology::{Binding, QUEUES, matches};

/// Why the bus did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// It cannot be reached or did not answer in time; a publish may have happened.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// It understood and refused.
    #[error("the bus refused: {0}")]
    Refused(String),
}

/// What became of one published event.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Confirmation {
    /// It is stored in every queue that wants it.
    Confirmed,
    /// No queue wants it; it was not stored.
    Unroutable,
}

/// A message handed to a consumer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// Names this delivery for `ack`, `nack` and `dead`. A redelivery has another tag.
    pub tag: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// The body as it was published: an [`Event`] as JSON, if the publisher behaved.
    pub body: String,
    /// 1 for the first time; rises with every redelivery, also after a consumer's death.
    pub deliveries: u32,
}

/// A dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Rises with every dead letter of the bus; the cursor of the list.
    pub seq: i64,
    /// The queue it died in.
    pub queue: String,
    /// The id of the event, or of the message when the body is unreadable.
    pub event_id: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// The body as it was published.
    pub body: String,
    /// Why the consumer gave it up.
    pub reason: String,
    /// How often it was handed out.
    pub deliveries: u32,
    /// When it died, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// How much is waiting.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Depth {
    /// Can be fetched now.
    pub ready: u64,
    /// Waits for its time after a nack.
    pub delayed: u64,
    /// Handed out, not settled.
    pub unacked: u64,
    /// Given up.
    pub dead: u64,
}

/// The one interface to any bus.
pub trait Bus: Send + Sync {
    /// Stores all events in all queues that want them, durably and in this order, before it answers;
    /// one confirmation per event. An event id that a queue has seen already is not stored twice.
    fn publish<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<Vec<Confirmation>, BusError>>;

    /// Waits up to the long-poll time for messages of `queue`; `max` bounds what this consumer may hold
    /// unsettled. Messages held by an earlier incarnation of the same consumer are released at once.
    fn fetch<'a>(
        &'a self,
        queue: &'a str,
        max: u32,
    ) -> BoxFuture<'a, Result<Vec<Delivery>, BusError>>;

    /// The message is handled; it is gone.
    fn ack<'a>(&'a self, queue: &'a str, tag: &'a str) -> BoxFuture<'a, Result<(), BusError>>;

    /// The message could not be handled; deliver it again after `delay_ms`.
    fn nack<'a>(
        &'a self,
        queue: &'a str,
        tag: &'a str,
        delay_ms: u64,
    ) -> BoxFuture<'a, Result<(), BusError>>;

    /// The message never can be handled; keep it with the reason.
    fn dead<'a>(
        &'a self,
        queue: &'a str,
        tag: &'a str,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<(), BusError>>;

    /// Makes sure that `queue` exists and gets what its patterns say. Repeatable.
    fn declare<'a>(
        &'a self,
        queue: &'a str,
        patterns: &'a [&'a str],
    ) -> BoxFuture<'a, Result<(), BusError>>;

    /// How much waits in `queue`.
    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Depth, BusError>>;

    /// Up to `limit` dead letters of `queue` after the cursor `after` (0 = from the start).
    fn dead_letters<'a>(
        &'a self,
        queue: &'a str,
        after: i64,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, BusError>>;

    /// Puts all dead letters of `queue` back; answers how many.
    fn replay<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<u64, BusError>>;
}
