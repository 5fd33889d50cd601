//! The system's services: started, watched, killed on purpose, started again.
//!
//! Every process is the keeper's child; this file knows what each is for. Whoever ends without
//! being asked to is reported as such, with the last lines of its log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::evidence::Event;
use crate::keeper::Keeper;
use crate::keeper::protocol::{Change, ChangeKind, End, ProcessId, Signal, SpawnSpec, Stdin};
use crate::plan::quantity::duration_text;
use crate::plan::system::{FileHow, Ready};
use crate::plan::{Plan, ServiceName, ServicePlan};

use super::bindings::{Bindings, in_project};
use super::error::{RunError, RunErrorKind};
use super::journal::Journal;
use super::links::Links;
use super::logs::log_tail;

/// How often readiness is asked for.
const READY_EVERY: Duration = Duration::from_millis(20);
/// How long a killed process may take to be gone.
const KILL_WITHIN: Duration = Duration::from_secs(5);
/// How long a `prepare` command may take.
const PREPARE_WITHIN: Duration = Duration::from_secs(120);
/// Services yield to the worker and the proxy, which measure them.
const SERVICE_NICE: i32 = 5;

/// What is known about a process.
#[derive(Clone, Debug, Default)]
struct Process {
    pid: i32,
    incarnation: u32,
    /// How it ended, once it has.
    end: Option<End>,
    /// Whether its end is the run's doing.
    expected: bool,
    stopped: bool,
}

/// See the module.
pub(crate) struct Fleet {
    keeper: Arc<Keeper>,
    plan: Arc<Plan>,
    bindings: Arc<Bindings>,
    journal: Arc<Journal>,
    links: Arc<Links>,
    client: reqwest::Client,
    logs: PathBuf,
    environment: BTreeMap<String, String>,
    processes: Mutex<BTreeMap<ProcessId, Process>>,
    changed: watch::Sender<u64>,
}

/// What a [`Fleet`] is made of.
pub(crate) struct FleetParts {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) bindings: Arc<Bindings>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) links: Arc<Links>,
    pub(crate) client: reqwest::Client,
    pub(crate) logs: PathBuf,
    /// PATH, HOME, LANG, TZ of the user.
    pub(crate) environment: BTreeMap<String, String>,
}

impl Fleet {
    pub(crate) fn new(parts: FleetParts) -> Self {
        Self {
            keeper: parts.keeper,
            plan: parts.plan,
            bindings: parts.bindings,
            journal: parts.journal,
            links: parts.links,
            client: parts.client,
            logs: parts.logs,
            environment: parts.environment,
            processes: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Reads what the keeper reports until it is gone; each loss of one of the run's own processes
    /// (their ids start with `@`) goes to `lost`.
    pub(crate) async fn listen(
        self: Arc<Self>,
        mut changes: mpsc::Receiver<Change>,
        lost: mpsc::Sender<String>,
    ) {
        while let Some(change) = changes.recv().await {
            let ChangeKind::Exited(end) = change.kind else {
                self.note(&change);
                continue;
            };
            let id = change.process.clone();
            if let Some(own) = id.0.strip_prefix('@') {
                // The worker ends by itself after its last word; whether it said that word, the
                // one who listens to it knows.
                let is_done = own == "worker" && end == End::Code(0);
                if !self.note(&change) && !is_done {
                    // A full queue means that the end of the run was asked for already.
                    let _ = lost.try_send(format!("the {own} ended by {end}"));
                }
            } else if let Some(service) = self.plan.service(&id.0) {
                // Before anybody learns of the end and starts it again: a late word must not close
                // the links of the next incarnation.
                self.links
                    .set_listening(service.name.as_str(), None, false)
                    .await;
                let expected = self.note(&change) || service.once;
                self.report_exit(service, &change, end, expected);
            } else {
                self.note(&change);
            }
        }
        let _ = lost.try_send("the keeper of the run's processes ended".into());
    }

    fn note(&self, change: &Change) -> bool {
        let expected = {
            let mut processes = self.processes();
            let process = processes.entry(change.process.clone()).or_default();
            if process.incarnation > change.incarnation {
                return process.expected;
            }
            process.pid = change.pid;
            process.incarnation = change.incarnation;
            match change.kind {
                ChangeKind::Exited(end) => process.end = Some(end),
                ChangeKind::Stopped => process.stopped = true,
                ChangeKind::Continued => process.stopped = false,
            }
            process.expected
        };
        self.changed.send_modify(|count| *count += 1);
        expected
    }

    fn report_exit(&self, service: &ServicePlan, change: &Change, end: End, by_us: bool) {
        let (code, signal) = match end {
            End::Code(code) => (Some(code), None),
            End::Signal { number, .. } => (None, Some(number)),
        };
        let log_tail = if by_us {
            Vec::new()
        } else {
            log_tail(&self.log_of(service.name.as_str()))
        };
        self.journal.event(Event::ServiceExited {
            service: service.name.clone(),
            pid: change.pid.unsigned_abs(),
            incarnation: change.incarnation,
            code,
            signal,
            by_us,
            log_tail,
        });
    }

    /// Starts everything: all at once, but for those that need others.
    pub(crate) async fn boot(&self) -> Result<(), RunError> {
        let mut started: BTreeMap<ServiceName, watch::Receiver<bool>> = BTreeMap::new();
        let mut senders = BTreeMap::new();
        for service in &self.plan.system.services {
            let (sender, receiver) = watch::channel(false);
            started.insert(service.name.clone(), receiver);
            senders.insert(service.name.clone(), sender);
        }
        let boots = self.plan.system.services.iter().map(|service| {
            let needs: Vec<_> = service
                .needs
                .iter()
                .filter_map(|need| started.get(need))
                .collect();
            let sender = &senders[&service.name];
            async move {
                for need in needs {
                    // It ends early only when the needed one failed, which ends the boot anyway.
                    let _ = need.clone().wait_for(|ready| *ready).await;
                }
                self.prepare(service).await?;
                self.start(&service.name).await?;
                sender.send_replace(true);
                Ok(())
            }
        });
        futures_util::future::try_join_all(boots).await.map(drop)
    }

    async fn prepare(&self, service: &ServicePlan) -> Result<(), RunError> {
        let attempt = || format!("prepare service `{}`", service.name);
        let data = self.bindings.data_of(service.name.as_str());
        tokio::fs::create_dir_all(&data).await.map_err(|error| {
            RunError::world(attempt(), format!("`{}`: {error}", data.display()))
        })?;
        for file in &service.files {
            self.render_file(service, file, &data)
                .map_err(|error| RunError::world(attempt(), format!("`{}`: {error}", file.name)))?;
        }
        for (index, argv) in service.prepare.iter().enumerate() {
            let id = ProcessId(format!("{}.prepare-{}", service.name, index + 1));
            self.spawn(&id, service, argv).await?;
            match self.wait_exit(&id, PREPARE_WITHIN).await {
                Some(End::Code(0)) => {}
                end => return Err(self.service_error(attempt(), &id, &ended(end, PREPARE_WITHIN))),
            }
        }
        Ok(())
    }

    fn render_file(
        &self,
        service: &ServicePlan,
        file: &crate::plan::system::FilePlan,
        data: &Path,
    ) -> Result<(), String> {
        let source = in_project(&self.plan, &file.from);
        let text = std::fs::read_to_string(&source)
            .map_err(|error| format!("`{}`: {error}", source.display()))?;
        let own = service.name.as_str();
        let rendered = match &file.how {
            FileHow::Template => {
                let template = crate::plan::Template::parse(&text)?;
                self.bindings.render(own, &template)?
            }
            FileHow::Set(values) => {
                let mut json = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                for (path, value) in values {
                    set_path(&mut json, path, self.bindings.render(own, value)?)?;
                }
                serde_json::to_string_pretty(&json).map_err(|error| error.to_string())?
            }
        };
        let target = data.join(&file.name);
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        }
        std::fs::write(&target, rendered).map_err(|error| error.to_string())
    }

    async fn spawn(
        &self,
        id: &ProcessId,
        service: &ServicePlan,
        argv: &[crate::plan::Template],
    ) -> Result<u32, RunError> {
        let attempt = format!("start service `{}`", service.name);
        let own = service.name.as_str();
        let render = |template| {
            self.bindings
                .render(own, template)
                .map_err(|error| RunError::world(&attempt, error))
        };
        let argv = argv.iter().map(render).collect::<Result<Vec<_>, _>>()?;
        let mut env = self.environment.clone();
        for (name, value) in &service.env {
            env.insert(name.clone(), render(value)?);
        }
        let spec = SpawnSpec {
            process: id.clone(),
            argv,
            env,
            dir: in_project(&self.plan, &service.dir),
            log: self.log_of(&id.0),
            nice: SERVICE_NICE,
            stdin: Stdin::Null,
        };
        self.spawn_spec(spec, &attempt).await
    }

    /// Starts one of the run's own processes or a service's; returns its incarnation.
    pub(crate) async fn spawn_spec(&self, spec: SpawnSpec, attempt: &str) -> Result<u32, RunError> {
        let id = spec.process.clone();
        self.processes().entry(id.clone()).or_default().expected = false;
        let spawned = self
            .keeper
            .spawn(spec)
            .await
            .map_err(|error| RunError::world(attempt, error.to_string()))?;
        let mut processes = self.processes();
        let process = processes.entry(id).or_default();
        // Its end may have been reported before its start was.
        if process.incarnation < spawned.incarnation {
            *process = Process {
                pid: spawned.pid,
                incarnation: spawned.incarnation,
                ..Process::default()
            };
        }
        Ok(spawned.incarnation)
    }

    /// How many times a service was started; 0 before the first.
    pub(crate) fn incarnation(&self, name: &ServiceName) -> u32 {
        let processes = self.processes();
        let process = processes.get(&ProcessId::from(name.as_str()));
        process.map_or(0, |process| process.incarnation)
    }

    /// Starts a service and waits until it is ready. Says how long that took.
    pub(crate) async fn start(&self, name: &ServiceName) -> Result<String, RunError> {
        let service = self.plan.service(name.as_str()).ok_or_else(|| {
            RunError::world(
                format!("start service `{name}`"),
                "there is no such service",
            )
        })?;
        let id = ProcessId::from(name.as_str());
        let begun_ns = self.journal.now_ns();
        let incarnation = self.spawn(&id, service, &service.command).await?;
        let pid = self.processes()[&id].pid.unsigned_abs();
        self.journal.event(Event::ServiceSpawned {
            service: name.clone(),
            pid,
            incarnation,
        });
        let deadline = Instant::now() + service.ready_within;
        let attempt = || format!("start service `{name}`");
        tokio::select! {
            ready = timeout_at(deadline, self.until_ready(service)) => {
                if ready.is_err() {
                    let within = duration_text(service.ready_within);
                    let what = format!("was not ready within {within}");
                    let help = format!("raise `services.{name}.ready.within`, or see why in its log");
                    return Err(self.service_error(attempt(), &id, &what).help(help));
                }
            }
            end = self.until_exit(&id) => if !(service.once && end == End::Code(0)) {
                let what = format!("ended by {end} before it was ready");
                return Err(self.service_error(attempt(), &id, &what));
            }
        }
        let took_ms = (self.journal.now_ns() - begun_ns) / 1_000_000;
        self.journal.event(Event::ServiceReady {
            service: name.clone(),
            incarnation,
            took_ms,
        });
        Ok(format!("{name} ready as pid {pid} after {took_ms} ms"))
    }

    fn service_error(&self, attempt: String, id: &ProcessId, what: &str) -> RunError {
        let log_tail = log_tail(&self.log_of(&id.0));
        RunError::new(
            attempt,
            RunErrorKind::Service {
                what: what.to_owned(),
                log_tail,
            },
        )
    }

    /// Waits until the service says it is ready; its links open as soon as their ports do.
    async fn until_ready(&self, service: &ServicePlan) {
        let own = service.name.as_str();
        let ports = service
            .ports
            .keys()
            .map(|port| self.until_listening(own, port.as_str()));
        let ready = async {
            while !self.is_ready(service).await {
                tokio::time::sleep(READY_EVERY).await;
            }
        };
        if service.once {
            ready.await;
        } else {
            tokio::join!(ready, futures_util::future::join_all(ports));
        }
    }

    async fn until_listening(&self, service: &str, port: &str) {
        let is_called = |link: &&crate::plan::LinkPlan| {
            link.service.as_str() == service && link.port.as_str() == port
        };
        if self.plan.system.links.iter().find(is_called).is_none() {
            return;
        }
        let Ok(address) = self.bindings.address(service, port) else {
            return;
        };
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            tokio::time::sleep(READY_EVERY).await;
        }
        self.links.set_listening(service, Some(port), true).await;
    }

    async fn is_ready(&self, service: &ServicePlan) -> bool {
        let own = service.name.as_str();
        match &service.ready {
            Ready::Http { path, port } => {
                let Ok(address) = self.bindings.address(own, port.as_str()) else {
                    return false;
                };
                let request = self.client.get(format!("http://{address}{path}"));
                let answer = request.timeout(Duration::from_secs(1)).send().await;
                answer.is_ok_and(|answer| answer.status().is_success())
            }
            Ready::Tcp(port) => match self.bindings.address(own, port.as_str()) {
                Ok(address) => tokio::net::TcpStream::connect(address).await.is_ok(),
                Err(_) => false,
            },
            Ready::Log(text) => {
                let log = tokio::fs::read(self.log_of(own)).await.unwrap_or_default();
                String::from_utf8_lossy(&log).contains(text.as_str())
            }
            Ready::Command(argv) => {
                let id = ProcessId(format!("{own}.ready"));
                self.spawn(&id, service, argv).await.is_ok()
                    && self.wait_exit(&id, Duration::from_secs(5)).await == Some(End::Code(0))
            }
            // Its exit is waited for in any case.
            Ready::Exit => false,
        }
    }

    /// SIGKILL to the whole group; returns when the process is gone.
    pub(crate) async fn kill(&self, name: &ServiceName) -> Result<String, String> {
        self.end(name, Signal::Kill, KILL_WITHIN).await
    }

    /// The service's stop signal (or another one) and its grace, then SIGKILL.
    pub(crate) async fn stop(
        &self,
        name: &ServiceName,
        signal: Option<&str>,
    ) -> Result<String, String> {
        let service = self
            .plan
            .service(name.as_str())
            .ok_or("there is no such service")?;
        let signal = signal.unwrap_or(&service.stop_signal);
        let signal = signal
            .parse()
            .map_err(|_| format!("`{signal}` is no signal"))?;
        match self.end(name, signal, service.stop_grace).await {
            Err(_) if self.is_running(name) => {
                let killed = self.kill(name).await?;
                Ok(format!("{killed}, killed after its grace"))
            }
            ended => ended,
        }
    }

    async fn end(
        &self,
        name: &ServiceName,
        signal: Signal,
        within: Duration,
    ) -> Result<String, String> {
        let id = ProcessId::from(name.as_str());
        let pid = {
            let mut processes = self.processes();
            let process = processes.get_mut(&id).ok_or("it was never started")?;
            process.expected = true;
            process.pid
        };
        self.keeper
            .signal(&id, signal)
            .await
            .map_err(|error| error.to_string())?;
        match self.wait_exit(&id, within).await {
            Some(end) => Ok(format!("pid {pid} of {name} gone by {end}")),
            None => Err(format!(
                "pid {pid} of {name} was still there after {} s",
                within.as_secs()
            )),
        }
    }

    /// Freezes a service's process group.
    pub(crate) async fn pause(&self, name: &ServiceName) -> Result<String, String> {
        let id = ProcessId::from(name.as_str());
        self.keeper
            .pause(&id)
            .await
            .map_err(|error| error.to_string())?;
        self.until(&id, KILL_WITHIN, |process| process.stopped)
            .await?;
        Ok(format!(
            "pid {} of {name} stopped",
            self.processes()[&id].pid
        ))
    }

    /// Lets it run again.
    pub(crate) async fn resume(&self, name: &ServiceName) -> Result<String, String> {
        let id = ProcessId::from(name.as_str());
        self.keeper
            .resume(&id)
            .await
            .map_err(|error| error.to_string())?;
        self.until(&id, KILL_WITHIN, |process| !process.stopped)
            .await?;
        Ok(format!("pid {} of {name} runs", self.processes()[&id].pid))
    }

    /// From now on, whoever ends does so because the run ends.
    pub(crate) fn expect_all_to_end(&self) {
        self.processes()
            .values_mut()
            .for_each(|process| process.expected = true);
    }

    /// Asks every service to stop and waits for them, at most `grace`.
    pub(crate) async fn stop_all(&self, grace: Duration) {
        self.expect_all_to_end();
        let running: Vec<_> = self
            .plan
            .system
            .services
            .iter()
            .filter(|service| self.is_running(&service.name))
            .collect();
        let ends = running.iter().map(|service| async {
            let id = ProcessId::from(service.name.as_str());
            let signal = service.stop_signal.parse().unwrap_or(Signal::Term);
            // Nobody to wait for: it ended meanwhile, or there is no keeper to tell of its end.
            if self.keeper.signal(&id, signal).await.is_err() {
                return;
            }
            // Whoever is frozen cannot see a signal.
            let _ = self.keeper.resume(&id).await;
            self.wait_exit(&id, service.stop_grace.min(grace)).await;
        });
        futures_util::future::join_all(ends).await;
    }

    fn is_running(&self, name: &ServiceName) -> bool {
        let processes = self.processes();
        let process = processes.get(&ProcessId::from(name.as_str()));
        process.is_some_and(|process| process.end.is_none())
    }

    async fn wait_exit(&self, id: &ProcessId, within: Duration) -> Option<End> {
        timeout(within, self.until_exit(id)).await.ok()
    }

    async fn until_exit(&self, id: &ProcessId) -> End {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(end) = self.processes().get(id).and_then(|process| process.end) {
                return end;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn until(
        &self,
        id: &ProcessId,
        within: Duration,
        condition: impl Fn(&Process) -> bool,
    ) -> Result<(), String> {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !self.processes().get(id).is_some_and(&condition) {
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(within, wait)
            .await
            .map_err(|_| format!("`{id}` did not follow in time"))
    }

    /// Where a process logs.
    pub(crate) fn log_of(&self, id: &str) -> PathBuf {
        self.logs
            .join(format!("{}.log", id.trim_start_matches('@')))
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Process>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended(end: Option<End>, within: Duration) -> String {
    match end {
        Some(end) => format!("ended by {end}"),
        None => format!("took longer than {} s", within.as_secs()),
    }
}

/// Replaces the value at a dotted path of a JSON document.
fn set_path(json: &mut serde_json::Value, path: &str, value: String) -> Result<(), String> {
    let pointer = path.replace('.', "/");
    let place = json
        .pointer_mut(&pointer)
        .ok_or_else(|| format!("it has no `{path}`"))?;
    // A number stays a number: configuration files are picky about types.
    *place = match place {
        serde_json::Value::Number(_) => serde_json::from_str(&value).unwrap_or(value.into()),
        _ => value.into(),
    };
    Ok(())
}
