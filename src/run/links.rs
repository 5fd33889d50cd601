//! The proxies of the links: created, watched, and given toxics.
//!
//! The set of toxics of a link is the sum of the faults that are on; each change replaces the whole
//! set at once, and counts as done when every live connection runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::evidence::events::Bite;
use crate::evidence::{Call, CallEnd, Event, REQUEST_LOG, Record};
use crate::plan::fault::{Distribution, Down, HttpEffect, HttpFault};
use crate::plan::system::Protocol;
use crate::plan::{Direction, FaultName, LinkEffect, LinkName, Plan};
use crate::toxiproxy::client::{Client, ClientError};
use crate::toxiproxy::wire::{
    self, AllStats, ProxyUpdate, RequestEnd, RequestRow, Stream, Toxic, WhenDown,
};

use super::bindings::Bindings;
use super::journal::Journal;

/// How long a change may take to reach every live connection.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);
/// How often that is looked at.
const CONFIRM_EVERY: Duration = Duration::from_millis(5);
/// How often the request log is read: its ring holds far more than comes in meanwhile.
const REQUESTS_EVERY: Duration = Duration::from_millis(250);
/// How often counters are read.
const STATS_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Links {
    client: Client,
    plan: Arc<Plan>,
    journal: Arc<Journal>,
    state: Mutex<State>,
    names: BTreeMap<String, LinkName>,
}

#[derive(Default)]
struct State {
    toxics: BTreeMap<LinkName, BTreeMap<FaultName, Vec<Toxic>>>,
    down: BTreeMap<LinkName, BTreeSet<FaultName>>,
    cut_before: BTreeMap<(LinkName, FaultName), u64>,
}

/// A change that every connection was seen to have.
pub(crate) struct Confirmed {
    /// ns on the run clock.
    pub(crate) at_ns: u64,
    /// "12 connections".
    pub(crate) detail: String,
}

impl Links {
    pub(crate) fn new(client: Client, plan: Arc<Plan>, journal: Arc<Journal>) -> Self {
        let links = plan.system.links.iter();
        let names = links
            .map(|link| (link.name.alias(), link.name.clone()))
            .collect();
        Self {
            client,
            plan,
            journal,
            state: Mutex::default(),
            names,
        }
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
            let mut proxy = wire::Proxy::new(link.name.alias(), listen.clone(), upstream.clone());
            if link.protocol == Protocol::Http {
                proxy.protocol = wire::Protocol::Http;
            }
            proxy.correlate = link.correlate.clone();
            if link.refuse_when_down {
                proxy.when_down = WhenDown::Refuse;
                proxy.upstream_up = false;
            }
            self.client.create(&proxy).await?;
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
        for link in &self.plan.system.links {
            let meant = link.service.as_str() == service
                && port.is_none_or(|port| link.port.as_str() == port)
                && link.refuse_when_down;
            if !meant {
                continue;
            }
            if let Err(error) = self.client.set_upstream_up(&link.name.alias(), up).await {
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
            let before = self.stats().await?;
            for link in links {
                let cut = before
                    .proxies
                    .get(&link.alias())
                    .map_or(0, |stats| stats.connections.cut);
                state.cut_before.insert((link.clone(), fault.clone()), cut);
                state
                    .down
                    .entry(link.clone())
                    .or_default()
                    .insert(fault.clone());
                self.set_enabled(link, false).await?;
            }
            return self.confirm(links, &BTreeMap::new()).await;
        }
        let toxics = toxics(fault, direction, effect);
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
    pub(crate) async fn bites(&self, fault: &FaultName, links: &[LinkName]) -> Vec<Bite> {
        let Ok(stats) = self.stats().await else {
            return Vec::new();
        };
        let state = self.state.lock().await;
        let of_link = |link: &LinkName| {
            let mut bite = Bite {
                link: Some(link.clone()),
                ..Bite::default()
            };
            let Some(stats) = stats.proxies.get(&link.alias()) else {
                return bite;
            };
            for (name, toxic) in &stats.toxics {
                if name
                    .rsplit_once('.')
                    .is_some_and(|(owner, _)| owner == fault.as_str())
                {
                    bite.connections += toxic.connections;
                    bite.requests += toxic.requests;
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
        self.client.reset().await
    }

    /// Toxics and disabled proxies that are left.
    pub(crate) async fn left(&self) -> Vec<String> {
        let Ok(proxies) = self.client.proxies().await else {
            return Vec::new();
        };
        let mut left = Vec::new();
        for proxy in proxies.values() {
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

    async fn set_enabled(&self, link: &LinkName, enabled: bool) -> Result<(), String> {
        let update = ProxyUpdate {
            enabled: Some(enabled),
            ..ProxyUpdate::default()
        };
        let updated = self.client.update(&link.alias(), &update).await;
        updated.map(drop).map_err(|error| error.to_string())
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
            let set = self.client.set_toxics(&link.alias(), &set).await;
            if let Some(generation) = set.map_err(|error| error.to_string())? {
                generations.insert(link.alias(), generation);
            }
        }
        self.confirm(links, &generations).await
    }

    async fn confirm(
        &self,
        links: &[LinkName],
        generations: &BTreeMap<String, u64>,
    ) -> Result<Confirmed, String> {
        let deadline = tokio::time::Instant::now() + CONFIRM_WITHIN;
        loop {
            let all = self.stats().await?;
            let (mut current, mut older) = (0, 0);
            let mut confirmed = true;
            for link in links {
                let Some(stats) = all.proxies.get(&link.alias()) else {
                    continue;
                };
                current += stats.current;
                older += stats.older;
                let wanted = generations.get(&link.alias()).copied().unwrap_or(0);
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
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
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
            source: crate::plan::SourceName::new(REQUEST_LOG),
            rows: log.rows,
            lost: log.lost,
            error: log.error,
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
        log.rows += page.rows.len() as u64;
        let count = page.rows.len();
        for call in page.rows.into_iter().filter_map(|row| self.call(row)) {
            self.journal.record(Record::Call(call));
        }
        count
    }

    fn call(&self, row: RequestRow) -> Option<Call> {
        let clock = self.journal.clock();
        Some(Call {
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
            let Some(stats) = all.proxies.get(&link.name.alias()) else {
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

/// The toxics of a fault on one link, named `FAULT.DIRECTION`.
fn toxics(fault: &FaultName, direction: Direction, effect: &LinkEffect) -> Vec<Toxic> {
    let streams: &[(Stream, &str)] = match (effect, direction) {
        // What acts on whole connections or requests needs one side of the pipe alone.
        (effect, _) if effect.is_undirected() => &[(Stream::Upstream, "request")],
        (_, Direction::Request) => &[(Stream::Upstream, "request")],
        (_, Direction::Response) => &[(Stream::Downstream, "response")],
        (_, Direction::Both) => &[
            (Stream::Upstream, "request"),
            (Stream::Downstream, "response"),
        ],
    };
    streams
        .iter()
        .map(|(stream, side)| toxic(&format!("{fault}.{side}"), *stream, effect))
        .collect()
}

fn toxic(name: &str, stream: Stream, effect: &LinkEffect) -> Toxic {
    let ms = |duration: &Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let new = |kind: &str| Toxic::new(name, kind, stream);
    match effect {
        LinkEffect::Latency {
            latency,
            jitter,
            distribution,
        } => {
            let toxic = new("latency")
                .with("latency", ms(latency))
                .with("jitter", ms(jitter));
            match distribution {
                Distribution::Uniform => toxic,
                other => toxic.with("distribution", other.name()),
            }
        }
        LinkEffect::Stall => new("stall"),
        LinkEffect::Blackhole => new("timeout").with("timeout", 0),
        LinkEffect::Bandwidth { bytes_per_s } => new("bandwidth").with("rate", bytes_per_s / 1000),
        LinkEffect::SlowClose { delay } => new("slow_close").with("delay", ms(delay)),
        LinkEffect::ResetPeer { after } => new("reset_peer").with("timeout", ms(after)),
        LinkEffect::Slicer {
            average_size,
            size_variation,
            delay,
        } => new("slicer")
            .with("average_size", *average_size)
            .with("size_variation", *size_variation)
            .with(
                "delay",
                u64::try_from(delay.as_micros()).unwrap_or(u64::MAX),
            ),
        LinkEffect::LimitData { bytes } => new("limit_data").with("bytes", *bytes),
        LinkEffect::Reset | LinkEffect::Down { .. } => new("reset"),
        LinkEffect::SlowOpen { delay } => new("slow_open").with("delay", ms(delay)),
        LinkEffect::LimitTime { after } => new("limit_time").with("time", ms(after)),
        LinkEffect::Corrupt { every } => new("corrupt").with("every", *every),
        LinkEffect::Loss { share, timeout } => new("loss")
            .with("share", *share)
            .with("timeout", ms(timeout)),
        LinkEffect::Http(fault) => http_toxic(new("http"), fault),
        LinkEffect::Toxic {
            kind,
            attributes,
            toxicity,
        } => {
            let mut toxic = new(kind);
            toxic.attributes = attributes.clone().into_iter().collect();
            toxic.toxicity = *toxicity as f32;
            toxic
        }
    }
}

fn http_toxic(toxic: Toxic, fault: &HttpFault) -> Toxic {
    let delay = u64::try_from(fault.delay.as_millis()).unwrap_or(u64::MAX);
    let toxic = match &fault.effect {
        HttpEffect::Delay => toxic,
        HttpEffect::Status { status, body } => {
            toxic.with("status", *status).with("body", body.as_str())
        }
        HttpEffect::Abort => toxic.with("abort", true),
        HttpEffect::DropResponse => toxic.with("drop_response", true),
        HttpEffect::Body { body } => toxic.with("body", body.as_str()),
    };
    let mut pattern = serde_json::Map::new();
    let parts = [("method", &fault.method), ("path", &fault.path)];
    for (name, text) in parts {
        pattern.extend(
            text.iter()
                .map(|text| (name.to_owned(), text.as_str().into())),
        );
    }
    if !fault.header.is_empty() {
        pattern.insert("header".to_owned(), serde_json::json!(fault.header));
    }
    toxic
        .with("match", pattern)
        .with("delay", delay)
        .with("share", fault.share)
        .with("first", fault.first.unwrap_or(0))
        .with("every", fault.every.unwrap_or(0))
}
