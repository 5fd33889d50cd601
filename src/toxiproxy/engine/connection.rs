//! One connection through a proxy, from accept to close, as one task.
//!
//! The task dials (never the accept loop), then polls two pumps. Changes reach it by a wake: it compares
//! the proxy's generation with its own and adopts the whole set, for both directions, between two polls.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Means;
use super::address;
use super::draws::Draws;
use super::gate::Gate;
use super::proxy::Toxics;
use super::pump::Pump;
use super::set::{ToxicSet, ToxicSpec};
use super::stats::Stats;
use crate::toxiproxy::clock::{self, Nanos, millis};
use crate::toxiproxy::requests::ConnectionLog;
use crate::toxiproxy::toxics::Role;
use crate::toxiproxy::wire::{RequestEnd, Stream};

/// How long an upstream may take to accept.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that says nothing is asked this often whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How long a caller that will be turned away is listened to, so that its request is logged.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that runs no set of toxics yet.
const NOT_RUNNING: u64 = u64::MAX;

/// What the draws of a connection depend on.
pub(crate) struct Identity {
    pub(crate) seed: u64,
    pub(crate) proxy: Arc<str>,
    /// From 1, in order of accept.
    pub(crate) number: u64,
}

/// Why both directions end at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A toxic closes both sides.
    ClosedByToxic,
    /// A toxic resets both sides.
    ResetByToxic,
    /// The peer that is the source of this direction was reset; so is the other.
    PeerGone(Stream),
    /// The proxy was switched off or deleted.
    SwitchedOff,
    /// The upstream could not be dialled.
    Refused,
}

/// What the proxy and the task of a connection share.
pub(crate) struct Live {
    pub(crate) identity: Identity,
    pub(crate) stats: Arc<Stats>,
    pub(crate) log: Option<ConnectionLog>,
    pub(crate) means: Arc<Means>,
    toxics: Arc<Toxics>,
    waker: AtomicWaker,
    stopped: AtomicBool,
    /// The generation that both directions run.
    generation: AtomicU64,
}

impl Live {
    /// A connection that was just accepted.
    pub(crate) fn new(
        identity: Identity,
        stats: Arc<Stats>,
        toxics: Arc<Toxics>,
        log: Option<ConnectionLog>,
        means: Arc<Means>,
    ) -> Self {
        Self {
            identity,
            stats,
            log,
            means,
            toxics,
            waker: AtomicWaker::new(),
            stopped: AtomicBool::new(false),
            generation: AtomicU64::new(NOT_RUNNING),
        }
    }

    /// Makes the task look for a new set.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Makes the task close both sides.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// The generation it runs; `None` while it carries no bytes yet.
    pub(crate) fn running(&self) -> Option<u64> {
        let generation = self.generation.load(Ordering::Acquire);
        (generation != NOT_RUNNING).then_some(generation)
    }

    /// Numbers of the requests under way.
    pub(crate) fn open_requests(&self) -> Vec<u64> {
        self.log
            .as_ref()
            .map(ConnectionLog::open_numbers)
            .unwrap_or_default()
    }

    /// Ready when the proxy wants it closed. Registers for wakes of every kind.
    fn poll_stopped(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.stopped.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Carries a connection until it ends, and accounts for how.
pub(crate) async fn run(mut client: TcpStream, upstream: String, live: Arc<Live>) {
    let end = carry(&mut client, &upstream, &live).await;
    live.generation.store(NOT_RUNNING, Ordering::Release);
    let (counter, request_end) = match end {
        None => (None, None),
        Some(Cut::ClosedByToxic | Cut::SwitchedOff) => {
            (Some(&live.stats.cut), Some(RequestEnd::CutByFault))
        }
        Some(Cut::ResetByToxic) => (Some(&live.stats.reset), Some(RequestEnd::Reset)),
        Some(Cut::PeerGone(Stream::Upstream)) => {
            (Some(&live.stats.reset), Some(RequestEnd::ClosedByCaller))
        }
        Some(Cut::PeerGone(Stream::Downstream)) => {
            (Some(&live.stats.reset), Some(RequestEnd::ClosedByCallee))
        }
        Some(Cut::Refused) => (Some(&live.stats.refused), Some(RequestEnd::Refused)),
    };
    if let Some(counter) = counter {
        counter.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(log) = &live.log {
        log.finish(request_end, clock::now());
    }
}

async fn carry(client: &mut TcpStream, upstream: &str, live: &Live) -> Option<Cut> {
    tune(client);
    if let Some(toxic) = turned_away(live) {
        let requests = hear_first_request(client, live).await;
        toxic.counters.reset_at_opening(requests);
        let _ = client.set_zero_linger();
        return Some(Cut::ResetByToxic);
    }
    if open_late(live).await.is_err() {
        return Some(Cut::SwitchedOff);
    }
    let mut server = match dial(upstream, live).await {
        Ok(server) => server,
        Err(Cut::Refused) => {
            if live.log.is_some() {
                let heard = hear_first_request(client, live).await;
                if heard > 0 {
                    // Its bytes are read, so the reset that the kernel would send must be asked for.
                    let _ = client.set_zero_linger();
                }
            }
            return Some(Cut::Refused);
        }
        Err(cut) => return Some(cut),
    };
    tune(&server);
    let cut = pipe(client, &mut server, live).await.err();
    if matches!(cut, Some(Cut::ResetByToxic | Cut::PeerGone(_))) {
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
    cut
}

/// Small writes must not wait for each other, and a peer that has vanished is found out. A socket that
/// refuses an option still works.
fn tune(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, KEEPALIVE);
    let _ = sockopt::set_tcp_keepintvl(socket, KEEPALIVE);
}

/// The toxic that keeps this connection from dialling, if one does.
fn turned_away(live: &Live) -> Option<Arc<ToxicSpec>> {
    let set = live.toxics.current();
    set.of_role(Role::Reset)
        .find(|spec| hits(spec, live))
        .cloned()
}

fn hits(spec: &ToxicSpec, live: &Live) -> bool {
    let Identity {
        seed,
        proxy,
        number,
    } = &live.identity;
    Draws::new(*seed, proxy, *number, &spec.name).hits(spec.toxicity)
}

/// Waits before the connection is dialled, for as long as toxics want it; `Err` when it is stopped.
async fn open_late(live: &Live) -> Result<(), ()> {
    let began = clock::now();
    let mut counted = BTreeSet::new();
    let mut timer = live.means.alarm.timer();
    poll_fn(|cx| {
        if live.poll_stopped(cx).is_ready() {
            return Poll::Ready(Err(()));
        }
        let due = began.saturating_add(opening_delay(live, &mut counted));
        if timer.wake_at(cx, due, clock::now()) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// How late this connection is dialled. Counts each toxic that wants it once.
fn opening_delay(live: &Live, counted: &mut BTreeSet<u64>) -> Nanos {
    let set = live.toxics.current();
    let late = set
        .of_role(Role::Opening)
        .filter(|spec| hits(spec, live))
        .map(|spec| (spec, millis(spec.attributes.get("delay"))))
        .filter(|(_, delay)| *delay > 0);
    late.fold(0, |sum: Nanos, (spec, delay)| {
        if counted.insert(spec.id) {
            spec.counters.opening_delayed();
        }
        sum.saturating_add(delay)
    })
}

async fn dial(upstream: &str, live: &Live) -> Result<TcpStream, Cut> {
    let stopped = poll_fn(|cx| live.poll_stopped(cx));
    let connected = address::connect(upstream, &live.means.lookups);
    tokio::select! {
        biased;
        () = stopped => Err(Cut::SwitchedOff),
        dialled = timeout(DIAL_TIMEOUT, connected) => match dialled {
            Ok(Ok(server)) => Ok(server),
            Ok(Err(error)) => {
                if is_exhausted(&error) {
                    tracing::warn!(proxy = &*live.identity.proxy, %error, "an upstream could not be dialled");
                }
                Err(Cut::Refused)
            }
            Err(_) => Err(Cut::Refused),
        },
    }
}

/// Whether the process or the machine is out of descriptors.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE]
        .map(|errno| Some(errno.raw_os_error()))
        .contains(&code)
}

/// Reads until one request is logged (only then is there something to wait for), bounded; returns how many were.
async fn hear_first_request(client: &TcpStream, live: &Live) -> u64 {
    let Some(log) = &live.log else { return 0 };
    let hear = async {
        let mut buffer = [0; 4096];
        while log.awaits_first_request() && client.readable().await.is_ok() {
            match client.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    log.entered(Stream::Upstream, &buffer[..length], clock::now(), false);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    let stopped = poll_fn(|cx| live.poll_stopped(cx));
    tokio::select! {
        () = stopped => {}
        _ = timeout(FIRST_REQUEST_TIMEOUT, hear) => {}
    }
    log.open_numbers().len() as u64
}

/// Pumps both directions until neither has anything to deliver or one ends them both.
async fn pipe(client: &mut TcpStream, server: &mut TcpStream, live: &Live) -> Result<(), Cut> {
    let (mut client_read, mut client_write) = client.split();
    let (mut server_read, mut server_write) = server.split();
    let mut requests = Pump::new(Stream::Upstream, &live.means.alarm);
    let mut responses = Pump::new(Stream::Downstream, &live.means.alarm);
    let mut gate = Gate::default();
    poll_fn(|cx| {
        if live.poll_stopped(cx).is_ready() {
            return Poll::Ready(Err(Cut::SwitchedOff));
        }
        if live.running() != Some(live.toxics.generation()) {
            let set = live.toxics.current();
            gate.adopt(&set);
            adopt(&set, [&mut requests, &mut responses], live)?;
        }
        requests.poll(cx, &mut client_read, &mut server_write, live, &mut gate)?;
        if requests.is_abandoned() {
            responses.source_was_reset();
        }
        let was_full = !gate.has_room(Stream::Upstream);
        responses.poll(cx, &mut server_read, &mut client_write, live, &mut gate)?;
        if was_full && gate.has_room(Stream::Upstream) {
            // Answers went that the next requests have waited for.
            cx.waker().wake_by_ref();
        }
        if responses.is_abandoned() {
            requests.source_was_reset();
        }
        if requests.is_over() && responses.is_over() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

fn adopt(set: &ToxicSet, pumps: [&mut Pump; 2], live: &Live) -> Result<(), Cut> {
    let now = clock::now();
    for pump in pumps {
        pump.chain
            .adopt(set, &live.identity, now)
            .map_err(|_| Cut::ResetByToxic)?;
        pump.allow_express(live.log.is_none() && set.spares_bytes());
    }
    live.generation.store(set.generation, Ordering::Release);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_send_small_writes_at_once_and_find_out_vanished_peers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await;
        let socket = socket.unwrap();
        tune(&socket);
        assert!(socket.nodelay().unwrap());
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket), Ok(KEEPALIVE));
        assert_eq!(sockopt::tcp_keepintvl(&socket), Ok(KEEPALIVE));
    }
}
