//! One direction of a connection: reads the source, drives the chain, writes the destination.
//!
//! It is polled by its connection's task and never blocks: whatever a peer does, the next poll sees a
//! changed set of toxics.
//!
//! Bytes that nobody looks at need not come up here: after [`EXPRESS_AFTER`] of them in bulk they go from
//! socket to socket inside the kernel (`express.rs`), until a toxic arrives.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio_util::io::poll_read_buf;

use super::alarm::{Alarm, Timer};
use super::chain::Chain;
use super::connection::{Cut, Live};
use super::express::{DestinationGone, Express, Ride};
use super::gate::{Gate, Surroundings};
use crate::toxiproxy::clock::{self, Nanos};
use crate::toxiproxy::toxics::{Ending, Item, Part, Piece};
use crate::toxiproxy::wire::Stream;

/// Read at once, into a buffer that exists only while there is something to read.
const BUFFER: usize = 64 * 1024;

/// Read at once where the last read filled a buffer: the kernel's work per call is most of what bulk costs.
const WIDE_BUFFER: usize = 4 * BUFFER;

/// What is read at least is kept in the buffer it was read into; less is copied, so that many small pieces
/// do not hold a buffer each.
const WORTH_A_BUFFER: usize = BUFFER / 8;

/// How often a direction reads or writes before others get their turn: a few hundred connections that
/// never pause must not keep the API waiting.
const TURNS: usize = 16;

/// Bytes one way after which a connection is worth a pipe. Those of small reads do not count: two calls for
/// a few bytes cost less than two for their page.
const EXPRESS_AFTER: u64 = 256 * 1024;

/// One direction at work.
pub(crate) struct Pump {
    stream: Stream,
    pub(crate) chain: Chain,
    express: Express,
    /// Bytes, of those that came many at a time.
    carried: u64,
    buffer: BytesMut,
    /// The last read showed that there is much to read.
    in_bulk: bool,
    source_ended: bool,
    /// A write of the other direction met a reset of the source.
    source_reset: bool,
    /// The destination is gone: what is still under way to it is dropped, so that the source can finish.
    abandoned: bool,
    finished: bool,
    timer: Timer,
}

impl Pump {
    /// Nothing read yet.
    pub(crate) fn new(stream: Stream, alarm: &Alarm) -> Self {
        Self {
            stream,
            chain: Chain::new(stream),
            express: Express::default(),
            carried: 0,
            buffer: BytesMut::new(),
            in_bulk: false,
            source_ended: false,
            source_reset: false,
            abandoned: false,
            finished: false,
            timer: alarm.timer(),
        }
    }

    /// Goes as far as it can, or says why both directions end. When it is over it is polled on until the
    /// other one is.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut ReadHalf<'_>,
        destination: &mut WriteHalf<'_>,
        live: &Live,
        gate: &mut Gate,
    ) -> Result<(), Cut> {
        let turns = if self.in_bulk {
            TURNS / (WIDE_BUFFER / BUFFER)
        } else {
            TURNS
        };
        for _ in 0..turns {
            let now = clock::now();
            let log = live.log.as_ref().filter(|_| !self.finished);
            let opened = log.and_then(|log| {
                let identity = &live.identity;
                let around = Surroundings { log, identity, now };
                gate.advance(self.stream, &mut self.chain, &around)
            });
            let was_full = !self.chain.has_room();
            let released = self
                .chain
                .advance(now, &|| live.open_requests())
                .map_err(|_| Cut::ResetByToxic)?;
            // The gate may have waited for that room.
            let freed = was_full && self.chain.has_room();
            let wake_at = opened.into_iter().chain(released).min();
            let ride = self.ride(cx, source, destination, live);
            if matches!(ride, Ride::Moved | Ride::Waits) {
                // The next bytes hardly come this way.
                self.buffer = BytesMut::new();
            }
            let moved = match ride {
                // Nothing comes or goes any more; but toxics may still end the connection.
                _ if self.finished => self.write(cx, destination, live)?,
                Ride::Moved => true,
                Ride::Waits if self.express.is_open() => false,
                // The pipe is on its last bytes; toxics see already what comes behind them.
                Ride::Waits => self.read(cx, source, live, gate),
                Ride::Broken => {
                    self.end(Ending::PeerReset, live, gate);
                    true
                }
                // Bytes in user space go first; reading more would keep them coming.
                Ride::Ready if !self.chain.out.is_empty() => self.write(cx, destination, live)?,
                Ride::Ready | Ride::Empty => {
                    let read = self.read(cx, source, live, gate);
                    read | self.write(cx, destination, live)?
                }
            };
            if !moved && !freed && !self.sleep_until(cx, now, wake_at) {
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Whether nobody takes what it delivers any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// Whether it has nothing to deliver any more.
    pub(crate) fn is_over(&self) -> bool {
        self.finished || self.abandoned
    }

    /// Its source was reset, of which a read need not hear: the kernel reports it once.
    pub(crate) fn source_was_reset(&mut self) {
        self.source_reset = true;
    }

    /// Whether nobody looks at the bytes, so that they may go inside the kernel.
    pub(crate) fn allow_express(&mut self, allowed: bool) {
        self.express.allow(allowed);
    }

    /// Moves bytes inside the kernel, if this direction does.
    fn ride(
        &mut self,
        cx: &mut Context<'_>,
        source: &ReadHalf<'_>,
        destination: &WriteHalf<'_>,
        live: &Live,
    ) -> Ride {
        if self.carried < EXPRESS_AFTER || self.abandoned || self.chain.is_closing() {
            return Ride::Empty;
        }
        let may_fill = !self.source_ended && self.chain.out.is_empty();
        let (source, destination) = (source.as_ref(), destination.as_ref());
        let pipes = may_fill.then_some(&live.means.pipes);
        let ridden = self.express.ride(cx, source, destination, pipes);
        let (received, sent) = self.express.take_counts();
        let stats = &live.stats;
        stats.received(self.stream).fetch_add(received, Relaxed);
        stats.sent(self.stream).fetch_add(sent, Relaxed);
        stats.spliced.fetch_add(sent, Relaxed);
        match ridden {
            Err(DestinationGone) => {
                self.abandon(live);
                Ride::Moved
            }
            Ok(Ride::Empty) if self.express.is_open() && !self.source_ended => Ride::Ready,
            Ok(ride) => ride,
        }
    }

    /// The destination takes nothing any more. The other direction may have bytes of it to deliver yet.
    fn abandon(&mut self, live: &Live) {
        self.abandoned = true;
        self.express = Express::default();
        if let Some(log) = &live.log {
            log.source_closed(self.destination(), clock::now());
        }
    }

    /// Reads once, if there is room and something to read.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut ReadHalf<'_>,
        live: &Live,
        gate: &mut Gate,
    ) -> bool {
        if self.source_ended || !self.chain.has_room() || !gate.has_room(self.stream) {
            return false;
        }
        if self.buffer.capacity() < WORTH_A_BUFFER {
            let size = if self.in_bulk { WIDE_BUFFER } else { BUFFER };
            // Not `reserve`, which would move what was read before along.
            if !self.buffer.try_reclaim(size) {
                self.buffer = BytesMut::with_capacity(size);
            }
        }
        match poll_read_buf(Pin::new(source), cx, &mut self.buffer) {
            Poll::Pending => {
                self.buffer = BytesMut::new();
                return false;
            }
            Poll::Ready(Ok(0)) if self.source_reset => self.end(Ending::PeerReset, live, gate),
            Poll::Ready(Ok(0)) => self.end(Ending::Finished, live, gate),
            Poll::Ready(Ok(length)) => {
                let is_filled = self.buffer.len() == self.buffer.capacity();
                self.in_bulk = is_filled || length >= BUFFER;
                let data = if length < WORTH_A_BUFFER {
                    let copy = Bytes::copy_from_slice(&self.buffer);
                    self.buffer.clear();
                    copy
                } else {
                    self.carried += length as u64;
                    self.buffer.split().freeze()
                };
                live.stats
                    .received(self.stream)
                    .fetch_add(data.len() as u64, Relaxed);
                self.enter(data, live, gate);
            }
            Poll::Ready(Err(_)) => self.end(Ending::PeerReset, live, gate),
        }
        true
    }

    /// Lets bytes into the chain, seen by the request log and the gate first.
    fn enter(&mut self, mut data: Bytes, live: &Live, gate: &mut Gate) {
        let at = clock::now();
        let Some(log) = &live.log else {
            let piece = Piece {
                data,
                at,
                request: 0,
                part: Part::Opaque,
            };
            return self.chain.accept(Item::Data(piece));
        };
        let around = Surroundings {
            log,
            identity: &live.identity,
            now: at,
        };
        for span in log.entered(self.stream, &data, at, gate.wants_heads()) {
            let data = data.split_to(span.length.min(data.len()));
            let piece = Piece {
                data,
                at,
                request: span.request,
                part: span.part,
            };
            let head = span.head.as_deref();
            gate.enter(self.stream, piece, head, &mut self.chain, &around);
        }
    }

    fn end(&mut self, ending: Ending, live: &Live, gate: &mut Gate) {
        self.source_ended = true;
        self.buffer = BytesMut::new();
        match &live.log {
            None => self.chain.accept(Item::End(ending)),
            Some(log) => {
                log.source_closed(self.stream, clock::now());
                gate.end(self.stream, ending, &mut self.chain);
            }
        }
    }

    /// Writes what came out of the chain, as far as the destination takes it.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut WriteHalf<'_>,
        live: &Live,
    ) -> Result<bool, Cut> {
        let mut wrote = false;
        while let Some(item) = self.chain.out.front() {
            match item {
                Item::Data(_) if self.abandoned => drop(self.chain.out.pop()),
                Item::End(Ending::Finished) if self.abandoned => {
                    self.finish();
                    return Ok(true);
                }
                Item::Data(piece) => {
                    let written = match Pin::new(&mut *destination).poll_write(cx, &piece.data) {
                        Poll::Pending => return Ok(wrote),
                        Poll::Ready(Ok(written)) => written,
                        Poll::Ready(Err(_)) => {
                            self.abandon(live);
                            return Ok(true);
                        }
                    };
                    self.wrote(written, live);
                }
                Item::End(Ending::Finished) => return Ok(self.close(cx, destination, live)),
                Item::End(Ending::PeerReset) => return Err(Cut::PeerGone(self.stream)),
                Item::End(Ending::Close) => return Err(Cut::ClosedByToxic),
                Item::End(Ending::Reset) => return Err(Cut::ResetByToxic),
            }
            wrote = true;
        }
        Ok(wrote)
    }

    fn wrote(&mut self, written: usize, live: &Live) {
        live.stats
            .sent(self.stream)
            .fetch_add(written as u64, Relaxed);
        if let (Stream::Downstream, Some(log), Some(Item::Data(piece))) =
            (self.stream, &live.log, self.chain.out.front())
        {
            log.delivered(
                piece.request,
                piece.part,
                written == piece.data.len(),
                clock::now(),
            );
        }
        self.chain.out.advance_front(written);
    }

    /// Passes the end on: the other direction lives on.
    fn close(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut WriteHalf<'_>,
        live: &Live,
    ) -> bool {
        match Pin::new(destination).poll_shutdown(cx) {
            Poll::Pending => return false,
            Poll::Ready(Err(error)) if error.kind() != io::ErrorKind::NotConnected => {
                self.abandon(live);
                return true;
            }
            Poll::Ready(_) => {}
        }
        if let (Stream::Downstream, Some(log)) = (self.stream, &live.log) {
            log.delivered_end(clock::now());
        }
        self.finish();
        true
    }

    /// The end that is next has been passed on.
    fn finish(&mut self) {
        self.finished = true;
        self.chain.out.pop();
    }

    /// The direction whose source is this one's destination.
    fn destination(&self) -> Stream {
        match self.stream {
            Stream::Upstream => Stream::Downstream,
            Stream::Downstream => Stream::Upstream,
        }
    }

    /// Arms the timer; true when the time has come already.
    fn sleep_until(&mut self, cx: &Context<'_>, now: Nanos, wake_at: Option<Nanos>) -> bool {
        match wake_at {
            Some(wake_at) => self.timer.wake_at(cx, wake_at, now),
            None => {
                self.timer.clear();
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Poll, Wake, Waker};

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::toxiproxy::engine::Means;
    use crate::toxiproxy::engine::connection::Identity;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await;
        (near.unwrap(), listener.accept().await.unwrap().0)
    }

    fn live() -> Live {
        let identity = Identity {
            seed: 1,
            proxy: "p".into(),
            number: 1,
        };
        let means = Arc::<Means>::default();
        Live::new(identity, Arc::default(), Arc::default(), None, means)
    }

    #[tokio::test]
    async fn direction_that_is_over_lets_its_task_sleep() {
        for is_gone in [false, true] {
            let (mut sender, mut source) = pair().await;
            let (mut destination, receiver) = pair().await;
            let (mut source, _) = source.split();
            let (_, mut destination) = destination.split();
            let live = live();
            let mut pump = Pump::new(Stream::Upstream, &live.means.alarm);
            let mut gate = Gate::default();
            let mut poll = |pump: &mut Pump, cx: &mut Context<'_>| {
                let ended = pump.poll(cx, &mut source, &mut destination, &live, &mut gate);
                ended.unwrap();
            };
            let kept = (!is_gone).then_some(receiver);
            while is_gone && !pump.is_abandoned() {
                sender.write_all(b"x").await.unwrap();
                tokio::task::yield_now().await;
                poll_fn(|cx| {
                    poll(&mut pump, cx);
                    Poll::Ready(())
                })
                .await;
            }
            sender.shutdown().await.unwrap();
            poll_fn(|cx| {
                poll(&mut pump, cx);
                match pump.finished {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            let wakes = Arc::new(Wakes::default());
            poll(
                &mut pump,
                &mut Context::from_waker(&Waker::from(Arc::clone(&wakes))),
            );
            assert_eq!(wakes.0.load(Relaxed), 0, "gone: {is_gone}");
            drop(kept);
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn direction_that_took_a_pipe_holds_no_buffer() {
        let (mut sender, mut source) = pair().await;
        let (mut destination, mut receiver) = pair().await;
        let (mut source, _) = source.split();
        let (_, mut destination) = destination.split();
        tokio::spawn(async move {
            // No multiple of any buffer: something of the last one is left.
            sender.write_all(&[1; 300_001]).await.unwrap();
            while sender.write_all(&[1; 1_001]).await.is_ok() {
                tokio::task::yield_now().await;
            }
        });
        tokio::spawn(async move { tokio::io::copy(&mut receiver, &mut tokio::io::sink()).await });
        let live = live();
        let mut pump = Pump::new(Stream::Upstream, &live.means.alarm);
        pump.allow_express(true);
        let mut gate = Gate::default();
        poll_fn(|cx| {
            let ended = pump.poll(cx, &mut source, &mut destination, &live, &mut gate);
            ended.unwrap();
            match live.stats.spliced.load(Relaxed) {
                0 => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
        assert!(pump.carried > 0);
        assert_eq!(pump.buffer.capacity(), 0);
    }
}
