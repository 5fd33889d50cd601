//! A bus for unit tests that does as it is told and remembers what it was told.

use std::collections::VecDeque;
use std::sync::Mutex;

use futures_util::future::BoxFuture;

use super::bus::{Bus, BusError, Confirmation, DeadLetter, Delivery, Depth};
use super::event::Event;

/// What was said to the bus about one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Ack(String),
    Nack(String, u64),
    Dead(String, String),
}

/// See the module.
#[derive(Default)]
pub(crate) struct FakeBus {
    /// Ids in the order in which they were published and confirmed.
    pub(crate) published: Mutex<Vec<String>>,
    /// Whether publishing fails.
    pub(crate) down: Mutex<bool>,
    /// A routing key that nobody wants.
    pub(crate) unwanted: Mutex<Option<String>>,
    /// A routing key with which the whole publication is refused.
    pub(crate) refused: Mutex<Option<String>>,
    /// What the next fetches hand out.
    pub(crate) waiting: Mutex<VecDeque<Delivery>>,
    /// What consumers said.
    pub(crate) said: Mutex<Vec<Said>>,
}

impl FakeBus {
    fn note(&self, said: Said) -> BoxFuture<'_, Result<(), BusError>> {
        self.said.lock().unwrap().push(said);
        Box::pin(async { Ok(()) })
    }
}

impl Bus for FakeBus {
    fn publish<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<Vec<Confirmation>, BusError>> {
        Box::pin(async move {
            if *self.down.lock().unwrap() {
                return Err(BusError::Unavailable("told so".to_owned()));
            }
            let refused = self.refused.lock().unwrap().clone();
            if events
                .iter()
                .any(|event| refused.as_ref() == Some(&event.kind))
            {
                return Err(BusError::Refused("too large".to_owned()));
            }
            let unwanted = self.unwanted.lock().unwrap().clone();
            let mut published = self.published.lock().unwrap();
            let confirm = |event: &Event| {
                if unwanted.as_deref() == Some(event.kind.as_str()) {
                    return Confirmation::Unroutable;
                }
                published.push(event.id.clone());
                Confirmation::Confirmed
            };
            Ok(events.iter().map(confirm).collect())
        })
    }

    fn fetch<'a>(
        &'a self,
        _queue: &'a str,
        max: u32,
    ) -> BoxFuture<'a, Result<Vec<Delivery>, BusError>> {
        Box::pin(async move {
            let taken: Vec<Delivery> = {
                let mut waiting = self.waiting.lock().unwrap();
                let count = waiting.len().min(max as usize);
                waiting.drain(..count).collect()
            };
            if taken.is_empty() {
                std::future::pending::<()>().await;
            }
            Ok(taken)
        })
    }

    fn ack<'a>(
        &'a self,
        _queue: &'a str,
        tags: &'a [String],
    ) -> BoxFuture<'a, Result<(), BusError>> {
        self.note(Said::Ack(tags.join(",")))
    }

    fn nack<'a>(
        &'a self,
        _queue: &'a str,
        tag: &'a str,
        delay_ms: u64,
    ) -> BoxFuture<'a, Result<(), BusError>> {
        self.note(Said::Nack(tag.to_owned(), delay_ms))
    }

    fn dead<'a>(
        &'a self,
        _queue: &'a str,
        tag: &'a str,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<(), BusError>> {
        self.note(Said::Dead(tag.to_owned(), reason.to_owned()))
    }

    fn declare<'a>(
        &'a self,
        _queue: &'a str,
        _patterns: &'a [&'a str],
    ) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async { Ok(()) })
    }

    fn depth<'a>(&'a self, _queue: &'a str) -> BoxFuture<'a, Result<Depth, BusError>> {
        Box::pin(async { Ok(Depth::default()) })
    }

    fn dead_letters<'a>(
        &'a self,
        _queue: &'a str,
        _after: i64,
        _limit: u32,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, BusError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn replay<'a>(&'a self, _queue: &'a str) -> BoxFuture<'a, Result<u64, BusError>> {
        Box::pin(async { Ok(0) })
    }
}
