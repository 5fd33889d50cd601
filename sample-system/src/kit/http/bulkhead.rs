//! A limit on how many requests of one class execute at a time, so that one class cannot starve another.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::kit::config::Profile;
use crate::kit::error::ApiError;

/// The limit; clones share it. It refuses at once when it is full and never queues.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    class: &'static str,
    places: Arc<Semaphore>,
}

/// A place in a bulkhead, given back on drop. Drop it before waiting for somebody else's answer.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Bulkhead {
    /// A bulkhead of `size` places for the requests of `class`.
    pub fn new(class: &'static str, size: usize) -> Self {
        Self {
            class,
            places: Arc::new(Semaphore::new(size)),
        }
    }

    /// The bulkhead of requests that change something: 40 places (`documents`: 10).
    pub fn commands(profile: Profile) -> Self {
        Self::new("commands", if profile == Profile::Fast { 40 } else { 10 })
    }

    /// The bulkhead of requests that only read: 80 places (`documents`: 20).
    pub fn queries(profile: Profile) -> Self {
        Self::new("queries", if profile == Profile::Fast { 80 } else { 20 })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// 503 when all are taken.
    pub fn enter(&self) -> Result<Place, ApiError> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => Ok(Place(permit)),
            Err(_full) => {
                let message = format!("too many {} at a time", self.class);
                Err(ApiError::unavailable("bulkhead-full", message).retry_after(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn a_full_bulkhead_refuses_at_once_and_says_when_to_come_back() {
        let (commands, queries) = (Bulkhead::new("commands", 2), Bulkhead::new("queries", 1));
        let places = [commands.enter().unwrap(), commands.clone().enter().unwrap()];
        let refused = commands.enter().unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.retry_after_s, Some(1));
        // One class does not starve the other, and a place that is left is free.
        drop(queries.enter().unwrap());
        drop(places);
        drop(commands.enter().unwrap());
    }
}
