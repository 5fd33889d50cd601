//! One running service: ports, background work, evidence, and an orderly end.
//!
//! ```text
//! let service = Service::start("payments", environment, stop).await?;
//! let store = service.store(TABLES).await?;
//! let psp = service.edge("psp", EdgePolicy::psp(service.config().profile))?;
//! let bus = service.bus()?;
//! service.relay(&store, &bus);
//! service.serve(public, internal).await
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::bus::{Bus, BusClient};
use super::clock::Clock;
use super::config::{Config, ConfigError};
use super::consumer::{Consumer, ConsumerSpec, Handler};
use super::edge::{Attempts, Edge, EdgePolicy};
use super::evidence::Evidence;
use super::health::Health;
use super::http::server::{self, InFlight};
use super::http::{Drained, wrap};
use super::killpoint::KillPoints;
use super::outbox::Relay;
use super::routes;
use super::shutdown::Stop;
use super::store::{Store, StoreError};
use super::telemetry;

/// How long requests in flight may take after the signal.
const DRAIN: Duration = Duration::from_secs(20);
/// How long answers may take to leave after their handlers are done.
const CLOSE: Duration = Duration::from_secs(1);
/// How long the background work may take to end after that.
const WIND_UP: Duration = Duration::from_secs(10);
/// The pause between tries to open a database that is locked.
const STORE_PAUSE: Duration = Duration::from_millis(200);

/// Why a service could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no service of this name.
    #[error("no service is called `{0}`")]
    UnknownService(String),
    /// The environment is incomplete or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port is taken, or the kernel refused something else.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An HTTP client cannot be set up.
    #[error("cannot set up an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// It was stopped before all work was finished.
    #[error("stopped with {0} pieces of work cut")]
    WorkCut(u64),
}

/// One service of this process; clones share it.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

pub(super) struct Shared {
    pub(super) config: Arc<Config>,
    pub(super) killpoints: KillPoints,
    pub(super) health: Health,
    pub(super) edges: Mutex<Vec<Edge>>,
    pub(super) attempts: Attempts,
    pub(super) stores: Mutex<Option<Store>>,
    pub(super) bus: Mutex<Option<Arc<dyn Bus>>>,
    pub(super) queues: Mutex<Vec<&'static str>>,
    pub(super) in_flight: InFlight,
    /// The wish from outside.
    stop: Stop,
    /// What background work is told, once no request is in flight any more.
    wind_up: Stop,
    tasks: Mutex<JoinSet<()>>,
    listeners: Mutex<Option<(TcpListener, Option<TcpListener>)>>,
}

impl Shared {
    /// Whether the service was asked to stop.
    pub(super) fn stopping(&self) -> bool {
        self.stop.asked()
    }
}

impl Service {
    /// Reads the environment, starts the logs and takes the ports.
    ///
    /// # Errors
    /// The environment is wrong or a port is taken.
    pub async fn start(
        name: &'static str,
        environment: &BTreeMap<String, String>,
        stop: Stop,
    ) -> Result<Self, RunError> {
        let config = Arc::new(Config::from_environment(name, environment)?);
        telemetry::init(&config);
        let killpoints = KillPoints::parse(config.optional("SHOP_KILLPOINT").unwrap_or_default())?;
        let http = server::bind(config.http).await?;
        let admin = match config.admin {
            Some(address) => Some(server::bind(address).await?),
            None => None,
        };
        let ports = json!({
            "pid": std::process::id(),
            "incarnation": config.incarnation,
            "http": http.local_addr()?,
            "admin": admin.as_ref().map(TcpListener::local_addr).transpose()?,
        });
        if let Some(file) = config.optional("SHOP_READY_FILE") {
            // Renamed into place, so that nobody reads half of it.
            let unfinished = format!("{file}.unfinished");
            tokio::fs::write(&unfinished, ports.to_string()).await?;
            tokio::fs::rename(&unfinished, file).await?;
        }
        tracing::info!(
            http = %http.local_addr()?,
            defects = config.defects.names().join(","),
            profile = config.profile.name(),
            "started"
        );
        Ok(Self(Arc::new(Shared {
            config,
            killpoints,
            health: Health::default(),
            edges: Mutex::default(),
            attempts: Attempts::default(),
            stores: Mutex::default(),
            bus: Mutex::default(),
            queues: Mutex::default(),
            in_flight: InFlight::default(),
            stop,
            wind_up: Stop::by_hand(),
            tasks: Mutex::default(),
            listeners: Mutex::new(Some((http, admin))),
        })))
    }

    /// What the service was told at its start.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The armed kill point, if any.
    pub fn killpoints(&self) -> &KillPoints {
        &self.0.killpoints
    }

    /// Makes the answers of evidence endpoints.
    pub fn evidence(&self) -> Evidence {
        Evidence::new(Arc::clone(&self.0.config))
    }

    /// The dependencies that readiness asks for; services may add their own.
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// When to stop.
    pub fn stop(&self) -> &Stop {
        &self.0.stop
    }

    /// Opens the database at `DATABASE_URL` with the kit's tables and those of `migrations` (each a
    /// repeatable statement), tries again while it is locked, and makes readiness depend on it.
    ///
    /// # Errors
    /// `DATABASE_URL` is missing or the database cannot be opened.
    pub async fn store(&self, migrations: &[&'static str]) -> Result<Store, RunError> {
        let config = self.config();
        let url = config.required("DATABASE_URL")?;
        let synchronous = config.optional("SHOP_SYNCHRONOUS").unwrap_or("NORMAL");
        let store = loop {
            match Store::open_with(url, migrations, synchronous).await {
                Err(StoreError::Busy | StoreError::TimedOut(..)) if !self.0.stop.asked() => {
                    tracing::warn!("the database is locked, trying again");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
                other => break other?,
            }
        };
        let asked = store.clone();
        let check = move || -> futures_util::future::BoxFuture<'static, Result<(), String>> {
            let store = asked.clone();
            Box::pin(async move { store.ping().await.map_err(|error| error.to_string()) })
        };
        self.0.health.require("database", Arc::new(check));
        *lock(&self.0.stores) = Some(store.clone());
        Ok(store)
    }

    /// The edge to `callee` at `CALLEE_URL`.
    ///
    /// # Errors
    /// `CALLEE_URL` is missing.
    pub fn edge(&self, callee: &str, policy: EdgePolicy) -> Result<Edge, RunError> {
        let config = self.config();
        let url = config.url(callee)?;
        let clock = Clock::system();
        let (defects, attempts) = (&config.defects, self.0.attempts.clone());
        let edge = Edge::new(
            config.service,
            callee,
            url,
            policy,
            clock,
            defects,
            attempts,
        )?;
        lock(&self.0.edges).push(edge.clone());
        Ok(edge)
    }

    /// The bus at `BUS_URL`; readiness depends on it.
    ///
    /// # Errors
    /// `BUS_URL` is missing.
    pub fn bus(&self) -> Result<Arc<dyn Bus>, RunError> {
        let edge = self.edge("bus", EdgePolicy::bus(self.config().profile))?;
        let client = Arc::new(BusClient::new(edge, self.config()));
        let asked = Arc::clone(&client);
        let check = move || -> futures_util::future::BoxFuture<'static, Result<(), String>> {
            let client = Arc::clone(&asked);
            Box::pin(async move { client.ping().await.map_err(|error| error.to_string()) })
        };
        self.0.health.require("bus", Arc::new(check));
        let bus: Arc<dyn Bus> = client;
        *lock(&self.0.bus) = Some(Arc::clone(&bus));
        Ok(bus)
    }

    /// Starts publishing the outbox of `store`.
    pub fn relay(&self, store: &Store, bus: &Arc<dyn Bus>) {
        let relay = Relay::new(store.clone(), Arc::clone(bus), self.0.killpoints.clone());
        self.spawn("relay", |stop| relay.run(stop));
    }

    /// Starts consuming the queue of `spec` with `handler`.
    pub fn consume(
        &self,
        spec: ConsumerSpec,
        store: &Store,
        bus: &Arc<dyn Bus>,
        handler: Arc<dyn Handler>,
    ) {
        lock(&self.0.queues).push(spec.queue);
        let consumer = Consumer::new(
            spec,
            store.clone(),
            Arc::clone(bus),
            handler,
            self.0.killpoints.clone(),
            self.config().incarnation.clone(),
        );
        self.spawn("consumer", |stop| consumer.run(stop));
    }

    /// Starts work in the background. It is asked to stop when no request is in flight any more, and
    /// must then end by itself soon.
    pub fn spawn<F>(&self, name: &'static str, work: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work = work(self.0.wind_up.clone());
        lock(&self.0.tasks).spawn(async move {
            work.await;
            tracing::debug!(name, "background work ended");
        });
    }

    /// Serves `public` on the data port and `internal` (behind the token) on the admin port, together
    /// with health and the kit's own evidence, until the stop; then ends in order.
    ///
    /// # Errors
    /// [`RunError::WorkCut`] when not all work could be finished; an I/O error of a port.
    pub async fn serve(self, public: Router, internal: Router) -> Result<(), RunError> {
        let Some((http, admin)) = lock(&self.0.listeners).take() else {
            return Err(RunError::Io(io::Error::other(
                "a service can be served only once",
            )));
        };
        let inside = routes::internal(&self.0, internal).merge(routes::metrics(&self.0));
        let health = routes::health(&self.0);
        let close = CancellationToken::new();
        let mut servers = JoinSet::new();
        let counted = |router| server::counted(router, &self.0.in_flight);
        match admin {
            Some(admin) => {
                let public = counted(wrap(public.merge(health.clone())));
                servers.spawn(server::serve(http, public, close.clone()));
                servers.spawn(server::serve(
                    admin,
                    wrap(inside.merge(health)),
                    close.clone(),
                ));
            }
            None => {
                let all = counted(wrap(public.merge(inside).merge(health)));
                servers.spawn(server::serve(http, all, close.clone()));
            }
        }
        tokio::select! {
            () = self.0.stop.wait() => {}
            Some(ended) = servers.join_next() => {
                // A server never ends by itself: its port is gone.
                ended.map_err(io::Error::other)??;
            }
        }
        self.end(servers, close).await
    }

    /// Drains, winds up, and says how it went.
    async fn end(
        self,
        mut servers: JoinSet<io::Result<()>>,
        close: CancellationToken,
    ) -> Result<(), RunError> {
        let shared = &*self.0;
        let at_signal = shared.in_flight.now();
        close.cancel();
        let cut = tokio::select! {
            cut = server::drain(&shared.in_flight, DRAIN) => cut,
            () = shared.stop.wait_now() => shared.in_flight.now(),
        };
        let drained = Drained { at_signal, cut };
        if let Err(killed) = shared.killpoints.reach("shutdown.mid_drain").await {
            tracing::warn!(%killed, "shutdown cut short");
            return Err(RunError::WorkCut(drained.cut));
        }
        // Finished answers are still on their way out; idle connections close by themselves.
        let closed = async { while servers.join_next().await.is_some() {} };
        tokio::select! {
            () = closed => {}
            () = shared.stop.wait_now() => {}
            () = tokio::time::sleep(CLOSE) => {}
        }
        let tasks_cut = self.wind_up().await;
        let store = lock(&shared.stores).take();
        if let Some(store) = store {
            store.close().await;
        }
        let cut = drained.cut + tasks_cut;
        tracing::info!(
            in_flight_at_signal = drained.at_signal,
            completed = drained.at_signal.saturating_sub(drained.cut),
            cut,
            "stopped"
        );
        if cut == 0 {
            Ok(())
        } else {
            Err(RunError::WorkCut(cut))
        }
    }

    /// Waits for the background work; answers how much of it did not end in time.
    async fn wind_up(&self) -> u64 {
        self.0.wind_up.ask();
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        let all = async { while tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = all => return 0,
            () = self.0.stop.wait_now() => {}
            () = tokio::time::sleep(WIND_UP) => {}
        }
        tasks.abort_all();
        tasks.len() as u64
    }
}

/// Locks a mutex that only guards plain values: a panic elsewhere does not make them wrong.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
