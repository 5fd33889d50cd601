//! The request log: one row per HTTP/1.1 request that entered a proxy declared `http`, whatever toxics
//! then made of it. It listens to a copy of the bytes and never touches them.
//!
//! `http1.rs` finds messages, `connection.rs` pairs requests with answers, this file keeps the rows.

mod connection;
mod http1;

use std::collections::VecDeque;
use std::sync::Mutex;

pub(crate) use connection::ConnectionLog;
pub(crate) use http1::Head;

use super::engine::locked;
use super::wire::{RequestRow, RequestRows};

/// Rows kept; older ones are overwritten.
const CAPACITY: usize = 200_000;

/// Rows of one answer when the caller does not say how many it wants, and the most it gets.
const PAGE: usize = 10_000;

/// The rows of all proxies of a server, the latest [`CAPACITY`] of them.
pub(crate) struct RequestLog {
    ring: Mutex<Ring>,
    capacity: usize,
}

#[derive(Default)]
struct Ring {
    rows: VecDeque<RequestRow>,
    /// The number of the last row written.
    last: u64,
}

impl Default for RequestLog {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl RequestLog {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            ring: Mutex::default(),
            capacity,
        }
    }

    /// Adds a row and numbers it.
    fn publish(&self, mut row: RequestRow) {
        let mut ring = locked(&self.ring);
        ring.last += 1;
        row.seq = ring.last;
        if ring.rows.len() >= self.capacity {
            ring.rows.pop_front();
        }
        ring.rows.push_back(row);
    }

    /// The rows after a position, of one proxy or of all.
    pub(crate) fn after(
        &self,
        position: u64,
        limit: Option<usize>,
        proxy: Option<&str>,
    ) -> RequestRows {
        let limit = limit.unwrap_or(PAGE).clamp(1, PAGE);
        let ring = locked(&self.ring);
        let oldest = ring.rows.front().map_or(ring.last + 1, |row| row.seq);
        let skip = usize::try_from(position.saturating_add(1).saturating_sub(oldest))
            .unwrap_or(usize::MAX);
        let (mut rows, mut next) = (Vec::new(), position.max(oldest - 1));
        for row in ring.rows.iter().skip(skip) {
            if rows.len() == limit {
                break;
            }
            next = row.seq;
            if proxy.is_none_or(|name| name == row.proxy) {
                rows.push(row.clone());
            }
        }
        RequestRows {
            rows,
            next,
            lost: (oldest - 1).saturating_sub(position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toxiproxy::wire::RequestEnd;

    fn log(rows: u64, capacity: usize) -> RequestLog {
        let log = RequestLog::with_capacity(capacity);
        for at in 1..=rows {
            log.publish(RequestRow {
                seq: 0,
                proxy: if at % 2 == 0 { "even" } else { "odd" }.to_owned(),
                connection: 1,
                at,
                arrived: None,
                first_byte: None,
                ended: None,
                method: "GET".to_owned(),
                path: "/".to_owned(),
                key: None,
                trace: None,
                status: None,
                end: RequestEnd::Open,
            });
        }
        log
    }

    fn seqs(answer: &RequestRows) -> Vec<u64> {
        answer.rows.iter().map(|row| row.seq).collect()
    }

    #[test]
    fn reader_that_keeps_up_sees_every_row_once() {
        let log = log(10, 100);
        let first = log.after(0, Some(6), None);
        let second = log.after(first.next, None, None);
        assert_eq!(
            [seqs(&first), seqs(&second)].concat(),
            (1..=10).collect::<Vec<_>>()
        );
        assert_eq!((second.next, second.lost), (10, 0));
        assert_eq!(
            log.after(10, None, None),
            RequestRows {
                next: 10,
                ..RequestRows::default()
            }
        );
    }

    #[test]
    fn overwritten_rows_are_counted_as_lost() {
        let answer = log(10, 4).after(3, None, None);
        assert_eq!(
            (seqs(&answer), answer.next, answer.lost),
            (vec![7, 8, 9, 10], 10, 3)
        );
    }

    #[test]
    fn rows_of_one_proxy_leave_out_the_others() {
        let answer = log(6, 100).after(0, None, Some("even"));
        assert_eq!((seqs(&answer), answer.next), (vec![2, 4, 6], 6));
    }
}
