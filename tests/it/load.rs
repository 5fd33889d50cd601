//! The load worker as a process, against a scripted target: what goose, signals, a stop, a frozen
//! or black-holed target and the environment must not be able to do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use chaos_harness::evidence::clock::mono_ns;
use chaos_harness::evidence::events::{LoadSecond, LoadSummary};
use chaos_harness::evidence::{Operation, Phase, RunClock};
use chaos_harness::load::hlog::{Log, Tag};
use chaos_harness::load::wire::{Assignment, Finished, Measure, PhaseSpan, Series, TOKEN_VARIABLE};
use chaos_harness::plan::load::{
    Arrivals, LoadModel, LoadPlan, OutcomeClass, OutcomeMap, Request, Segment, StatusRange,
};
use chaos_harness::plan::{
    JourneyName, JourneyPlan, LinkName, OperationName, SourceRef, StepPlan, Template,
};
use chaos_harness::run::load_host::{LoadHost, LoadMessage};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Bounds how long a failing test takes; no claim about speed.
const DEADLINE: Duration = Duration::from_secs(60);

/// A run of one worker.
struct Rig {
    host: LoadHost,
    worker: Child,
    clock: RunClock,
    /// CLOCK_MONOTONIC.
    t0_ns: u64,
    operations: Vec<Operation>,
    seconds: Vec<LoadSecond>,
    log: Log,
}

/// What came of it.
struct Ended {
    operations: Vec<Operation>,
    seconds: Vec<LoadSecond>,
    log: Log,
    finished: Finished,
    status: ExitStatus,
    output: String,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

impl Rig {
    async fn start(assignment: Assignment, environment: &[(&str, &str)]) -> Rig {
        let clock = assignment.clock;
        let host = LoadHost::start(assignment).await.unwrap();
        let worker = spawn(&host, environment);
        Rig {
            host,
            worker,
            clock,
            t0_ns: 0,
            operations: Vec::new(),
            seconds: Vec::new(),
            log: Log::default(),
        }
    }

    /// Starts the load.
    async fn begun(assignment: Assignment, environment: &[(&str, &str)]) -> Rig {
        let mut rig = Rig::start(assignment, environment).await;
        rig.host.wait_ready(DEADLINE).await.unwrap();
        rig.t0_ns = mono_ns() + 20_000_000;
        rig.host.go(rig.t0_ns);
        rig
    }

    async fn next(&mut self) -> LoadMessage {
        let message = tokio::time::timeout(DEADLINE, self.host.next()).await;
        message
            .expect("no message in time")
            .expect("no last message")
    }

    /// Reads on until the worker has told everything.
    async fn finished(&mut self) -> Finished {
        loop {
            match self.next().await {
                LoadMessage::Batch(batch) => {
                    assert_eq!(batch.operations_lost, 0);
                    self.log.add(&batch.histograms).unwrap();
                    self.operations.extend(batch.operations);
                    self.seconds.extend(batch.seconds);
                }
                LoadMessage::Finished(finished) => return finished,
                LoadMessage::Lost(why) => panic!("lost: {why}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.worker.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Reads to the end and waits for the process.
    async fn end(mut self) -> Ended {
        let finished = self.finished().await;
        let (status, output) = self.exit().await;
        Ended {
            operations: std::mem::take(&mut self.operations),
            seconds: std::mem::take(&mut self.seconds),
            log: std::mem::take(&mut self.log),
            finished,
            status,
            output,
        }
    }

    async fn exit(&mut self) -> (ExitStatus, String) {
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        let ended = async {
            loop {
                looks.tick().await;
                if let Some(status) = self.worker.try_wait().unwrap() {
                    return status;
                }
            }
        };
        let status = tokio::time::timeout(DEADLINE, ended).await;
        let status = status.expect("the worker does not end");
        let mut output = String::new();
        let (stdout, stderr) = (self.worker.stdout.take(), self.worker.stderr.take());
        stdout.unwrap().read_to_string(&mut output).unwrap();
        stderr.unwrap().read_to_string(&mut output).unwrap();
        (status, output)
    }
}

#[expect(clippy::disallowed_methods, reason = "the test is the worker's parent")]
fn spawn(host: &LoadHost, environment: &[(&str, &str)]) -> Child {
    std::process::Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["worker", "--connect", host.url()])
        .env(TOKEN_VARIABLE, host.token())
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A constant rate of `browse` at a URL.
fn assignment(url: &str, per_s: f64, duration: Duration) -> Assignment {
    let browse = StepPlan {
        name: OperationName::new("browse"),
        think: Duration::ZERO,
        request: Request {
            method: "GET".into(),
            path: Template::parse("/ok?key=$(key)").unwrap(),
            headers: Vec::new(),
            json: None,
        },
        outcome: OutcomeMap {
            done: vec![StatusRange(200, 299)],
            accepted: Vec::new(),
            refused: vec![StatusRange(400, 499)],
            body_null: None,
        },
        capture: Vec::new(),
        until: None,
    };
    Assignment {
        seed: 7,
        load: LoadPlan {
            model: LoadModel::Open(Arrivals {
                poisson: false,
                segments: vec![Segment {
                    from_per_s: per_s,
                    to_per_s: per_s,
                    over: duration,
                }],
            }),
            users_max: 50,
            timeout: Duration::from_secs(30),
            journeys: vec![JourneyPlan {
                name: JourneyName::new("browsing"),
                source: SourceRef {
                    file: "system.yaml".into(),
                    line: 1,
                    column: 1,
                },
                weight: 1.0,
                link: LinkName::new("load", "gateway"),
                steps: vec![browse],
            }],
            feeds: Vec::new(),
            requests_per_s: (per_s, per_s),
        },
        targets: BTreeMap::from([(LinkName::new("load", "gateway"), url.to_owned())]),
        symbols: BTreeMap::new(),
        clock: RunClock::start(),
        duration,
        phases: vec![PhaseSpan {
            phase: Phase::Baseline,
            from: Duration::ZERO,
        }],
        worker: 0,
        workers: 1,
        ticket_deadline: Duration::from_secs(30),
        local: true,
    }
}

/// A target that answers `/ok` unless it is frozen, and counts.
struct Target {
    url: String,
    requests: Arc<AtomicU64>,
    frozen: watch::Sender<bool>,
}

async fn target() -> Target {
    let requests = Arc::new(AtomicU64::new(0));
    let frozen = watch::Sender::new(false);
    let ok = {
        let (requests, frozen) = (Arc::clone(&requests), frozen.clone());
        move || {
            requests.fetch_add(1, SeqCst);
            let mut frozen = frozen.subscribe();
            async move {
                let _ = frozen.wait_for(|frozen| !*frozen).await;
                "ok"
            }
        }
    };
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/ok", get(ok));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Target {
        url,
        requests,
        frozen,
    }
}

/// A target whose kernel accepts and that never answers.
async fn black_hole() -> (TcpListener, String) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let held = async {
        while !condition() {
            looks.tick().await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE, held).await.is_ok(),
        "never: {what}"
    );
}

async fn sleep_to(mono_at_ns: u64) {
    let left = Duration::from_nanos(mono_at_ns.saturating_sub(mono_ns()));
    tokio::time::sleep(left).await;
}

fn assert_conserved(summary: &LoadSummary) {
    let accounted = summary.completed + summary.failed + summary.dropped;
    assert_eq!(summary.issued, accounted, "{summary:?}");
}

#[tokio::test]
async fn every_ticket_is_issued_answered_and_told_once() {
    let target = target().await;
    let ended = Rig::begun(assignment(&target.url, 100.0, Duration::from_secs(2)), &[])
        .await
        .end()
        .await;
    let summary = &ended.finished.summary;
    assert_conserved(summary);
    assert_eq!((summary.issued, summary.completed), (200, 200));
    assert_eq!((summary.requests, target.requests.load(SeqCst)), (200, 200));
    let tickets: BTreeSet<u64> = ended.operations.iter().map(|op| op.iteration).collect();
    assert_eq!((tickets.len(), ended.operations.len()), (200, 200));
    let offered: Vec<_> = ended
        .seconds
        .iter()
        .map(|s| (s.second, s.offered, s.done))
        .collect();
    assert_eq!(offered, [(0, 100, 100), (1, 100, 100)]);
    for measure in [Measure::Latency, Measure::Service, Measure::SendLag] {
        for series in [
            Series::Operation("browse".into()),
            Series::Journey("browsing".into()),
        ] {
            let tag = Tag {
                series,
                outcome: OutcomeClass::Done,
                measure,
            };
            assert_eq!(ended.log.sum(&tag, 0..2).len(), 200, "{tag:?}");
        }
    }
    assert_eq!(ended.finished.phases.len(), 6);
    assert!(ended.status.success());
}

#[tokio::test]
async fn goose_prints_one_line_that_it_cannot_be_kept_from_and_opens_no_port() {
    let target = target().await;
    let mut assignment = assignment(&target.url, 50.0, Duration::from_secs(1));
    // Failures too: goose would warn about each of them.
    assignment.load.journeys[0].steps[0].request.path = Template::text("/missing");
    let mut rig = Rig::begun(assignment, &[]).await;
    assert_eq!(listening_sockets(rig.worker.id()), Vec::<String>::new());
    rig.finished().await;
    let (status, output) = rig.exit().await;
    assert_eq!(output, "50 users launched.\n");
    assert!(status.success());
}

/// Local addresses of the TCP sockets that a process listens on.
fn listening_sockets(pid: u32) -> Vec<String> {
    let inodes: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?;
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let Ok(table) = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) else {
            continue;
        };
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == "0A" && inodes.contains(fields[9]) {
                found.push(fields[1].to_owned());
            }
        }
    }
    found
}

#[tokio::test]
async fn books_are_kept_behind_the_users() {
    let target = target().await;
    let rig = Rig::start(assignment(&target.url, 20.0, Duration::from_secs(1)), &[]).await;
    rig.host.wait_ready(DEADLINE).await.unwrap();
    let pid = rig.worker.id();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let users = threads
        .map(|thread| thread.unwrap().path())
        .find(|thread| std::fs::read_to_string(thread.join("comm")).unwrap() == "users\n");
    assert!(niceness(Path::new(&format!("/proc/{pid}"))) > niceness(&users.unwrap()));
}

fn niceness(task: &Path) -> i32 {
    let stat = std::fs::read_to_string(task.join("stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    // Field 19 of proc_pid_stat(5); the 17th after the name.
    let nice = fields.split_ascii_whitespace().nth(16).unwrap();
    nice.parse().unwrap()
}

#[tokio::test]
async fn a_proxy_in_the_environment_is_ignored() {
    let target = target().await;
    // A proxy that would swallow everything.
    let (_nobody, proxy) = black_hole().await;
    let environment =
        ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"].map(|name| (name, proxy.as_str()));
    let assignment = assignment(&target.url, 20.0, Duration::from_secs(1));
    let ended = Rig::begun(assignment, &environment).await.end().await;
    assert_eq!(ended.finished.summary.completed, 20);
    assert!(
        ended
            .operations
            .iter()
            .all(|op| op.outcome == OutcomeClass::Done)
    );
}

#[tokio::test]
async fn a_frozen_target_shows_in_the_latency_from_the_intended_start() {
    let target = target().await;
    let mut assignment = assignment(&target.url, 100.0, Duration::from_secs(3));
    assignment.load.users_max = 400;
    let rig = Rig::begun(assignment, &[]).await;
    sleep_to(rig.t0_ns + 1_000_000_000).await;
    let frozen_ns = mono_ns();
    target.frozen.send_replace(true);
    sleep_to(rig.t0_ns + 2_000_000_000).await;
    // Read before: what is implied is then a lower bound whatever the scheduler does.
    let thawed_ns = mono_ns();
    target.frozen.send_replace(false);
    let t0_ns = rig.t0_ns;
    let ended = rig.end().await;

    let summary = &ended.finished.summary;
    assert_conserved(summary);
    assert_eq!((summary.issued, summary.dropped), (300, 0));
    let tag = Tag {
        series: Series::Operation("browse".into()),
        outcome: OutcomeClass::Done,
        measure: Measure::Latency,
    };
    let measured_us = ended.log.sum(&tag, 0..10).value_at_quantile(0.99);
    let mut implied_us: Vec<u64> = (0..300)
        .map(|ticket| t0_ns + ticket * 10_000_000)
        .map(|due_ns| match (frozen_ns..thawed_ns).contains(&due_ns) {
            true => (thawed_ns - due_ns) / 1000,
            false => 0,
        })
        .collect();
    implied_us.sort_unstable();
    let implied_us = implied_us[296];
    assert!(implied_us > 900_000, "{implied_us}");
    assert!(
        measured_us as f64 >= 0.9 * implied_us as f64,
        "{measured_us} of {implied_us}"
    );
}

#[tokio::test]
async fn a_ticket_without_a_free_user_is_dropped_and_counted() {
    let target = target().await;
    target.frozen.send_replace(true);
    let mut assignment = assignment(&target.url, 50.0, Duration::from_secs(1));
    assignment.load.users_max = 2;
    assignment.ticket_deadline = Duration::from_millis(100);
    let rig = Rig::begun(assignment, &[]).await;
    sleep_to(rig.t0_ns + 1_500_000_000).await;
    target.frozen.send_replace(false);
    let ended = rig.end().await;
    let summary = &ended.finished.summary;
    assert_conserved(summary);
    assert_eq!(
        (summary.issued, summary.completed, summary.dropped),
        (50, 2, 48)
    );
    assert_eq!(summary.users_busy_max, 2);
    assert_eq!(ended.seconds.iter().map(|s| s.dropped).sum::<u64>(), 48);
}

#[tokio::test]
async fn time_outs_are_failures_of_operations_and_not_of_the_books() {
    let (_listener, url) = black_hole().await;
    let mut assignment = assignment(&url, 50.0, Duration::from_secs(1));
    assignment.load.timeout = Duration::from_millis(300);
    let ended = Rig::begun(assignment, &[]).await.end().await;
    assert_conserved(&ended.finished.summary);
    assert_eq!(ended.finished.summary.issued, 50);
    assert!(
        ended
            .operations
            .iter()
            .all(|op| op.outcome == OutcomeClass::Unknown)
    );
    assert!(
        ended
            .operations
            .iter()
            .all(|op| op.error.as_deref() == Some("timeout"))
    );
    let unknown: u64 = ended.seconds.iter().map(|second| second.unknown).sum();
    assert_eq!(unknown, ended.operations.len() as u64);
}

#[tokio::test]
async fn a_stop_cuts_unanswered_requests_and_the_books_still_add_up() {
    let target = target().await;
    target.frozen.send_replace(true);
    // Shutdown would join users for as long as the time-out.
    let mut assignment = assignment(&target.url, 50.0, Duration::from_secs(600));
    assignment.load.timeout = Duration::from_secs(600);
    let rig = Rig::begun(assignment, &[]).await;
    wait_until("requests", || target.requests.load(SeqCst) > 10).await;
    rig.host.stop(Duration::from_millis(100));
    let ended = rig.end().await;
    assert_conserved(&ended.finished.summary);
    assert!(ended.finished.summary.failed > 0);
    assert_eq!(ended.finished.summary.completed, 0);
    let stopped = |op: &Operation| op.error.as_deref() == Some("stopped");
    assert!(ended.operations.iter().all(stopped));
    assert!(ended.status.success());
}

#[tokio::test]
async fn a_stopped_load_sends_nothing_more() {
    let target = target().await;
    let mut rig = Rig::begun(
        assignment(&target.url, 200.0, Duration::from_secs(600)),
        &[],
    )
    .await;
    wait_until("requests", || target.requests.load(SeqCst) > 50).await;
    rig.host.stop(Duration::from_secs(5));
    let finished = rig.finished().await;
    let sent = target.requests.load(SeqCst);
    assert_eq!(finished.summary.requests, sent);
    assert_conserved(&finished.summary);
    let (status, _) = rig.exit().await;
    assert!(status.success());
    assert_eq!(target.requests.load(SeqCst), sent);
}

#[tokio::test]
async fn a_stop_before_the_load_begins_ends_the_worker() {
    let target = target().await;
    // While goose still starts users, which clears its own killswitch.
    let rig = Rig::start(assignment(&target.url, 10.0, Duration::from_secs(600)), &[]).await;
    rig.host.stop(Duration::ZERO);
    let ended = rig.end().await;
    assert_eq!(ended.finished.summary.issued, 0);
    assert_eq!(target.requests.load(SeqCst), 0);
    assert!(ended.status.success());
}

#[tokio::test]
async fn users_that_wait_for_a_ticket_see_the_stop() {
    let target = target().await;
    // The second ticket is due after a quarter of an hour.
    let rig = Rig::begun(
        assignment(&target.url, 0.001, Duration::from_secs(3600)),
        &[],
    )
    .await;
    wait_until("the first ticket", || target.requests.load(SeqCst) == 1).await;
    rig.host.stop(Duration::ZERO);
    let ended = rig.end().await;
    assert_eq!(ended.finished.summary.issued, 1);
    assert!(ended.status.success());
}

#[tokio::test]
async fn signals_end_the_load_with_its_books_told() {
    let target = target().await;
    for signals in [
        vec![Signal::INT],
        vec![Signal::INT, Signal::INT],
        vec![Signal::TERM; 3],
    ] {
        let before = target.requests.load(SeqCst);
        let rig = Rig::begun(
            assignment(&target.url, 100.0, Duration::from_secs(600)),
            &[],
        )
        .await;
        wait_until("requests", || target.requests.load(SeqCst) > before + 10).await;
        signals.iter().for_each(|signal| rig.signal(*signal));
        let ended = rig.end().await;
        assert_conserved(&ended.finished.summary);
        assert!(ended.finished.summary.completed > 0);
        assert!(ended.status.success(), "{signals:?}: {}", ended.output);
    }
}

#[tokio::test]
async fn a_local_worker_ends_when_its_standard_input_does() {
    let target = target().await;
    let mut rig = Rig::begun(
        assignment(&target.url, 100.0, Duration::from_secs(600)),
        &[],
    )
    .await;
    wait_until("requests", || target.requests.load(SeqCst) > 10).await;
    drop(rig.worker.stdin.take());
    let (status, output) = rig.exit().await;
    assert_eq!(status.code(), Some(4), "{output}");
    assert!(output.contains("the coordinator is gone"), "{output}");
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_said_before_the_load_begins() {
    let target = target().await;
    let mut assignment = assignment(&target.url, 10.0, Duration::from_secs(1));
    assignment.load.journeys[0].steps[0].request.path = Template::parse("/$(order)").unwrap();
    let mut rig = Rig::start(assignment, &[]).await;
    let error = rig.host.wait_ready(DEADLINE).await.unwrap_err().to_string();
    assert!(error.contains("nothing binds `$(order)`"), "{error}");
    assert_eq!(rig.exit().await.0.code(), Some(4));
}

#[tokio::test]
async fn users_of_the_closed_model_wait_for_their_answers() {
    let target = target().await;
    let mut assignment = assignment(&target.url, 0.0, Duration::from_secs(1));
    assignment.load.model = LoadModel::Closed {
        users: 3,
        think: Duration::from_millis(50),
    };
    let ended = Rig::begun(assignment, &[]).await.end().await;
    let summary = &ended.finished.summary;
    assert_conserved(summary);
    // Three users that think 50 ms cannot walk more than 20 journeys each.
    assert!((3..=60).contains(&summary.issued), "{summary:?}");
    assert_eq!((summary.completed, summary.dropped), (summary.issued, 0));
    assert!(summary.users_busy_max <= 3);
    // What the label is about: an operation is never sent late, because it is never due.
    assert!(
        ended
            .operations
            .iter()
            .all(|op| op.sent_ns - op.intended_ns < 50_000_000)
    );
}

#[tokio::test]
async fn two_workers_drive_exactly_the_sequence_of_one() {
    let target = target().await;
    let mut sequences = Vec::new();
    for workers in [1, 2] {
        let mut sequence = BTreeSet::new();
        for worker in 0..workers {
            let mut part = assignment(&target.url, 0.0, Duration::from_secs(1));
            part.load.model = LoadModel::Open(Arrivals {
                poisson: true,
                segments: vec![Segment {
                    from_per_s: 20.0,
                    to_per_s: 80.0,
                    over: Duration::from_secs(1),
                }],
            });
            (part.worker, part.workers) = (worker, workers);
            let rig = Rig::begun(part, &[]).await;
            let t0_ns = rig.clock.from_mono(rig.t0_ns);
            let ended = rig.end().await;
            let told = |op: Operation| (op.iteration, op.intended_ns - t0_ns, op.key, op.trace);
            sequence.extend(ended.operations.into_iter().map(told));
        }
        sequences.push(sequence);
    }
    assert!(sequences[0].len() > 20);
    assert_eq!(sequences[0], sequences[1]);
}
