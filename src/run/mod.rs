//! Making it happen: all effects of a run, and nothing that knows what would be good news.
//!
//! [`execute`] reads as the list of phases. Whatever happens in one of them, teardown follows, in
//! one explicit function with its own deadline. Everything that happens is told to the journal
//! before anything is made of it.
//!
//! Read next: `fleet` (services), `links` (proxies), `faults`, `collect`, `load_host`, `shutdown`.

pub mod bindings;
mod collect;
mod drain;
pub mod error;
mod faults;
mod fleet;
pub mod journal;
pub mod leftovers;
mod links;
pub mod load_host;
mod load_log;
mod logs;
pub mod ports;
mod setup;
pub mod shutdown;
mod stage;
mod toxics;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::evidence::folder::RunFolder;
use crate::evidence::{Event, Phase, StopReason};
use crate::plan::{FaultEffect, Plan};

use bindings::Bindings;
use collect::Reader;
use collect::backlog::Backlog;
use error::RunError;
use faults::Injector;
use journal::Journal;
use shutdown::Shutdown;
use stage::{Stage, TakenPorts};

/// How long services may take to stop at the end of a run.
const TEARDOWN_GRACE: Duration = Duration::from_secs(3);

/// How long the proxy may take to hand out the rest of its request log.
const LAST_CALLS_WITHIN: Duration = Duration::from_secs(10);

/// What a run is given beside its plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// Variables that every service gets: PATH, HOME, LANG, TZ as far as they are set.
    pub environment: BTreeMap<String, String>,
    /// A folder of the user's own for locks on ports.
    pub locks: PathBuf,
    /// A folder for the data of services; removed at the end.
    pub data: PathBuf,
    /// A secret for evidence endpoints.
    pub token: String,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// Why it stopped.
    pub reason: StopReason,
    /// What kept it from being carried out, if anything did.
    pub error: Option<RunError>,
    /// What teardown could not stop or remove.
    pub left: Vec<String>,
}

/// Carries out a plan: boot, set-up, load and faults by the time line, drain, collection; then
/// teardown, on every way out.
pub async fn execute(
    plan: Arc<Plan>,
    options: Options,
    folder: &RunFolder,
    journal: Arc<Journal>,
    shutdown: &Shutdown,
) -> Ended {
    let (lost, is_lost) = mpsc::channel(1);
    start_phase(&journal, Phase::Boot, Duration::ZERO);
    // Not to be given up half-way: a keeper that nobody holds would outlive this process a little.
    let (stage, error) = match Stage::new(&plan, &options, folder, &journal, lost).await {
        Err(error) => (None, Some(error)),
        Ok(mut stage) => {
            let error = play(&plan, &journal, &mut stage, is_lost, shutdown).await;
            (Some(stage), error)
        }
    };
    // Not asked of `shutdown`, which later runs share: a run that fails ends itself alone.
    if let Some(error) = &error {
        stopping(&journal, StopReason::Failed, error.to_string());
    } else if let Some(reason) = shutdown.reason() {
        stopping(&journal, reason, "told to stop by a signal".into());
    }
    let left = teardown(stage, &options, &journal, shutdown).await;
    Ended {
        reason: shutdown.reason().unwrap_or(match error {
            Some(_) => StopReason::Failed,
            None => StopReason::Finished,
        }),
        error,
        left,
    }
}

fn stopping(journal: &Journal, reason: StopReason, why: String) {
    journal.event_durable(Event::Stopping { reason, why });
}

async fn cannot_write(journal: &Journal) -> String {
    let mut failure = journal.failure();
    match failure.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        Err(_) => std::future::pending().await,
    }
}

/// All phases up to teardown, or as many as there are before something ends the run; what kept it
/// from being carried out.
async fn play(
    plan: &Arc<Plan>,
    journal: &Arc<Journal>,
    stage: &mut Stage,
    mut is_lost: mpsc::Receiver<String>,
    shutdown: &Shutdown,
) -> Option<RunError> {
    tokio::select! {
        result = phases(plan, journal, stage) => result.err(),
        Some(what) = is_lost.recv() => Some(RunError::world("keep the run going", what)),
        why = cannot_write(journal) => Some(RunError::world("write the run folder", why)),
        _ = shutdown.requested() => None,
    }
}

async fn phases(
    plan: &Arc<Plan>,
    journal: &Arc<Journal>,
    stage: &mut Stage,
) -> Result<(), RunError> {
    stage.start_proxy().await?;
    stage.start_links().await?;
    stage.fleet().boot().await?;
    stage.verify_links().await?;
    let feeds = setup::set_up(plan, &stage.bindings, &stage.client, journal).await?;
    stage.start_worker(feeds).await?;

    let context = Arc::clone(&stage.context);
    let readers = Reader::all(&context).map_err(|error| RunError::world("read evidence", error))?;
    let backlogs =
        Backlog::all(&context).map_err(|error| RunError::world("read backlogs", error))?;
    let watching = CancellationToken::new();
    let (polled, at_end): (Vec<_>, Vec<_>) = readers.into_iter().partition(Reader::is_polled);
    let mut pollers = JoinSet::new();
    for reader in polled {
        pollers.spawn(reader.poll(Arc::clone(&context), watching.clone()));
    }

    let watch_backlogs = drain::watch(&context, &backlogs, watching.clone());
    let load = async {
        let result = drive(plan, journal, stage).await;
        watching.cancel();
        result
    };
    let ((), load) = tokio::join!(watch_backlogs, load);
    load?;

    start_phase(journal, Phase::Drain, plan.phases.drain_within);
    if plan.phases.drain_within > Duration::ZERO {
        drain::drain(&context, &backlogs).await;
    }
    start_phase(journal, Phase::Collect, Duration::ZERO);
    stage.stop_watching_links(LAST_CALLS_WITHIN).await;
    let mut readers = pollers.join_all().await;
    readers.extend(at_end);
    readers.sort_by_key(Reader::turn);
    journal.flush();
    for reader in readers {
        reader.finish(&context).await;
    }
    Ok(())
}

/// Load and faults by the time line, from T0 to the worker's last word.
async fn drive(plan: &Plan, journal: &Arc<Journal>, stage: &mut Stage) -> Result<(), RunError> {
    let t0_ns = stage.start_load().await?;
    let injector = Injector {
        links: Arc::clone(&stage.links),
        fleet: stage.fleet(),
        journal: Arc::clone(journal),
        bindings: Arc::clone(&stage.bindings),
        client: stage.client.clone(),
        t0_ns,
    };
    let time_line = follow_time_line(plan, journal, injector);
    let ((), load) = tokio::join!(time_line, stage.take_load());
    load
}

/// Phases and faults, each at its planned instant. Returns when the load has come to its planned
/// end and every fault is lifted: what a late one hurts must be seen.
///
/// A fault on a service that another one has hold of waits for its end, which may come late: the
/// continuation of an earlier pause must not undo a later one.
async fn follow_time_line(plan: &Plan, journal: &Journal, injector: Injector) {
    let mut faults = JoinSet::new();
    let mut earlier: Vec<(&FaultEffect, CancellationToken)> = Vec::new();
    for fault in &plan.faults {
        let services = fault.effect.services();
        let meets = |other: &FaultEffect| other.services().iter().any(|it| services.contains(it));
        let before = earlier.iter().filter(|(other, _)| meets(other));
        let before = before.map(|(_, over)| over.clone()).collect();
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        faults.spawn(injector.clone().inject(fault.clone(), before, guard));
        earlier.push((&fault.effect, over));
    }
    let phases = plan.phases;
    let time_line = [
        (Phase::WarmUp, Duration::ZERO, phases.baseline_start),
        (Phase::Baseline, phases.baseline_start, phases.baseline_end),
        (Phase::Faults, phases.baseline_end, phases.recovery_start),
        (Phase::Recovery, phases.recovery_start, phases.load_end),
    ];
    for (phase, from, to) in time_line {
        if from < to {
            injector.sleep_until(from).await;
            start_phase(journal, phase, to - from);
        }
    }
    injector.sleep_until(phases.load_end).await;
    while faults.join_next().await.is_some() {}
}

fn start_phase(journal: &Journal, phase: Phase, lasts: Duration) {
    let planned_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    journal.event_durable(Event::PhaseStarted { phase, planned_ms });
}

/// Stops everything that was started, whatever state it is in.
async fn teardown(
    stage: Option<Stage>,
    options: &Options,
    journal: &Journal,
    shutdown: &Shutdown,
) -> Vec<String> {
    start_phase(journal, Phase::Teardown, Duration::ZERO);
    let begun_ns = journal.now_ns();
    let mut left = match stage {
        Some(stage) => stage.tear_down(TEARDOWN_GRACE, shutdown).await,
        None => Vec::new(),
    };
    if let Err(error) = leftovers::remove_data(&options.data) {
        left.push(format!("folder `{}`: {error}", options.data.display()));
    }
    let took_ms = (journal.now_ns() - begun_ns) / 1_000_000;
    let told = left.clone();
    journal.event_durable(Event::TeardownFinished { left, took_ms });
    journal.flush();
    told
}

/// A path that executes this very binary for as long as this process lives, also after a rebuild.
pub fn own_executable() -> String {
    format!("/proc/{}/exe", std::process::id())
}

/// The bindings of a run, once its ports are known.
fn bind(plan: &Plan, options: &Options, run_id: &str, ports: &TakenPorts) -> Bindings {
    let links = plan.system.links.iter().map(|link| {
        let listen = link
            .listen
            .clone()
            .unwrap_or_else(|| format!("127.0.0.1:{}", ports[&link.name.alias()].number()));
        (link.name.clone(), listen)
    });
    let service_ports = bindings::wanted_ports(plan)
        .into_iter()
        .map(|(service, port, _)| {
            let number = ports[&format!("{service}.{port}")].number();
            ((service, port), number)
        });
    Bindings {
        run_id: run_id.to_owned(),
        token: options.token.clone(),
        chaos: own_executable(),
        environment: plan.system.environment.clone(),
        ports: service_ports.collect(),
        links: links.collect(),
        data: options.data.clone(),
    }
}
