//! The proxies of the links: created, watched, and given toxics.
//!
//! The set of toxics of a link is the sum of the faults that are on; each change replaces the whole
//! set at once, and counts as done when every live connection runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::evidence::events::Bite;
use crate::evidence::{Call, CallEnd, Event, REQUEST_LOG, Record};
use crate::plan::fault::Down;
use crate::plan::system::Protocol;
use crate::plan::{Direction, FaultName, LinkEffect, LinkName, LinkPlan, Plan, SourceName};
use crate::toxiproxy::client::{Client, ClientError};
use crate::toxiproxy::wire::{
    self, AllStats, ProxyUpdate, RequestEnd, RequestRow, Toxic, WhenDown,
};

use super::bindings::Bindings;
use super::journal::Journal;
use super::toxics::toxics;

/// How long a change may take to reach every live connection.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);
/// How often that is looked at.
const CONFIRM_EVERY: Duration = Duration::from_millis(5);
/// How often the request log is read: its ring holds far more than comes in meanwhile.
const REQUESTS_EVERY: Duration = Duration::from_millis(250);
/// How often counters are read.
const STATS_EVERY: Duration = Duration::from_secs(1);

/// The trace of the run's own probes, by which they are told from the system's calls.
pub(crate) const PROBE_TRACE: &str = "c4a05c4a05c4a05c4a05c4a05c4a05c4";

/// See the module.
pub(crate) struct Links {
    client: Client,
    plan: Arc<Plan>,
    journal: Arc<Journal>,
    state: Mutex<State>,
    names: BTreeMap<String, LinkName>,
    server: Server,
}

/// Whose proxies these are.
enum Server {
    /// The run's own: it has them to itself, and the extensions.
    Own,
    /// Somebody's Toxiproxy: the run's proxies carry its id, and nothing else there is touched.
    Shared {
        /// What their names begin with.
        prefix: String,
    },
}

/// What the names of a run's proxies on a shared Toxiproxy begin with.
fn prefix_of(run_id: &str) -> String {
    format!("chaos-{run_id}.")
}

#[derive(Default)]
struct State {
    toxics: BTreeMap<LinkName, BTreeMap<FaultName, Vec<Toxic>>>,
    down: BTreeMap<LinkName, BTreeSet<FaultName>>,
    cut_before: BTreeMap<(LinkName, FaultName), u64>,
    /// Where the server says that each proxy listens: `[::]:80` for what was asked for as `0.0.0.0:80`.
    listens: BTreeMap<LinkName, String>,
}

/// A change that every connection was seen to have.
pub(crate) struct Confirmed {
    /// ns on the run clock.
    pub(crate) at_ns: u64,
    /// "12 connections".
    pub(crate) detail: String,
}

impl Links {
    pub(crate) fn new(
        client: Client,
        plan: Arc<Plan>,
        journal: Arc<Journal>,
        run_id: &str,
    ) -> Self {
        let links = plan.system.links.iter();
        let names = links
            .map(|link| (link.name.alias(), link.name.clone()))
            .collect();
        let server = match plan.toxiproxy {
            None => Server::Own,
            Some(_) => Server::Shared {
                prefix: prefix_of(run_id),
            },
        };
        Self {
            client,
            plan,
            journal,
            state: Mutex::default(),
            names,
            server,
        }
    }

    /// The name of a link's proxy.
    fn proxy(&self, link: &LinkName) -> String {
        match &self.server {
            Server::Own => link.alias(),
            Server::Shared { prefix } => format!("{prefix}{}", link.alias()),
        }
    }

    fn is_shared(&self) -> bool {
        matches!(self.server, Server::Shared { .. })
    }

    /// What is to be run.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Sees that the proxy of every link is as it was created: a shared server has other users.
    pub(crate) async fn verify(&self, bindings: &Bindings) -> Result<(), ClientError> {
        let proxies = self.client.proxies().await?;
        let state = self.state.lock().await;
        for link in &self.plan.system.links {
            let name = self.proxy(&link.name);
            let upstream = bindings
                .address(link.service.as_str(), link.port.as_str())
                .expect("planning resolves the port of every link");
            let wrong = match proxies.get(&name).zip(state.listens.get(&link.name)) {
                None => Some("it is gone".to_owned()),
                Some((proxy, listen)) => unlike(proxy, listen, &upstream),
            };
            if let Some(what) = wrong {
                return Err(ClientError::NotSo { proxy: name, what });
            }
        }
        Ok(())
    }

    /// The version of the proxy, once it answers.
    pub(crate) async fn version(&self) -> Result<String, ClientError> {
        self.client.version().await
    }

    /// Creates the proxy of every link. They refuse until their callee listens.
    pub(crate) async fn create(&self, bindings: &Bindings) -> Result<(), ClientError> {
        for link in &self.plan.system.links {
            let upstream = bindings
                .address(link.service.as_str(), link.port.as_str())
                .expect("planning resolves the port of every link");
            let listen = bindings.links[&link.name].clone();
            let name = self.proxy(&link.name);
            let mut proxy = wire::Proxy::new(name, listen.clone(), upstream.clone());
            if !self.is_shared() {
                extend(&mut proxy, link);
            }
            let created = self.client.create(&proxy).await?;
            let mut state = self.state.lock().await;
            state.listens.insert(link.name.clone(), created.listen);
            self.journal.event(Event::LinkCreated {
                link: link.name.clone(),
                listen,
                upstream,
            });
        }
        Ok(())
    }

    /// Tells the proxies that lead to a port whether something listens there.
    pub(crate) async fn set_listening(&self, service: &str, port: Option<&str>, up: bool) {
        if self.is_shared() {
            return;
        }
        for link in &self.plan.system.links {
            let meant = link.service.as_str() == service
                && port.is_none_or(|port| link.port.as_str() == port)
                && link.refuse_when_down;
            if !meant {
                continue;
            }
            if let Err(error) = self
                .client
                .set_upstream_up(&self.proxy(&link.name), up)
                .await
            {
                tracing::warn!(link = %link.name, %error, "the proxy was not told");
            }
        }
    }

    /// Switches a fault on. Returns when every live connection has it.
    pub(crate) async fn apply(
        &self,
        fault: &FaultName,
        links: &[LinkName],
        direction: Direction,
        effect: &LinkEffect,
    ) -> Result<Confirmed, String> {
        let mut state = self.state.lock().await;
        if let LinkEffect::Down { how: Down::Refuse } = effect {
            let before = match self.is_shared() {
                true => None,
                false => Some(self.stats().await?),
            };
            for link in links {
                if let Some(before) = &before {
                    let before = before.proxies.get(&self.proxy(link));
                    let cut = before.map_or(0, |stats| stats.connections.cut);
                    state.cut_before.insert((link.clone(), fault.clone()), cut);
                }
                state
                    .down
                    .entry(link.clone())
                    .or_default()
                    .insert(fault.clone());
                self.set_enabled(link, false).await?;
            }
            return self.confirm(&state, links, &BTreeMap::new()).await;
        }
        let toxics = toxics(fault, direction, effect, self.is_shared());
        for link in links {
            state
                .toxics
                .entry(link.clone())
                .or_default()
                .insert(fault.clone(), toxics.clone());
        }
        self.replace_sets(&state, links).await
    }

    /// Switches a fault off again.
    pub(crate) async fn lift(
        &self,
        fault: &FaultName,
        links: &[LinkName],
    ) -> Result<Confirmed, String> {
        let mut state = self.state.lock().await;
        for link in links {
            if let Some(faults) = state.toxics.get_mut(link) {
                faults.remove(fault);
            }
            if let Some(faults) = state.down.get_mut(link)
                && faults.remove(fault)
                && faults.is_empty()
            {
                self.set_enabled(link, true).await?;
            }
        }
        self.replace_sets(&state, links).await
    }

    /// What a fault did to each of its links so far.
    ///
    /// A shared Toxiproxy counts nothing: then it is up to other witnesses.
    pub(crate) async fn bites(&self, fault: &FaultName, links: &[LinkName]) -> Vec<Bite> {
        if self.is_shared() {
            return Vec::new();
        }
        let Ok(stats) = self.stats().await else {
            return Vec::new();
        };
        let state = self.state.lock().await;
        let of_link = |link: &LinkName| {
            let mut bite = Bite {
                link: Some(link.clone()),
                ..Bite::default()
            };
            let Some(stats) = stats.proxies.get(&self.proxy(link)) else {
                return bite;
            };
            for (name, toxic) in &stats.toxics {
                if name
                    .rsplit_once('.')
                    .is_some_and(|(owner, _)| owner == fault.as_str())
                {
                    // Both directions of a fault meet the same connections and requests.
                    bite.connections = bite.connections.max(toxic.touched);
                    bite.requests = bite.requests.max(toxic.requests);
                    bite.bytes_delayed += toxic.delayed_bytes + toxic.held_bytes;
                    bite.bytes_dropped += toxic.dropped_bytes;
                    bite.closed += toxic.closed + toxic.reset;
                }
            }
            if let Some(before) = state.cut_before.get(&(link.clone(), fault.clone())) {
                bite.closed += stats.connections.cut - before;
                bite.connections += stats.connections.cut - before;
            }
            bite
        };
        links.iter().map(of_link).collect()
    }

    /// Lifts everything at once, for teardown.
    pub(crate) async fn reset(&self) -> Result<(), ClientError> {
        *self.state.lock().await = State::default();
        if !self.is_shared() {
            return self.client.reset().await;
        }
        for proxy in self.own_proxies().await? {
            self.client.set_toxics(&proxy.name, &[]).await?;
            if !proxy.enabled {
                self.enable(&proxy.name, true).await?;
            }
        }
        Ok(())
    }

    /// Removes the run's proxies from a shared Toxiproxy, which outlives the run. Says which are
    /// left.
    pub(crate) async fn remove(&self) -> Vec<String> {
        match &self.server {
            Server::Own => Vec::new(),
            Server::Shared { prefix } => remove_all(&self.client, prefix).await,
        }
    }

    /// The proxies of this run.
    async fn own_proxies(&self) -> Result<Vec<wire::Proxy>, ClientError> {
        let proxies = self.client.proxies().await?.into_values();
        Ok(match &self.server {
            Server::Own => proxies.collect(),
            Server::Shared { prefix } => {
                let own = proxies.filter(|proxy| proxy.name.starts_with(prefix));
                own.collect()
            }
        })
    }

    /// Toxics and disabled proxies that are left.
    pub(crate) async fn left(&self) -> Vec<String> {
        let Ok(proxies) = self.own_proxies().await else {
            return Vec::new();
        };
        let mut left = Vec::new();
        for proxy in proxies {
            left.extend(
                proxy
                    .toxics
                    .iter()
                    .map(|t| format!("toxic `{}` on `{}`", t.name, proxy.name)),
            );
            if !proxy.enabled {
                left.push(format!("proxy `{}` is disabled", proxy.name));
            }
        }
        left
    }

    async fn enable(&self, proxy: &str, enabled: bool) -> Result<(), ClientError> {
        let update = ProxyUpdate {
            enabled: Some(enabled),
            ..ProxyUpdate::default()
        };
        self.client.update(proxy, &update).await.map(drop)
    }

    async fn set_enabled(&self, link: &LinkName, enabled: bool) -> Result<(), String> {
        let enabled = self.enable(&self.proxy(link), enabled).await;
        enabled.map_err(|error| error.to_string())
    }

    async fn replace_sets(&self, state: &State, links: &[LinkName]) -> Result<Confirmed, String> {
        let mut generations = BTreeMap::new();
        for link in links {
            let faults = state
                .toxics
                .get(link)
                .into_iter()
                .flat_map(BTreeMap::values);
            let set: Vec<Toxic> = faults.flatten().cloned().collect();
            let name = self.proxy(link);
            let set = self.client.set_toxics(&name, &set).await;
            if let Some(generation) = set.map_err(|error| error.to_string())? {
                generations.insert(name, generation);
            }
        }
        self.confirm(state, links, &generations).await
    }

    /// A shared Toxiproxy does not tell what its connections run: there, a change counts as done
    /// when it reads back.
    async fn read_back(&self, state: &State, links: &[LinkName]) -> Result<Confirmed, String> {
        for link in links {
            let name = self.proxy(link);
            let proxy = self.client.proxy(&name).await;
            let proxy = proxy.map_err(|error| error.to_string())?;
            let faults = state.toxics.get(link).into_iter();
            let mut wanted = faults.flat_map(BTreeMap::values).flatten();
            let has = |toxic: &Toxic| proxy.toxics.iter().any(|it| it.name == toxic.name);
            let is_down = state.down.get(link).is_some_and(|it| !it.is_empty());
            let n: usize = state
                .toxics
                .get(link)
                .map_or(0, |it| it.values().map(Vec::len).sum());
            if !wanted.all(has) || proxy.toxics.len() != n || proxy.enabled == is_down {
                return Err(format!("`{name}` does not read back what it was told"));
            }
        }
        Ok(Confirmed {
            at_ns: self.journal.now_ns(),
            detail: "read back".into(),
        })
    }

    async fn confirm(
        &self,
        state: &State,
        links: &[LinkName],
        generations: &BTreeMap<String, u64>,
    ) -> Result<Confirmed, String> {
        if self.is_shared() {
            return self.read_back(state, links).await;
        }
        let deadline = tokio::time::Instant::now() + CONFIRM_WITHIN;
        loop {
            let all = self.stats().await?;
            let (mut current, mut older) = (0, 0);
            let mut confirmed = true;
            for link in links {
                let Some(stats) = all.proxies.get(&self.proxy(link)) else {
                    continue;
                };
                current += stats.current;
                older += stats.older;
                let wanted = generations.get(&self.proxy(link)).copied().unwrap_or(0);
                confirmed &= stats.confirmed && stats.generation >= wanted;
            }
            if confirmed {
                let at_ns = self.journal.clock().from_mono(all.at);
                return Ok(Confirmed {
                    at_ns,
                    detail: format!("{current} live connections"),
                });
            }
            if tokio::time::Instant::now() > deadline {
                return Err(format!(
                    "only {current} of {} connections had it after {} s",
                    current + older,
                    CONFIRM_WITHIN.as_secs()
                ));
            }
            tokio::time::sleep(CONFIRM_EVERY).await;
        }
    }

    async fn stats(&self) -> Result<AllStats, String> {
        self.client.stats().await.map_err(|error| error.to_string())
    }

    /// Reads counters and the request log until told to stop, then the rest of the log.
    ///
    /// A shared Toxiproxy has neither.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        if self.is_shared() {
            return;
        }
        let mut log = RequestLog::default();
        let mut requests = tokio::time::interval(REQUESTS_EVERY);
        let mut stats = tokio::time::interval(STATS_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = requests.tick() => self.read_requests(&mut log, false).await,
                _ = stats.tick() => self.report_stats().await,
            }
        }
        self.read_requests(&mut log, true).await;
        self.report_stats().await;
        self.journal.event(Event::SourceRead {
            source: SourceName::new(REQUEST_LOG),
            rows: log.rows,
            lost: log.lost,
            error: log.error,
            clock_error_ns: 0,
        });
    }

    /// Reads the log up to now; `to_the_end` adds the requests that are still open.
    async fn read_requests(&self, log: &mut RequestLog, to_the_end: bool) {
        while self.read_page(log, false).await > 0 {}
        if to_the_end {
            self.read_page(log, true).await;
        }
    }

    /// Reads a page of the log; says how many rows it had.
    async fn read_page(&self, log: &mut RequestLog, open_too: bool) -> usize {
        let page = match self.client.requests(log.next, open_too).await {
            Ok(page) => page,
            Err(error) => {
                log.error = Some(error.to_string());
                return 0;
            }
        };
        log.error = None;
        log.lost += page.lost;
        log.next = page.next;
        let count = page.rows.len();
        for call in page.rows.into_iter().filter_map(|row| self.call(row)) {
            log.rows += 1;
            self.journal.record(Record::Call(call));
        }
        count
    }

    fn call(&self, row: RequestRow) -> Option<Call> {
        // What the run itself asks is nobody's traffic.
        if row.trace.as_deref() == Some(PROBE_TRACE) {
            return None;
        }
        let clock = self.journal.clock();
        Some(Call {
            source: SourceName::new(REQUEST_LOG),
            link: self.names.get(&row.proxy)?.clone(),
            connection: row.connection,
            at_ns: clock.from_mono(row.at),
            first_byte_ns: row.first_byte.map(|at| clock.from_mono(at)),
            ended_ns: row.ended.map(|at| clock.from_mono(at)),
            method: row.method,
            path: row.path,
            key: row.key,
            trace: row.trace,
            status: row.status,
            end: match row.end {
                RequestEnd::Answered => CallEnd::Answered,
                RequestEnd::CutByFault => CallEnd::Cut,
                RequestEnd::ClosedByCaller => CallEnd::ClosedByCaller,
                RequestEnd::ClosedByCallee => CallEnd::ClosedByCallee,
                RequestEnd::Reset => CallEnd::Reset,
                RequestEnd::Refused => CallEnd::Refused,
                RequestEnd::Open => CallEnd::Open,
            },
        })
    }

    async fn report_stats(&self) {
        let Ok(all) = self.stats().await else { return };
        for link in &self.plan.system.links {
            let Some(stats) = all.proxies.get(&self.proxy(&link.name)) else {
                continue;
            };
            self.journal.event(Event::LinkStats {
                link: link.name.clone(),
                connections: stats.connections.accepted,
                open: stats.connections.open,
                refused: stats.connections.refused
                    + stats.connections.reset
                    + stats.connections.cut,
                request_bytes: stats.bytes.upstream_sent,
                response_bytes: stats.bytes.downstream_sent,
                requests: (link.protocol == Protocol::Http).then_some(stats.requests),
                opaque: stats.opaque,
            });
        }
    }
}

#[derive(Default)]
struct RequestLog {
    next: u64,
    rows: u64,
    lost: u64,
    error: Option<String>,
}

/// What of a proxy without faults is not as it should be.
fn unlike(proxy: &wire::Proxy, listen: &str, upstream: &str) -> Option<String> {
    if proxy.listen != listen {
        Some(format!("it listens on {}", proxy.listen))
    } else if proxy.upstream != upstream {
        Some(format!("it leads to {}", proxy.upstream))
    } else if !proxy.enabled {
        Some("it is disabled".to_owned())
    } else {
        let toxic = proxy.toxics.first()?;
        Some(format!("it has toxic `{}`", toxic.name))
    }
}

/// What our own proxy can do for a link beyond a Toxiproxy.
fn extend(proxy: &mut wire::Proxy, link: &LinkPlan) {
    if link.protocol == Protocol::Http {
        proxy.protocol = wire::Protocol::Http;
    }
    proxy.correlate = link.correlate.clone();
    if link.refuse_when_down {
        proxy.when_down = WhenDown::Refuse;
        proxy.upstream_up = Some(false);
    }
}

/// Removes what a killed run left on a shared Toxiproxy. Says which proxies are left.
pub(super) async fn remove_leftovers(
    server: &str,
    run_id: &str,
) -> Result<Vec<String>, ClientError> {
    let client = Client::new(server)?;
    Ok(remove_all(&client, &prefix_of(run_id)).await)
}

/// Deletes every proxy whose name begins like this; says which are left.
async fn remove_all(client: &Client, prefix: &str) -> Vec<String> {
    let proxies = match client.proxies().await {
        Ok(proxies) => proxies,
        // A server that is gone has taken its proxies with it. One that is out of reach has not.
        Err(error) if error.is_connection_refused() => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "the run's proxies were not removed");
            return vec![format!("proxies `{prefix}*`")];
        }
    };
    let own = proxies.keys().filter(|name| name.starts_with(prefix));
    let removals = own.map(|name| async move {
        let removed = client.delete(name).await;
        removed.err().map(|error| {
            tracing::warn!(%error, "a proxy of the run was not removed");
            format!("proxy `{name}`")
        })
    });
    // At once: one that hangs must not keep the others.
    join_all(removals).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn server_out_of_reach_keeps_its_proxies_and_one_that_is_gone_has_none() {
        // No route leads to a broadcast address.
        let left = remove_leftovers("http://255.255.255.255:8474", "7f3a").await;
        assert_eq!(left.expect("a client"), ["proxies `chaos-7f3a.*`"]);
        let left = remove_leftovers("http://127.0.0.1:1", "7f3a").await;
        assert_eq!(left.expect("a client"), Vec::<String>::new());
    }
}
