//! Tickets that are due: the pacer puts them, and the user that waited longest takes the next.
//!
//! A queue of its own, because a channel is not made for thousands of tasks that wait on it: flume
//! looks through all of them whenever one wakes, under the lock that the pacer needs. Here a
//! waiting user is a link in a list, whatever their number.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::shared::Due;

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    tickets: Mutex<Tickets>,
    /// One permit per ticket.
    waiting: Semaphore,
    max: usize,
}

#[derive(Debug)]
struct Tickets {
    due: VecDeque<Due>,
    open: bool,
}

impl Queue {
    /// An empty queue that holds `max` tickets.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            tickets: Mutex::new(Tickets {
                due: VecDeque::new(),
                open: true,
            }),
            waiting: Semaphore::new(0),
            max,
        }
    }

    /// Adds a ticket; false when it is full or closed.
    pub(crate) fn put(&self, due: Due) -> bool {
        let mut tickets = self.tickets();
        if !tickets.open || tickets.due.len() >= self.max {
            return false;
        }
        tickets.due.push_back(due);
        drop(tickets);
        self.waiting.add_permits(1);
        true
    }

    /// Waits for a ticket; none when the queue is closed and empty. Safe to drop half-way.
    pub(crate) async fn take(&self) -> Option<Due> {
        // A closed one hands out no permits; what is left is for whoever asks.
        if let Ok(permit) = self.waiting.acquire().await {
            permit.forget();
        }
        self.tickets().due.pop_front()
    }

    /// No ticket follows; those that are there may be taken.
    pub(crate) fn close(&self) {
        self.tickets().open = false;
        self.waiting.close();
    }

    /// Closes the queue for good: what nobody will take any more.
    pub(crate) fn abandon(&self) -> VecDeque<Due> {
        self.close();
        std::mem::take(&mut self.tickets().due)
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(number: u64) -> Due {
        Due { number, at_ns: 0 }
    }

    #[tokio::test]
    async fn tickets_are_taken_in_order_and_none_after_the_last() {
        let queue = Queue::new(8);
        assert!((0..3).all(|number| queue.put(due(number))));
        assert_eq!(queue.take().await, Some(due(0)));
        queue.close();
        assert!(!queue.put(due(3)));
        assert_eq!(queue.take().await, Some(due(1)));
        assert_eq!(queue.take().await, Some(due(2)));
        assert_eq!(queue.take().await, None);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_an_abandoned_one_gives_back() {
        let queue = Queue::new(1);
        assert!(queue.put(due(0)) && !queue.put(due(1)));
        assert_eq!(queue.abandon(), [due(0)]);
        assert!(!queue.put(due(2)));
        assert_eq!(queue.take().await, None);
    }

    #[tokio::test]
    async fn a_ticket_is_not_lost_with_a_user_that_stops_waiting() {
        let queue = Queue::new(8);
        let mut gone = Box::pin(queue.take());
        let mut stays = Box::pin(queue.take());
        assert!(futures_util::poll!(&mut gone).is_pending());
        assert!(futures_util::poll!(&mut stays).is_pending());
        // For the one that waited longest, which leaves before it looks.
        assert!(queue.put(due(0)));
        drop(gone);
        assert_eq!(stays.await, Some(due(0)));
    }
}
