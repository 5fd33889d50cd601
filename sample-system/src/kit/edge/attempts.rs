//! What went out over all edges of a service: the caller's own word on its calls, for whoever cannot
//! look into the links themselves. The newest [`ROWS_MAX`] are kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::kit::clock::mono_ns;

/// How many attempts are remembered.
const ROWS_MAX: usize = 50_000;

/// One try of one request.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptRow {
    /// `payments -> psp`.
    pub link: String,
    /// Method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// The idempotency key, if the request has one.
    pub key: Option<String>,
    /// The trace it belongs to.
    pub trace: String,
    /// When it went out, ns of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// When the head of the answer was there, same clock.
    pub first_byte: Option<u64>,
    /// When it was over, same clock.
    pub ended: u64,
    /// The status of the answer.
    pub status: Option<u16>,
    /// `answered`, `refused` (no connection), `closed-by-callee` (it broke off), `closed-by-caller`
    /// (time-out, or nobody waits any more).
    pub end: &'static str,
}

/// The ring that all edges of a service share; clones are the same ring.
#[derive(Clone, Debug, Default)]
pub struct Attempts(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    rows: VecDeque<AttemptRow>,
    /// The sequence number of the last row; the first ever has 1.
    last: i64,
}

impl Attempts {
    /// Rows after the sequence number `after`, at most `limit`, each with its own.
    pub fn after(&self, after: i64, limit: usize) -> Vec<(i64, AttemptRow)> {
        let ring = self.ring();
        let first = ring.last - i64::try_from(ring.rows.len()).unwrap_or(ring.last) + 1;
        let skip = usize::try_from(after + 1 - first).unwrap_or(0);
        let rows = (first..).zip(&ring.rows).skip(skip).take(limit);
        rows.map(|(seq, row)| (seq, row.clone())).collect()
    }

    /// Notes an attempt that goes out now; it is remembered when the answer is dropped.
    pub(super) fn begin(&self, row: AttemptRow) -> Underway {
        Underway {
            log: self.clone(),
            row,
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt that is out. Dropped however the work ends, so none is forgotten.
pub(super) struct Underway {
    log: Attempts,
    pub(super) row: AttemptRow,
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.row.ended = mono_ns();
        let mut ring = self.log.ring();
        ring.last += 1;
        if ring.rows.len() == ROWS_MAX {
            ring.rows.pop_front();
        }
        ring.rows.push_back(self.row.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str) -> AttemptRow {
        AttemptRow {
            link: "a -> b".into(),
            method: "GET".into(),
            path: path.into(),
            key: None,
            trace: String::new(),
            at: mono_ns(),
            first_byte: None,
            ended: 0,
            status: None,
            end: "closed-by-caller",
        }
    }

    #[test]
    fn a_reader_that_comes_back_gets_each_attempt_once_and_in_order() {
        let log = Attempts::default();
        assert!(log.after(0, 10).is_empty());
        for n in 0..5 {
            drop(log.begin(row(&format!("/{n}"))));
        }
        let page = |after, limit| -> Vec<(i64, String)> {
            let rows = log.after(after, limit).into_iter();
            rows.map(|(seq, row)| (seq, row.path)).collect()
        };
        assert_eq!(page(0, 2), [(1, "/0".into()), (2, "/1".into())]);
        assert_eq!(page(3, 9), [(4, "/3".into()), (5, "/4".into())]);
        assert!(page(5, 9).is_empty());
    }

    #[test]
    fn the_oldest_give_way_and_the_gap_shows_in_the_numbers() {
        let log = Attempts::default();
        for _ in 0..ROWS_MAX + 3 {
            drop(log.begin(row("/")));
        }
        assert_eq!(log.after(0, 1)[0].0, 4);
    }
}
