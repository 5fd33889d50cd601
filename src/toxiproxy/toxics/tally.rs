//! What a toxic did, counted while it does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Item, Piece};
use crate::toxiproxy::wire;

/// Counters of one toxic, shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    connections: AtomicU64,
    touched: AtomicU64,
    delayed: Volume,
    held: Volume,
    dropped: Volume,
    changed: AtomicU64,
    closed: AtomicU64,
    reset: AtomicU64,
    requests: AtomicU64,
}

/// Chunks and their bytes.
#[derive(Debug, Default)]
struct Volume {
    chunks: AtomicU64,
    bytes: AtomicU64,
}

impl Volume {
    fn add(&self, bytes: usize) {
        self.chunks.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

impl Counters {
    /// Counts a connection that this toxic resets before it is dialled, and its requests.
    pub(crate) fn reset_at_opening(&self, requests: u64) {
        self.connections.fetch_add(1, Relaxed);
        self.touched.fetch_add(1, Relaxed);
        self.reset.fetch_add(1, Relaxed);
        self.requests.fetch_add(requests, Relaxed);
    }

    /// Counts a connection whose opening waits for a time.
    pub(crate) fn opening_delayed(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.touched.fetch_add(1, Relaxed);
        self.delayed.add(0);
    }

    /// As the statistics show it.
    pub(crate) fn read(&self) -> wire::ToxicStats {
        wire::ToxicStats {
            connections: self.connections.load(Relaxed),
            touched: self.touched.load(Relaxed),
            delayed_chunks: self.delayed.chunks.load(Relaxed),
            delayed_bytes: self.delayed.bytes.load(Relaxed),
            held_chunks: self.held.chunks.load(Relaxed),
            held_bytes: self.held.bytes.load(Relaxed),
            dropped_chunks: self.dropped.chunks.load(Relaxed),
            dropped_bytes: self.dropped.bytes.load(Relaxed),
            changed_chunks: self.changed.load(Relaxed),
            closed: self.closed.load(Relaxed),
            reset: self.reset.load(Relaxed),
            requests: self.requests.load(Relaxed),
        }
    }
}

/// The view of one stage on the counters: it knows which requests it counted already.
#[derive(Debug)]
pub(crate) struct Tally {
    counters: Arc<Counters>,
    counted_request: u64,
    has_touched: bool,
}

impl Tally {
    /// Starts counting on one direction of one connection.
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            counted_request: 0,
            has_touched: false,
        }
    }

    /// The toxic is in force on this connection, which need not mean that it does anything.
    pub(crate) fn connection(&self) {
        self.counters.connections.fetch_add(1, Relaxed);
    }

    /// The piece has to wait for a time.
    pub(crate) fn delayed(&mut self, item: &Item) {
        self.count(item, |counters| &counters.delayed);
    }

    /// The piece has to wait until something changes.
    pub(crate) fn held(&mut self, item: &Item) {
        self.count(item, |counters| &counters.held);
    }

    /// The piece is swallowed.
    pub(crate) fn dropped(&mut self, item: &Item) {
        self.count(item, |counters| &counters.dropped);
    }

    /// The piece is cut up or altered.
    pub(crate) fn changed(&mut self, piece: &Piece) {
        self.counters.changed.fetch_add(1, Relaxed);
        self.touch();
        self.request(piece.request);
    }

    /// The toxic acts on this request.
    pub(crate) fn acts_on(&mut self, request: u64) {
        self.touch();
        self.request(request);
    }

    /// The toxic closes the connection.
    pub(crate) fn closed(&mut self) {
        self.touch();
        self.counters.closed.fetch_add(1, Relaxed);
    }

    /// The toxic resets the connection.
    pub(crate) fn reset(&mut self) {
        self.touch();
        self.counters.reset.fetch_add(1, Relaxed);
    }

    /// The toxic cut these requests off.
    pub(crate) fn cut_requests(&mut self, numbers: impl IntoIterator<Item = u64>) {
        numbers.into_iter().for_each(|number| self.request(number));
    }

    /// Counts the connection once, with the first thing that is done to it.
    fn touch(&mut self) {
        if !self.has_touched {
            self.has_touched = true;
            self.counters.touched.fetch_add(1, Relaxed);
        }
    }

    fn count(&mut self, item: &Item, volume: fn(&Counters) -> &Volume) {
        self.touch();
        match item {
            Item::Data(piece) => {
                volume(&self.counters).add(piece.data.len());
                self.request(piece.request);
            }
            Item::End(_) => volume(&self.counters).add(0),
        }
    }

    /// Requests come in order on a connection, so the highest number counted tells which are new.
    fn request(&mut self, number: u64) {
        if number > self.counted_request {
            self.counted_request = number;
            self.counters.requests.fetch_add(1, Relaxed);
        }
    }
}
