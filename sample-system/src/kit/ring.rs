//! Evidence that is only kept in memory: the newest [`ROWS_MAX`] rows, numbered, so that a reader that
//! comes back gets each once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Value, json};

use super::clock::mono_ns;
use super::evidence::Page;

/// How many rows are remembered.
const ROWS_MAX: usize = 50_000;

/// The tail of a log; clones are the same one.
#[derive(Debug)]
pub struct Ring<T>(Arc<Mutex<Rows<T>>>);

#[derive(Debug)]
struct Rows<T> {
    /// Each with when it ended, ns of `CLOCK_MONOTONIC`.
    rows: VecDeque<(T, u64)>,
    /// The sequence number of the last row; the first ever has 1.
    last: i64,
}

impl<T> Clone for Ring<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Rows {
            rows: VecDeque::new(),
            last: 0,
        })))
    }
}

impl<T: Serialize + Clone> Ring<T> {
    /// Rows after the cursor of a page, each with its sequence number, which it also carries as `seq`, and
    /// with when it `ended`, ns of `CLOCK_MONOTONIC`.
    pub(crate) fn page(&self, page: Page) -> Vec<(i64, Value)> {
        let numbered = |(seq, (row, ended)): (i64, (T, u64))| {
            let mut row = json!(row);
            row["seq"] = seq.into();
            row["ended"] = ended.into();
            (seq, row)
        };
        self.after(page).into_iter().map(numbered).collect()
    }

    /// Copies, so that nobody who adds a row waits for them to be written out.
    fn after(&self, page: Page) -> Vec<(i64, (T, u64))> {
        let ring = self.ring();
        let first = ring.last - i64::try_from(ring.rows.len()).unwrap_or(ring.last) + 1;
        let skip = usize::try_from(page.after + 1 - first).unwrap_or(0);
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let rows = (first..).zip(&ring.rows).skip(skip).take(limit);
        rows.map(|(seq, row)| (seq, row.clone())).collect()
    }
}

impl<T> Ring<T> {
    /// Notes what begins now; it is remembered when the answer is dropped.
    pub(crate) fn begin(&self, row: T) -> Underway<T>
    where
        T: Clone,
    {
        Underway {
            ring: self.clone(),
            row,
        }
    }

    fn ring(&self) -> MutexGuard<'_, Rows<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is not over yet. Dropped however the work ends, so none is forgotten.
pub(crate) struct Underway<T: Clone> {
    ring: Ring<T>,
    pub(crate) row: T,
}

impl<T: Clone> Drop for Underway<T> {
    fn drop(&mut self) {
        let ended = mono_ns();
        let mut ring = self.ring.ring();
        ring.last += 1;
        if ring.rows.len() == ROWS_MAX {
            ring.rows.pop_front();
        }
        ring.rows.push_back((self.row.clone(), ended));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Serialize)]
    struct Row {
        n: usize,
    }

    fn add(ring: &Ring<Row>, n: usize) {
        drop(ring.begin(Row { n }));
    }

    #[test]
    fn a_reader_that_comes_back_gets_each_row_once_and_in_order() {
        let (ring, began) = (Ring::default(), mono_ns());
        let page = |after, limit| -> Vec<(i64, u64)> {
            let rows = ring.page(Page { after, limit }).into_iter();
            rows.map(|(seq, row)| {
                assert_eq!(row["seq"], seq);
                assert!(row["ended"].as_u64().unwrap() >= began);
                (seq, row["n"].as_u64().unwrap())
            })
            .collect()
        };
        assert!(page(0, 10).is_empty());
        for n in 0..5 {
            add(&ring, n);
        }
        assert_eq!(page(0, 2), [(1, 0), (2, 1)]);
        assert_eq!(page(3, 9), [(4, 3), (5, 4)]);
        assert!(page(5, 9).is_empty());
    }

    #[test]
    fn the_oldest_give_way_and_the_gap_shows_in_the_numbers() {
        let ring = Ring::default();
        for n in 0..ROWS_MAX + 3 {
            add(&ring, n);
        }
        assert_eq!(ring.page(Page { after: 0, limit: 1 })[0].0, 4);
    }
}
