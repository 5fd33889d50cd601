//! `chaos run`: runs scenarios, one after another.

use std::collections::BTreeMap;
use std::io::{Stderr, Write as _, stderr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::sync::{Mutex, mpsc};

use crate::display::{self, Display, Ending};
use crate::evidence::folder::{FolderError, RunFolder};
use crate::evidence::{Event, RunClock, StopReason};
use crate::exit::Exit;
use crate::plan::Plan;
use crate::run::journal::{DISPLAY_QUEUE, Journal, Shown};
use crate::run::leftovers::{self, RunLock};
use crate::run::ports::Ports;
use crate::run::shutdown::Shutdown;
use crate::run::{self, Ended};
use crate::terminal::Environment;

use super::options::OnInconclusive;
use super::planning::{self, Planned};
use super::results::Results;
use super::{Failure, Result, options, rendering};

/// Flags of `chaos run`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Scenario files, or folders of them, whose system files are passed over
    #[arg(required = true, value_name = "FILE|DIR")]
    pub scenarios: Vec<PathBuf>,

    /// After the report, keep the system running until Ctrl-C (not supported yet)
    #[arg(long, env = "CHAOS_KEEP_RUNNING", hide = true)]
    pub keep_running: bool,

    /// How to show how far the run is
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "HOW",
        env = "CHAOS_PROGRESS"
    )]
    pub progress: options::Progress,

    /// Say more: every link and process; twice for the harness's own log
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Say only how it ended, like `--progress none`
    #[arg(short, long, conflicts_with_all = ["verbose", "progress"])]
    pub quiet: bool,

    #[command(flatten)]
    pub changes: options::Changes,

    #[command(flatten)]
    pub reports: options::Reports,

    #[command(flatten)]
    pub outputs: options::Outputs,
}

const AFTER_HELP: &str = "\
Examples:
  chaos run scenarios/payment-outage.yaml
  chaos run scenarios --seed 7 --junit junit.xml
  chaos run my.yaml --set phases.baseline=10s --only orders-answered
  chaos run scenarios/calm.yaml --toxiproxy http://127.0.0.1:8474

SIGUSR1 prints the current state of the run.";

/// So many `-v` show the harness's own log.
const VERBOSE_LOG: u8 = 2;

pub(super) fn execute(args: Args, environment: &Environment) -> Result {
    if args.verbose >= VERBOSE_LOG {
        // Only a second subscriber is refused, and there is none.
        let _ = tracing_subscriber::fmt()
            .with_env_filter("warn,chaos_harness=debug")
            .with_ansi(environment.color())
            .with_writer(stderr)
            .try_init();
    }
    if args.keep_running {
        return Err(Failure::usage(anyhow!(
            "`--keep-running` is not supported yet"
        )));
    }
    // Everything is checked before anything is started.
    let planned = planning::plan_all(&args.scenarios, &args.changes, environment)?;
    let results = Results::new(&args.outputs)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")
        .map_err(Failure::not_carried_out)?;
    runtime.block_on(run_all(planned, &args, environment, results))
}

/// What the runs of one command share.
struct Series<'a> {
    args: &'a Args,
    environment: &'a Environment,
    shutdown: Shutdown,
    /// Someone asked for the state of the run.
    show: Arc<Mutex<mpsc::Receiver<()>>>,
    results: Results,
}

async fn run_all(
    planned: Vec<Planned>,
    args: &Args,
    environment: &Environment,
    results: Results,
) -> Result {
    let shutdown = Shutdown::new();
    let show = shutdown
        .listen_to_signals()
        .context("listen to signals")
        .map_err(Failure::not_carried_out)?;
    clear_killed_runs(args, environment).await;
    let mut series = Series {
        args,
        environment,
        shutdown,
        show: Arc::new(Mutex::new(show)),
        results,
    };
    let mut exits = Vec::new();
    for planned in planned {
        exits.push(series.run_or_skip(planned).await);
    }
    let exit = Exit::combine(exits);
    series.results.write().map_err(|failure| Failure {
        exit: failure.exit.max(exit),
        ..failure
    })?;
    Ok(exit)
}

impl Series<'_> {
    /// Runs a scenario unless the command was told to stop. Whatever comes of it is among the
    /// results; a failure is told at once, because the next run may follow.
    async fn run_or_skip(&mut self, planned: Planned) -> Exit {
        let plan = Arc::new(planned.plan);
        if let Some(reason) = self.shutdown.reason() {
            let why = "not run: the command was told to stop before";
            self.results.add_not_run(&plan, reason, why);
            return rendering::exit_of_stop(reason);
        }
        let known = self.results.len();
        let ended = self.run(&plan, &planned.texts).await;
        let exit = ended.unwrap_or_else(|failure| {
            if self.results.len() == known {
                let why = failure.error.to_string();
                self.results.add_not_run(&plan, StopReason::Failed, &why);
            }
            // Nobody is left to tell when standard error is gone; the exit code still speaks.
            let _ = writeln!(stderr(), "{failure}");
            failure.exit
        });
        super::bug::set_run_folder(None);
        exit
    }

    async fn run(&mut self, plan: &Arc<Plan>, texts: &BTreeMap<String, String>) -> Result {
        let args = self.args;
        let clock = RunClock::start();
        // Absolute, because services have working directories of their own.
        let reports = std::path::absolute(&args.reports.report_dir)
            .context("find the report folder")
            .map_err(Failure::not_carried_out)?;
        let folder =
            RunFolder::create(&reports, clock.origin_wall_ms).map_err(Failure::not_carried_out)?;
        super::bug::set_run_folder(Some(folder.path().to_owned()));
        let lock = RunLock::take(folder.path())
            .context("lock the run folder")
            .map_err(Failure::not_carried_out)?;
        let shown = args.reports.report_dir.join(folder.run_id());
        let (journal, events) =
            open_journal(&folder, clock, plan, texts).map_err(Failure::not_carried_out)?;
        let options = display_options(args, self.environment, &shown);
        let display = Display::new(plan, options, stderr());
        let displaying = tokio::spawn(show_events(display, events, Arc::clone(&self.show), clock));

        let options = run::Options {
            environment: inherited(self.environment),
            locks: self.environment.temp_dir(),
            data: folder.path().join(leftovers::DATA),
            token: format!("{:032x}", rand::random::<u128>()),
        };
        let ended = run::execute(
            Arc::clone(plan),
            options,
            &folder,
            Arc::clone(&journal),
            &self.shutdown,
        )
        .await;
        if let Some(lock) = lock.filter(|_| !ended.left.is_empty()) {
            lock.keep();
        }
        journal.end_display();
        let display = displaying
            .await
            .context("show the run")
            .map_err(Failure::not_carried_out)?;
        self.finish(&folder, plan, texts, &ended, &shown, display)
    }

    /// Judges, renders, and says how it ended.
    fn finish(
        &mut self,
        folder: &RunFolder,
        plan: &Plan,
        texts: &BTreeMap<String, String>,
        ended: &Ended,
        shown: &Path,
        mut display: Display<Stderr>,
    ) -> Result {
        let on_inconclusive = self.args.outputs.inconclusive;
        let judged = rendering::judge_and_render(folder, "", plan, texts, &mut self.results)?;
        folder.point_latest().map_err(Failure::not_carried_out)?;
        let exit = rendering::exit_of(&judged, on_inconclusive);
        let ending = Ending {
            lasted: judged.lasted,
            exit_code: exit.code(),
            inconclusive_warns: on_inconclusive == OnInconclusive::Warn,
            report: Some(shown.join("report.html").display().to_string()),
        };
        // Nobody is left to tell when standard error is gone; the exit code still speaks.
        let _ = display.finish(&judged.verdicts, &ending);
        let Some(error) = &ended.error else {
            return Ok(exit);
        };
        let help = error
            .help
            .as_ref()
            .map(|help| format!("\n  help: {help}"))
            .unwrap_or_default();
        Err(Failure {
            exit,
            error: anyhow!("{error}{help}"),
        })
    }
}
/// What earlier runs left that were killed together with their keeper. Not being able to clear it
/// is no reason not to run.
async fn clear_killed_runs(args: &Args, environment: &Environment) {
    for folder in leftovers::unfinished(&args.reports.report_dir).unwrap_or_default() {
        if let Err(error) = leftovers::clear(&folder, Duration::ZERO).await {
            tracing::warn!(folder = %folder.display(), %error, "not cleared");
        }
    }
    if let Ok(ports) = Ports::new(&environment.temp_dir()) {
        ports.clear_stale();
    }
}

fn open_journal(
    folder: &RunFolder,
    clock: RunClock,
    plan: &Plan,
    texts: &BTreeMap<String, String>,
) -> std::result::Result<(Arc<Journal>, mpsc::Receiver<Shown>), FolderError> {
    for (name, file) in [
        ("scenario.yaml", &plan.scenario_file),
        ("system.yaml", &plan.system_file),
    ] {
        folder.write(
            name,
            texts.get(file).map_or(&[][..], |text| text.as_bytes()),
        )?;
    }
    folder.write_plan(plan)?;
    let (sender, events) = mpsc::channel(DISPLAY_QUEUE);
    let journal = Arc::new(Journal::open(folder, clock, sender)?);
    journal.event_durable(Event::RunStarted {
        run_id: folder.run_id().to_owned(),
        scenario: plan.name.clone(),
        seed: plan.seed,
        chaos_version: plan.chaos_version.clone(),
        clock,
        boot_id: boot_id(),
        pid: std::process::id(),
    });
    Ok((journal, events))
}

/// Without it, monotonic times of services are not comparable to ours across machines.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn display_options(args: &Args, environment: &Environment, shown: &Path) -> display::Options {
    let mut options = display::Options::of(environment, shown.display().to_string());
    options.verbose = args.verbose > 0;
    options.progress = !args.quiet;
    // A block that redraws itself would be torn by the log's lines.
    options.live &= args.verbose < VERBOSE_LOG;
    match args.progress {
        options::Progress::Auto => {}
        options::Progress::Live => options.live = true,
        options::Progress::Plain => options.live = false,
        options::Progress::None => options.progress = false,
    }
    options
}

async fn show_events(
    mut display: Display<Stderr>,
    mut events: mpsc::Receiver<Shown>,
    show: Arc<Mutex<mpsc::Receiver<()>>>,
    clock: RunClock,
) -> Display<Stderr> {
    let mut show = show.lock().await;
    loop {
        // Nobody is left to tell when standard error is gone; the run goes on.
        let _ = tokio::select! {
            event = events.recv() => match event {
                Some(Shown::Event(event)) => display.on_event(&event),
                Some(Shown::Record(record)) => display.on_record(&record),
                None => return display,
            },
            Some(()) = show.recv() => display.print_state(clock.now_ns()),
        };
    }
}

/// What every service gets of the user's own environment.
fn inherited(environment: &Environment) -> BTreeMap<String, String> {
    ["PATH", "HOME", "LANG", "TZ"]
        .into_iter()
        .filter_map(|name| {
            Some((
                name.to_owned(),
                environment.variable(name)?.to_str()?.to_owned(),
            ))
        })
        .collect()
}
