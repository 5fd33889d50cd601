//! What a run has started, and how it is taken down: keeper, proxy, services, worker.
//!
//! Filled step by step by `run::phases`; [`Stage::tear_down`] copes with every state in between.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::evidence::clock::mono_ns;
use crate::evidence::folder::RunFolder;
use crate::evidence::{Event, Phase};
use crate::keeper::protocol::{ProcessId, SpawnSpec, Stdin};
use crate::keeper::{Keeper, KeeperOptions};
use crate::load::wire::{Assignment, PhaseSpan};
use crate::plan::load::FeedPlan;
use crate::plan::{LinkPlan, Plan};
use crate::toxiproxy::client::Client;

use super::bindings::{Bindings, wanted_ports};
use super::collect::{self, Context};
use super::error::RunError;
use super::fleet::{Fleet, FleetParts};
use super::journal::Journal;
use super::links::Links;
use super::load_host::{LoadHost, LoadMessage};
use super::load_log::LoadLog;
use super::ports::{HeldPort, Ports};
use super::shutdown::Shutdown;
use super::{Options, bind, own_executable};

/// How long the proxy may take to answer after its start.
const PROXY_WITHIN: Duration = Duration::from_secs(10);
/// How long the worker may take to be ready.
const WORKER_WITHIN: Duration = Duration::from_secs(30);
/// The load begins this long after it was asked for, so that the worker can get ready for T0.
const T0_LEAD: Duration = Duration::from_millis(100);
/// A ticket that found no free user for this long is dropped and counted.
const TICKET_DEADLINE: Duration = Duration::from_secs(1);
/// How long one step of teardown may take beside the services' grace.
const STEP_WITHIN: Duration = Duration::from_millis(700);
/// How long somebody's Toxiproxy may take to let go of the run's proxies: a little more than a call.
const REMOVE_WITHIN: Duration = Duration::from_millis(2_500);
/// Ports beside those of links and services.
const PROXY_API: &str = "@proxy";

/// See the module.
pub(crate) struct Stage {
    plan: Arc<Plan>,
    journal: Arc<Journal>,
    keeper: Arc<Keeper>,
    ports: TakenPorts,
    logs: PathBuf,
    fleet: Arc<Fleet>,
    host: Option<LoadHost>,
    log: LoadLog,
    watching_links: Option<(CancellationToken, JoinHandle<()>)>,
    pub(crate) client: reqwest::Client,
    pub(crate) bindings: Arc<Bindings>,
    pub(crate) links: Arc<Links>,
    pub(crate) context: Arc<Context>,
}

impl Stage {
    /// Takes the ports and starts the keeper.
    pub(crate) async fn new(
        plan: &Arc<Plan>,
        options: &Options,
        folder: &RunFolder,
        journal: &Arc<Journal>,
        lost: mpsc::Sender<String>,
    ) -> Result<Self, RunError> {
        super::ports::raise_descriptor_limit();
        let ports = take_ports(plan, options)?;
        let bindings = Arc::new(bind(plan, options, folder.run_id(), &ports));
        let client = collect::http::client()
            .map_err(|error| RunError::world("make an HTTP client", error.to_string()))?;
        let keeper = KeeperOptions {
            executable: "/proc/self/exe".into(),
            run_id: folder.run_id().to_owned(),
            log: folder.logs().join("keeper.log"),
            at_eof: clean_after_a_crash(folder),
        };
        let (keeper, changes) = Keeper::start(keeper)
            .await
            .map_err(|error| RunError::world("start the keeper", error.to_string()))?;
        let keeper = Arc::new(keeper);
        let own = || format!("http://127.0.0.1:{}", ports[PROXY_API].number());
        let proxy = Client::new(&plan.toxiproxy.clone().unwrap_or_else(own))
            .map_err(|error| RunError::new("reach the proxy", error))?;
        let (of_plan, journal_of) = (Arc::clone(plan), Arc::clone(journal));
        let links = Links::new(proxy, of_plan, journal_of, folder.run_id());
        let links = Arc::new(links);
        let fleet = Arc::new(Fleet::new(FleetParts {
            keeper: Arc::clone(&keeper),
            plan: Arc::clone(plan),
            bindings: Arc::clone(&bindings),
            journal: Arc::clone(journal),
            links: Arc::clone(&links),
            client: client.clone(),
            logs: folder.logs(),
            environment: options.environment.clone(),
        }));
        tokio::spawn(Arc::clone(&fleet).listen(changes, lost));
        let context = Arc::new(Context {
            plan: Arc::clone(plan),
            bindings: Arc::clone(&bindings),
            journal: Arc::clone(journal),
            fleet: Arc::clone(&fleet),
            client: client.clone(),
            logs: folder.logs(),
            operations: folder.file("records/operation.jsonl"),
            clock_error_ns: AtomicU64::new(0),
        });
        Ok(Self {
            plan: Arc::clone(plan),
            journal: Arc::clone(journal),
            keeper,
            ports,
            logs: folder.logs(),
            fleet,
            host: None,
            log: LoadLog::new(folder.clone()),
            watching_links: None,
            client,
            bindings,
            links,
            context,
        })
    }

    /// The services.
    pub(crate) fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.fleet)
    }

    /// Starts the proxy and waits until it answers; a Toxiproxy of somebody's runs already.
    pub(crate) async fn start_proxy(&self) -> Result<(), RunError> {
        if let Some(url) = &self.plan.toxiproxy {
            let version = self.links.version().await;
            let version = version.map_err(|error| {
                RunError::new(format!("reach the Toxiproxy at {url}"), error)
                    .help("start it, or run without `--toxiproxy`")
            })?;
            self.journal.event(Event::ProxyReady {
                version,
                embedded: false,
            });
            return Ok(());
        }
        let port = self.ports[PROXY_API].number();
        let (port, seed) = (port.to_string(), self.plan.seed.to_string());
        let arguments = [
            "proxy",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--seed",
            &seed,
            "--end-at-eof",
        ];
        self.spawn_own("@proxy", &arguments, Vec::new()).await?;
        let version = timeout(PROXY_WITHIN, async {
            loop {
                match self.links.version().await {
                    Ok(version) => return version,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let version = version
            .await
            .map_err(|_| RunError::world("start the proxy", "it does not answer"))?;
        self.journal.event(Event::ProxyReady {
            version,
            embedded: true,
        });
        Ok(())
    }

    /// Sees that the proxies are still as they were created, now that everything is up.
    pub(crate) async fn verify_links(&self) -> Result<(), RunError> {
        let verified = self.links.verify(&self.bindings).await;
        verified.map_err(|error| {
            let help = match &self.plan.toxiproxy {
                Some(_) => "see who else uses this Toxiproxy",
                None => "this is a bug of the proxy: see `logs/`",
            };
            RunError::new("verify the proxies of the links", error).help(help)
        })
    }

    /// Creates the proxy of every link and begins to watch them.
    pub(crate) async fn start_links(&mut self) -> Result<(), RunError> {
        self.links
            .create(&self.bindings)
            .await
            .map_err(|error| RunError::new("create the proxies of the links", error))?;
        let stop = CancellationToken::new();
        let watch = tokio::spawn(Arc::clone(&self.links).watch(stop.clone()));
        self.watching_links = Some((stop, watch));
        Ok(())
    }

    /// Reads the rest of the request log.
    pub(crate) async fn stop_watching_links(&mut self, within: Duration) {
        if let Some((stop, watch)) = self.watching_links.take() {
            stop.cancel();
            // A watcher that panicked has said so; its records are what they are.
            let _ = timeout(within, watch).await;
        }
    }

    async fn spawn_own(
        &self,
        id: &str,
        arguments: &[&str],
        environment: Vec<(String, String)>,
    ) -> Result<(), RunError> {
        let mut argv = vec![own_executable()];
        argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let spec = SpawnSpec {
            process: ProcessId::from(id),
            argv,
            env: environment.into_iter().collect(),
            dir: std::path::PathBuf::from("/"),
            log: self
                .logs
                .join(format!("{}.log", id.trim_start_matches('@'))),
            nice: 0,
            stdin: Stdin::Held,
        };
        let attempt = format!("start the {}", id.trim_start_matches('@'));
        self.fleet.spawn_spec(spec, &attempt).await.map(drop)
    }

    /// Starts the worker and waits until its users are ready.
    pub(crate) async fn start_worker(&mut self, feeds: Vec<FeedPlan>) -> Result<(), RunError> {
        let attempt = "start the worker";
        let assignment = self.assignment(feeds);
        let host = LoadHost::start(assignment)
            .await
            .map_err(|error| RunError::world(attempt, error.to_string()))?;
        let environment = vec![(
            crate::load::wire::TOKEN_VARIABLE.to_owned(),
            host.token().to_owned(),
        )];
        self.spawn_own("@worker", &["worker", "--connect", host.url()], environment)
            .await?;
        let ready = host.wait_ready(WORKER_WITHIN).await;
        self.host = Some(host);
        ready
            .map(drop)
            .map_err(|error| RunError::world(attempt, error.to_string()))
    }

    fn assignment(&self, feeds: Vec<FeedPlan>) -> Assignment {
        let phases = self.plan.phases;
        let spans = [
            (Phase::WarmUp, Duration::ZERO),
            (Phase::Baseline, phases.baseline_start),
            (Phase::Faults, phases.baseline_end),
            (Phase::Recovery, phases.recovery_start),
        ];
        let mut load = self.plan.load.clone();
        load.feeds = feeds;
        let targets = load.journeys.iter().map(|journey| {
            (
                journey.link.clone(),
                format!("http://{}", self.bindings.links[&journey.link]),
            )
        });
        let mut symbols: BTreeMap<String, Value> = self
            .bindings
            .environment
            .iter()
            .map(|(name, value)| (format!("env:{name}"), value.clone().into()))
            .collect();
        symbols.insert("run:id".into(), self.bindings.run_id.clone().into());
        symbols.insert("run:token".into(), self.bindings.token.clone().into());
        Assignment {
            seed: self.plan.seed,
            targets: targets.collect(),
            load,
            symbols,
            clock: self.journal.clock(),
            duration: phases.load_end,
            phases: spans
                .into_iter()
                .map(|(phase, from)| PhaseSpan { phase, from })
                .collect(),
            worker: 0,
            workers: 1,
            ticket_deadline: TICKET_DEADLINE,
            local: true,
        }
    }

    /// Lets the load begin; T0 on the run clock.
    pub(crate) async fn start_load(&mut self) -> Result<u64, RunError> {
        let host = self
            .host
            .as_mut()
            .ok_or_else(|| no_worker("start the load"))?;
        let t0_mono_ns = mono_ns() + u64::try_from(T0_LEAD.as_nanos()).unwrap_or(0);
        host.go(t0_mono_ns);
        let t0_ns = self.journal.clock().from_mono(t0_mono_ns);
        self.log.begin(t0_ns);
        self.journal.event_durable(Event::LoadStarted { t0_ns });
        Ok(t0_ns)
    }

    /// Takes what the worker tells until its last word.
    pub(crate) async fn take_load(&mut self) -> Result<(), RunError> {
        let host = self
            .host
            .as_mut()
            .ok_or_else(|| no_worker("take the load's results"))?;
        while let Some(told) = host.next().await {
            match told {
                LoadMessage::Batch(batch) => self.log.take(batch, &self.journal)?,
                LoadMessage::Finished(finished) => {
                    return self.log.finish(finished, &self.journal);
                }
                LoadMessage::Lost(why) => {
                    return Err(RunError::world("take the load's results", why));
                }
            }
        }
        Err(no_worker("take the load's results"))
    }

    /// Stops everything, in this order: load, faults, services, proxy, keeper. Returns what is
    /// left in spite of all.
    pub(crate) async fn tear_down(mut self, grace: Duration, shutdown: &Shutdown) -> Vec<String> {
        self.fleet.expect_all_to_end();
        let mut left = Vec::new();
        let orderly = async {
            self.stop_load().await;
            left.extend(self.lift_all().await);
            self.stop_watching_links(STEP_WITHIN).await;
            self.fleet.stop_all(grace).await;
            // While the keeper still watches over us: killed after it has gone, nobody would.
            // What cannot be removed yet is tried again, and told, once everything is down.
            let _ = tokio::fs::remove_dir_all(&self.bindings.data).await;
        };
        tokio::select! {
            () = orderly => {}
            _ = shutdown.urgent() => {}
        }
        if let Some((stop, _)) = &self.watching_links {
            stop.cancel();
        }
        let removed = timeout(REMOVE_WITHIN, self.links.remove()).await;
        left.extend(removed.unwrap_or_else(|_| vec!["proxies of the run".into()]));
        let stopped = self.keeper.stop(Duration::from_millis(500)).await;
        left.extend(stopped.left.iter().map(|pid| format!("process {pid}")));
        left
    }

    /// Begins nothing more and keeps what was measured.
    async fn stop_load(&mut self) {
        let Some(host) = &mut self.host else { return };
        host.stop(STEP_WITHIN / 2);
        // A worker that says no more has said what it could.
        let _ = timeout(STEP_WITHIN, self.take_load()).await;
    }

    async fn lift_all(&self) -> Vec<String> {
        let lift = async {
            let reset = self.links.reset().await;
            match reset {
                Ok(()) => self.links.left().await,
                // It ends with its proxies all the same.
                Err(error) => {
                    tracing::warn!(%error, "faults were not lifted before the proxy ended");
                    Vec::new()
                }
            }
        };
        timeout(STEP_WITHIN, lift).await.unwrap_or_default()
    }
}

/// What the keeper becomes when it finds the coordinator gone: it has killed all processes, the
/// rest is the services' data and the locks.
fn clean_after_a_crash(folder: &RunFolder) -> Vec<String> {
    let folder = folder.path().display().to_string();
    vec![
        "/proc/self/exe".into(),
        "clean".into(),
        "--orphaned".into(),
        "--run-folder".into(),
        folder,
    ]
}

fn no_worker(attempt: &str) -> RunError {
    RunError::world(attempt, "the worker is gone")
}

/// The ports of a run, by what they are for: `orders.http`, `orders..bus`, [`PROXY_API`].
pub(crate) type TakenPorts = BTreeMap<String, HeldPort>;

fn take_ports(plan: &Plan, options: &Options) -> Result<TakenPorts, RunError> {
    let attempt = "take the ports of the run";
    let failed = |error: super::ports::PortError| RunError::world(attempt, error.to_string());
    let mut ports = Ports::new(&options.locks).map_err(failed)?;
    let mut taken = TakenPorts::new();
    let mut free = vec![PROXY_API.to_owned()];
    // What the files pin comes first: it must not be given away as free.
    for (service, port, pinned) in wanted_ports(plan) {
        let name = format!("{service}.{port}");
        match pinned {
            Some(number) => {
                taken.insert(name, ports.pinned(number).map_err(failed)?);
            }
            None => free.push(name),
        }
    }
    for link in &plan.system.links {
        let is_taken = |number| taken.values().any(|held| held.number() == number);
        match pinned_port(link) {
            // On another address, too.
            Some(number) if is_taken(number) => {}
            Some(number) => {
                let held = ports.reserved(number).map_err(failed)?;
                taken.insert(link.name.alias(), held);
            }
            None => free.push(link.name.alias()),
        }
    }
    for name in free {
        taken.insert(name, ports.free().map_err(failed)?);
    }
    Ok(taken)
}

/// The port of a link's pinned address.
fn pinned_port(link: &LinkPlan) -> Option<u16> {
    let address: SocketAddr = link.listen.as_ref()?.parse().ok()?;
    Some(address.port())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use crate::plan::BuildOptions;
    use crate::scenario::LoadOptions;

    use super::*;

    const SYSTEM: &str = "
name: pinned
services:
  front: { command: [front], ports: { http: FRONT }, env: { BACK: $(link:back) } }
  back: { command: [back], ports: [http] }
links:
  front -> back: { to: back.http, LISTEN }
journeys: { call: { target: front.http, steps: [{ name: call, request: { get: / } }] } }
";
    const SCENARIO: &str = "
name: pinned
system: system.yaml
load: { journeys: { call: 1 }, arrivals: 50/s, timeout: 1s }
phases: { warm-up: 1s, baseline: 2s }
expect: { up: stays-up }
";

    /// The ports of a run with this one pinned for a service, and this address for a link.
    fn taken(folder: &Path, front: &str, listen: &str) -> TakenPorts {
        let system = SYSTEM.replace("FRONT", front).replace("LISTEN", listen);
        fs::write(folder.join("system.yaml"), system).expect("written");
        fs::write(folder.join("scenario.yaml"), SCENARIO).expect("written");
        let path = folder.join("scenario.yaml");
        let files = crate::scenario::load(&path, &LoadOptions::default());
        let plan = crate::plan::build(&files.expect("it reads"), &BuildOptions::default());
        let options = Options {
            environment: BTreeMap::new(),
            locks: folder.to_owned(),
            data: folder.join("data"),
            token: String::new(),
        };
        take_ports(&plan.expect("it plans"), &options).expect("ports")
    }

    /// The port that is given away first.
    fn first_free(folder: &Path) -> u16 {
        let mut ports = Ports::new(folder).expect("a folder for locks");
        ports.free().expect("a port").number()
    }

    #[test]
    fn port_that_a_service_pins_is_not_given_away_as_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = first_free(folder.path());
        let ports = taken(folder.path(), &first.to_string(), "protocol: tcp");
        assert_eq!(ports["front.http"].number(), first);
    }

    #[test]
    fn port_that_a_link_pins_is_not_given_away_as_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = first_free(folder.path());
        let listen = format!("listen: 127.0.0.1:{first}");
        let ports = taken(folder.path(), "auto", &listen);
        let who = ports.iter().filter(|(_, held)| held.number() == first);
        assert_eq!(
            who.map(|(name, _)| name).collect::<Vec<_>>(),
            ["front..back"]
        );
    }

    #[test]
    fn one_port_may_be_pinned_on_several_addresses() {
        let folder = tempfile::tempdir().expect("a folder");
        let number = first_free(folder.path());
        let listen = format!("listen: 127.0.0.2:{number}");
        let ports = taken(folder.path(), &number.to_string(), &listen);
        assert_eq!(ports["front.http"].number(), number);
    }
}
