//! One proxy: its door, its set of toxics, its live connections, its counters.
//!
//! Every change is a short synchronous step under a lock that no data passes through, so changes are
//! atomic and nothing waits for a peer.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::address::Resolved;
use super::connection::{self, Identity, Live};
use super::door::{self, Door};
use super::set::{ToxicSet, ToxicSpec};
use super::stats::Stats;
use super::{Means, address, locked};
use crate::toxiproxy::requests::{ConnectionLog, RequestLog};
use crate::toxiproxy::toxics::Counters;
use crate::toxiproxy::wire::{self, Protocol, WhenDown};

/// How long the accept loop rests when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often an upstream is tried of which nobody says whether it listens.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// Names of removed toxics whose counters are remembered.
const REMEMBERED_TOXICS: usize = 1024;

/// What of a proxy never changes.
pub(crate) struct Settings {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) correlate: Option<String>,
    pub(crate) when_down: WhenDown,
}

/// One proxy.
pub(crate) struct Proxy {
    pub(crate) settings: Settings,
    seed: u64,
    gate: Mutex<Gate>,
    pub(crate) toxics: Arc<Toxics>,
    stats: Arc<Stats>,
    log: Arc<RequestLog>,
    means: Arc<Means>,
    connections: Mutex<BTreeMap<u64, Arc<Live>>>,
}

/// Where it listens and leads.
struct Gate {
    /// As reported: what was asked until it was first bound, then the bound address.
    listen: String,
    upstream: String,
    enabled: bool,
    /// As a call said.
    upstream_up: Option<bool>,
    /// As it was found.
    found_up: bool,
    door: Option<Arc<Door>>,
    /// Keeps the port while the door is closed because the upstream is down.
    reserved: Option<TcpSocket>,
}

/// Where a proxy listens and leads, as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) listen: String,
    pub(crate) upstream: String,
    pub(crate) enabled: bool,
    /// As a call said.
    pub(crate) upstream_up: Option<bool>,
}

impl Proxy {
    /// A proxy that does not listen yet.
    pub(crate) fn new(
        settings: Settings,
        place: &Place,
        seed: u64,
        log: Arc<RequestLog>,
        means: Arc<Means>,
    ) -> Self {
        let gate = Gate {
            listen: place.listen.clone(),
            upstream: place.upstream.clone(),
            enabled: false,
            upstream_up: place.upstream_up,
            found_up: true,
            door: None,
            reserved: None,
        };
        Self {
            settings,
            seed,
            gate: Mutex::new(gate),
            toxics: Arc::default(),
            stats: Arc::default(),
            log,
            means,
            connections: Mutex::default(),
        }
    }

    /// Where it listens and leads now.
    pub(crate) fn place(&self) -> Place {
        locked(&self.gate).place()
    }

    /// Goes over to another place. `resolved` is `to.listen` resolved. On an error it is left disabled, with
    /// the new place stored.
    pub(crate) fn move_to(self: &Arc<Self>, to: &Place, resolved: &Resolved) -> Result<(), String> {
        let mut gate = locked(&self.gate);
        if gate.listen != resolved.text || gate.upstream != to.upstream {
            self.disable(&mut gate);
            gate.listen.clone_from(&to.listen);
            gate.upstream.clone_from(&to.upstream);
            gate.found_up = true;
        }
        gate.upstream_up = to.upstream_up;
        match (gate.enabled, to.enabled) {
            (false, true) => self.enable(&mut gate, resolved),
            (true, false) => {
                self.disable(&mut gate);
                Ok(())
            }
            (true, true) => self.follow_upstream(&mut gate),
            (false, false) => Ok(()),
        }
    }

    /// Switches it on. `resolved` is where it is to listen.
    pub(crate) fn start(self: &Arc<Self>, resolved: &Resolved) -> Result<(), String> {
        let mut gate = locked(&self.gate);
        if gate.enabled {
            Ok(())
        } else {
            self.enable(&mut gate, resolved)
        }
    }

    /// Switches it off: no listener, no connection.
    pub(crate) fn stop(&self) {
        self.disable(&mut locked(&self.gate));
    }

    fn enable(self: &Arc<Self>, gate: &mut Gate, resolved: &Resolved) -> Result<(), String> {
        let socket = bind(resolved)?;
        let bound = socket
            .local_addr()
            .map_err(|error| address::bind_error(&resolved.text, &error))?;
        gate.reserved = Some(socket);
        self.follow_upstream(gate)
            .inspect_err(|_| gate.reserved = None)?;
        gate.enabled = true;
        gate.listen = bound.to_string();
        let name = &*self.settings.name;
        tracing::info!(
            name,
            listen = gate.listen,
            upstream = gate.upstream,
            "Started proxy"
        );
        Ok(())
    }

    fn disable(&self, gate: &mut Gate) {
        if gate.enabled {
            let name = &*self.settings.name;
            tracing::info!(name, listen = gate.listen, "Terminated proxy");
        }
        gate.enabled = false;
        gate.reserved = None;
        if let Some(door) = gate.door.take() {
            door.close();
        }
        locked(&self.connections)
            .values()
            .for_each(|live| live.stop());
    }

    /// Opens or closes the door as the upstream listens or not; live connections are left alone.
    fn follow_upstream(self: &Arc<Self>, gate: &mut Gate) -> Result<(), String> {
        let open = gate.is_up() || self.settings.when_down == WhenDown::Accept;
        match (open, &gate.door) {
            (true, None) => self.open_door(gate),
            (false, Some(door)) => {
                door.close();
                gate.door = None;
                gate.reserved = gate
                    .listen
                    .parse()
                    .ok()
                    .and_then(|address| door::bind(address).ok());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Tries the upstream again and again, if its being down matters, until a call says whether it listens.
    pub(crate) fn follow_upstream_itself(self: &Arc<Self>) {
        if self.settings.when_down == WhenDown::Refuse {
            tokio::spawn(try_upstream(Arc::downgrade(self), Arc::clone(&self.means)));
        }
    }

    fn found(self: &Arc<Self>, upstream: &str, up: bool) {
        let mut gate = locked(&self.gate);
        if gate.enabled && gate.upstream_up.is_none() && gate.upstream == upstream {
            gate.found_up = up;
            if let Err(error) = self.follow_upstream(&mut gate) {
                let proxy = &*self.settings.name;
                tracing::warn!(
                    proxy,
                    error,
                    "the upstream is back, and callers cannot be let in"
                );
            }
        }
    }

    fn open_door(self: &Arc<Self>, gate: &mut Gate) -> Result<(), String> {
        let socket = match gate.reserved.take() {
            Some(socket) => socket,
            None => bind(&Resolved {
                address: gate
                    .listen
                    .parse()
                    .map_err(|_| "listen tcp: no address".to_owned())?,
                text: gate.listen.clone(),
            })?,
        };
        let (door, _) =
            Door::open(socket).map_err(|error| address::bind_error(&gate.listen, &error))?;
        let door = Arc::new(door);
        gate.door = Some(Arc::clone(&door));
        tokio::spawn(Arc::clone(self).accept_all(door, gate.upstream.clone()));
        Ok(())
    }

    async fn accept_all(self: Arc<Self>, door: Arc<Door>, upstream: String) {
        let admit = |client| self.admit(client, upstream.clone());
        let mut failing = false;
        while let Some(accepted) = door.accept(admit).await {
            let failed = accepted.is_err();
            if let Err(error) = accepted {
                // Said once for each time: the queue of the kernel keeps them until it goes on.
                if !failing {
                    let proxy = &*self.settings.name;
                    tracing::warn!(proxy, %error, "connections cannot be accepted; trying on");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            failing = failed;
        }
    }

    fn admit(self: &Arc<Self>, client: TcpStream, upstream: String) {
        self.stats.open.fetch_add(1, Ordering::Relaxed);
        let number = self.stats.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        let name = &self.settings.name;
        let identity = Identity {
            seed: self.seed,
            proxy: Arc::clone(name),
            number,
        };
        let log = (self.settings.protocol == Protocol::Http).then(|| {
            let correlate = self.settings.correlate.clone();
            ConnectionLog::new(
                Arc::clone(&self.log),
                Arc::clone(name),
                number,
                correlate,
                Arc::clone(&self.stats),
            )
        });
        let live = Arc::new(Live::new(
            identity,
            Arc::clone(&self.stats),
            Arc::clone(&self.toxics),
            log,
            Arc::clone(&self.means),
        ));
        locked(&self.connections).insert(number, Arc::clone(&live));
        let proxy = Arc::clone(self);
        tokio::spawn(async move {
            connection::run(client, upstream, live).await;
            locked(&proxy.connections).remove(&number);
            proxy.stats.open.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Replaces the set of toxics by what `change` makes of it, and tells every connection.
    pub(crate) fn change_toxics<T, E>(
        &self,
        change: impl FnOnce(&mut ToxicSet, &mut Makers) -> Result<T, E>,
    ) -> Result<T, E> {
        let result = self.toxics.change(change)?;
        locked(&self.connections)
            .values()
            .for_each(|live| live.wake());
        Ok(result)
    }

    /// As answers show it.
    pub(crate) fn to_wire(&self) -> wire::Proxy {
        let (place, is_up) = {
            let gate = locked(&self.gate);
            (gate.place(), gate.is_up())
        };
        wire::Proxy {
            name: self.settings.name.to_string(),
            listen: place.listen,
            upstream: place.upstream,
            enabled: place.enabled,
            toxics: self.toxics.current().to_wire(),
            protocol: self.settings.protocol,
            correlate: self.settings.correlate.clone(),
            when_down: self.settings.when_down,
            upstream_up: (!is_up).then_some(false),
        }
    }

    /// Its live statistics.
    pub(crate) fn stats(&self) -> wire::ProxyStats {
        let generation = self.toxics.generation();
        let running: Vec<u64> = locked(&self.connections)
            .values()
            .filter_map(|live| live.running())
            .collect();
        let current = running
            .iter()
            .filter(|running| **running >= generation)
            .count() as u64;
        let older = running.len() as u64 - current;
        let (enabled, listening) = {
            let gate = locked(&self.gate);
            (gate.enabled, gate.door.is_some())
        };
        wire::ProxyStats {
            enabled,
            listening,
            connections: self.stats.connections(),
            bytes: self.stats.bytes(),
            generation,
            current,
            older,
            confirmed: older == 0,
            requests: self.stats.requests.load(Ordering::Relaxed),
            opaque: self.stats.opaque.load(Ordering::Relaxed),
            toxics: self.toxics.stats(),
        }
    }

    /// Puts the requests that are still open into the log.
    pub(crate) fn flush_requests(&self) {
        let live: Vec<Arc<Live>> = locked(&self.connections).values().cloned().collect();
        live.iter()
            .filter_map(|live| live.log.as_ref())
            .for_each(ConnectionLog::flush);
    }
}

impl Gate {
    fn place(&self) -> Place {
        Place {
            listen: self.listen.clone(),
            upstream: self.upstream.clone(),
            enabled: self.enabled,
            upstream_up: self.upstream_up,
        }
    }

    fn is_up(&self) -> bool {
        self.upstream_up.unwrap_or(self.found_up)
    }
}

/// See [`Proxy::follow_upstream_itself`]. An upstream that does not answer is up: its callers wait for it without
/// a proxy too.
async fn try_upstream(proxy: Weak<Proxy>, means: Arc<Means>) {
    let place = || proxy.upgrade().map(|proxy| proxy.place());
    while let Some(place) = place().filter(|place| place.upstream_up.is_none()) {
        if place.enabled {
            let tried = address::connect(&place.upstream, &means.lookups);
            let tried = timeout(TRY_EVERY, tried).await;
            let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            let is_down = tried.is_ok_and(|tried| tried.is_err_and(refused));
            if let Some(proxy) = proxy.upgrade() {
                proxy.found(&place.upstream, !is_down);
            }
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Binds; the error is Go's text.
fn bind(resolved: &Resolved) -> Result<TcpSocket, String> {
    let bound = door::bind(resolved.address);
    bound.map_err(|error| address::bind_error(&resolved.text, &error))
}

/// The toxics of a proxy, shared with its connections.
#[derive(Default)]
pub(crate) struct Toxics {
    state: Mutex<(Arc<ToxicSet>, Makers)>,
    generation: AtomicU64,
}

/// What new toxics get: ids, and the counters of their names.
#[derive(Default)]
pub(crate) struct Makers {
    last_id: u64,
    counters: BTreeMap<String, Arc<Counters>>,
}

impl Makers {
    /// An id never used before on this proxy.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The counters of this name; those of an earlier toxic of the name if it is remembered.
    pub(crate) fn counters(&mut self, name: &str) -> Arc<Counters> {
        if self.counters.len() >= REMEMBERED_TOXICS && !self.counters.contains_key(name) {
            self.counters
                .retain(|_, counters| Arc::strong_count(counters) > 1);
        }
        Arc::clone(self.counters.entry(name.to_owned()).or_default())
    }
}

impl Toxics {
    /// The set now.
    pub(crate) fn current(&self) -> Arc<ToxicSet> {
        Arc::clone(&locked(&self.state).0)
    }

    /// Its generation.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn change<T, E>(
        &self,
        change: impl FnOnce(&mut ToxicSet, &mut Makers) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = locked(&self.state);
        let (set, makers) = &mut *state;
        let mut next = ToxicSet::clone(set);
        next.generation += 1;
        let result = change(&mut next, makers)?;
        self.generation.store(next.generation, Ordering::Release);
        *set = Arc::new(next);
        Ok(result)
    }

    fn stats(&self) -> BTreeMap<String, wire::ToxicStats> {
        let state = locked(&self.state);
        state
            .1
            .counters
            .iter()
            .map(|(name, counters)| (name.clone(), counters.read()))
            .collect()
    }

    /// A toxic by name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<ToxicSpec>> {
        self.current().find(name).cloned()
    }
}
