//! Counters of one proxy, updated while connections live.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::toxiproxy::wire::{ByteStats, ConnectionStats, Stream};

/// Counters that only grow, except `open`.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) open: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) reset: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) opaque: AtomicU64,
    pub(crate) spliced: AtomicU64,
    received: [AtomicU64; 2],
    sent: [AtomicU64; 2],
}

impl Stats {
    /// Bytes read from the source of a direction.
    pub(crate) fn received(&self, stream: Stream) -> &AtomicU64 {
        &self.received[stream as usize]
    }

    /// Bytes written to the destination of a direction.
    pub(crate) fn sent(&self, stream: Stream) -> &AtomicU64 {
        &self.sent[stream as usize]
    }

    /// The connections as shown.
    pub(crate) fn connections(&self) -> ConnectionStats {
        ConnectionStats {
            open: self.open.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            reset: self.reset.load(Relaxed),
            cut: self.cut.load(Relaxed),
        }
    }

    /// The bytes as shown.
    pub(crate) fn bytes(&self) -> ByteStats {
        ByteStats {
            upstream_received: self.received(Stream::Upstream).load(Relaxed),
            upstream_sent: self.sent(Stream::Upstream).load(Relaxed),
            downstream_received: self.received(Stream::Downstream).load(Relaxed),
            downstream_sent: self.sent(Stream::Downstream).load(Relaxed),
            spliced: self.spliced.load(Relaxed),
        }
    }
}
