//! The keeper with the real binary and the fixture service: whatever happens to whom, nothing of
//! a run is left, and whoever asks is told why.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chaos_harness::keeper::{
    Change, ChangeKind, End, Keeper, KeeperError, KeeperOptions, ProcessId, Signal, SpawnSpec,
    Stdin, sweep,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::support::{SOON, chaos, eventually, fixture, is_alive, until_some};

/// For those who will not end, and long enough for those who will.
const GRACE: Duration = Duration::from_secs(2);

/// A keeper, the folder of its logs and what it reports.
struct Bench {
    folder: TempDir,
    run_id: String,
    keeper: Keeper,
    changes: mpsc::Receiver<Change>,
}

impl Bench {
    async fn start() -> Bench {
        Bench::start_with(&[]).await
    }

    async fn start_with(at_eof: &[&str]) -> Bench {
        let unique = tempfile::tempdir().expect("a folder");
        Bench::start_as(&format!("test-{}", unique.path().display()), at_eof).await
    }

    async fn start_as(run_id: &str, at_eof: &[&str]) -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let run_id = run_id.to_owned();
        let options = KeeperOptions {
            executable: chaos().to_owned(),
            run_id: run_id.clone(),
            log: folder.path().join("keeper.log"),
            at_eof: at_eof.iter().map(|arg| (*arg).to_owned()).collect(),
        };
        let (keeper, changes) = Keeper::start(options).await.expect("a keeper");
        Bench {
            folder,
            run_id,
            keeper,
            changes,
        }
    }

    fn log_path(&self, process: &str) -> PathBuf {
        self.folder.path().join(format!("{process}.log"))
    }

    fn spec(&self, process: &str, flags: &[&str]) -> SpawnSpec {
        let program = fixture().display().to_string();
        SpawnSpec {
            process: process.into(),
            argv: std::iter::once(program)
                .chain(flags.iter().map(|f| (*f).to_owned()))
                .collect(),
            env: BTreeMap::new(),
            dir: self.folder.path().to_owned(),
            log: self.log_path(process),
            nice: 0,
            stdin: Stdin::Null,
        }
    }

    /// Starts a fixture and waits until it says that it listens. Returns its pid.
    async fn spawn_listening(&self, process: &str, flags: &[&str]) -> i32 {
        let spawned = self
            .keeper
            .spawn(self.spec(process, flags))
            .await
            .expect("a process");
        self.await_line(process, "listening ");
        spawned.pid
    }

    /// The rest of the first line that starts like this.
    fn await_line(&self, process: &str, start: &str) -> String {
        let path = self.log_path(process);
        until_some(&format!("`{start}` in {}", path.display()), SOON, || {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            whole
                .lines()
                .find_map(|line| line.strip_prefix(start))
                .map(str::to_owned)
        })
    }

    fn await_grandchild(&self, process: &str) -> i32 {
        self.await_line(process, "grandchild ")
            .parse()
            .expect("a pid")
    }

    async fn next_change(&mut self) -> Change {
        let next = tokio::time::timeout(SOON, self.changes.recv());
        next.await
            .expect("a change in time")
            .expect("a keeper that is there")
    }
}

fn eventually_dead(pids: &[i32]) {
    eventually(&format!("end of {pids:?}"), SOON, || {
        !pids.iter().any(|pid| is_alive(*pid))
    });
}

fn kill_dead(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
}

/// Three grandchildren in every way to get away. Returns all pids but the keeper's.
async fn spawn_family(bench: &Bench) -> Vec<i32> {
    let mut pids = Vec::new();
    for fork in ["plain", "setsid", "double"] {
        pids.push(
            bench
                .spawn_listening(fork, &["--ignore-term", "--fork", fork])
                .await,
        );
        pids.push(bench.await_grandchild(fork));
    }
    pids
}

#[tokio::test]
async fn ends_are_reported_with_code_or_signal_and_incarnation() {
    let mut bench = Bench::start().await;
    let boot = bench.spec("boot", &["--die-at-boot", "3"]);
    for incarnation in 1..=2 {
        let spawned = bench.keeper.spawn(boot.clone()).await.expect("a process");
        assert_eq!(spawned.incarnation, incarnation);
        let change = bench.next_change().await;
        assert_eq!((change.pid, change.incarnation), (spawned.pid, incarnation));
        assert_eq!(change.kind, ChangeKind::Exited(End::Code(3)));
        assert!(change.at_mono_ns >= spawned.at_mono_ns);
    }
    let pid = bench.spawn_listening("served", &[]).await;
    assert_eq!(
        bench.keeper.living(),
        BTreeMap::from([("served".into(), pid)])
    );
    bench
        .keeper
        .signal(&"served".into(), Signal::Kill)
        .await
        .expect("sent");
    let change = bench.next_change().await;
    assert_eq!(
        change.kind,
        ChangeKind::Exited(End::Signal {
            number: 9,
            core: false
        })
    );
    assert!(matches!(
        bench.keeper.signal(&"served".into(), Signal::Kill).await,
        Err(KeeperError::NotRunning(_))
    ));
}

#[tokio::test]
async fn pause_and_resume_are_confirmed() {
    let mut bench = Bench::start().await;
    bench.spawn_listening("service", &[]).await;
    bench.keeper.pause(&"service".into()).await.expect("sent");
    assert_eq!(bench.next_change().await.kind, ChangeKind::Stopped);
    bench.keeper.resume(&"service".into()).await.expect("sent");
    assert_eq!(bench.next_change().await.kind, ChangeKind::Continued);
}

#[tokio::test]
async fn vanished_coordinator_leaves_nothing_not_even_daemons() {
    let bench = Bench::start().await;
    let pids = spawn_family(&bench).await;
    let keeper_pid = bench.keeper.pid();
    // Exactly what the kernel does for a coordinator that was killed: its socket closes.
    drop(bench.keeper);
    eventually_dead(&pids);
    eventually_dead(&[keeper_pid]);
}

#[tokio::test]
async fn vanished_coordinator_is_cleaned_up_after_but_a_quitting_one_is_not() {
    for (quits, expected) in [(false, true), (true, false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let proof = folder.path().join("proof").display().to_string();
        let bench = Bench::start_with(&["/bin/sh", "-c", &format!("echo done > {proof}")]).await;
        let keeper_pid = bench.keeper.pid();
        if quits {
            bench.keeper.stop(SOON).await;
        } else {
            drop(bench.keeper);
        }
        eventually_dead(&[keeper_pid]);
        assert_eq!(
            std::fs::exists(&proof).expect("readable"),
            expected,
            "quits: {quits}"
        );
    }
}

#[tokio::test]
async fn killed_keeper_takes_its_children_along_and_a_sweep_finds_the_rest() {
    let mut bench = Bench::start().await;
    let pids = spawn_family(&bench).await;
    kill_dead(bench.keeper.pid());
    let children: Vec<i32> = bench.keeper.living().into_values().collect();
    assert_eq!(children.len(), 3);
    eventually_dead(&children);
    assert_eq!(
        tokio::time::timeout(SOON, bench.changes.recv()).await,
        Ok(None)
    );
    let lost = bench.keeper.spawn(bench.spec("late", &[])).await;
    assert!(matches!(lost, Err(KeeperError::Lost(_))), "{lost:?}");
    assert_eq!(sweep(&bench.run_id, SOON).left, Vec::<i32>::new());
    eventually_dead(&pids);
}

#[tokio::test]
async fn stop_after_a_killed_keeper_leaves_nothing() {
    let bench = Bench::start().await;
    let pids = spawn_family(&bench).await;
    kill_dead(bench.keeper.pid());
    assert_eq!(bench.keeper.stop(SOON).await.left, Vec::<i32>::new());
    eventually_dead(&pids);
}

#[tokio::test]
async fn stop_forces_only_those_who_ignore_it() {
    let bench = Bench::start().await;
    let polite = bench
        .spawn_listening("polite", &["--exit-at-term", "0"])
        .await;
    let stubborn = bench.spawn_listening("stubborn", &["--ignore-term"]).await;
    let keeper_pid = bench.keeper.pid();
    let log = bench.log_path("stubborn");
    let stopped = bench.keeper.stop(GRACE).await;
    assert_eq!(stopped.forced, [ProcessId::from("stubborn")]);
    assert_eq!(stopped.left, Vec::<i32>::new());
    assert!(![polite, stubborn, keeper_pid].map(is_alive).contains(&true));
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(
        log.contains("TERM ignored"),
        "it was asked before it was forced: {log}"
    );
}

#[tokio::test]
async fn teardown_that_is_cut_short_can_be_finished_by_force() {
    let bench = Bench::start().await;
    let pid = bench.spawn_listening("stubborn", &["--ignore-term"]).await;
    let stubborn = [ProcessId::from("stubborn")];
    let patient = bench.keeper.end(&stubborn, 10 * SOON);
    assert!(
        tokio::time::timeout(Duration::from_millis(10), patient)
            .await
            .is_err()
    );
    assert_eq!(bench.keeper.stop(Duration::ZERO).await.forced, stubborn);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn some_are_ended_while_the_others_run_on() {
    let bench = Bench::start().await;
    let proxy = bench
        .spawn_listening("proxy", &["--exit-at-term", "0"])
        .await;
    bench
        .spawn_listening("polite", &["--exit-at-term", "0"])
        .await;
    bench.spawn_listening("stubborn", &["--ignore-term"]).await;
    let forced = bench
        .keeper
        .end(&["polite", "stubborn"].map(ProcessId::from), GRACE)
        .await;
    assert_eq!(forced, [ProcessId::from("stubborn")]);
    assert_eq!(
        bench.keeper.living(),
        BTreeMap::from([("proxy".into(), proxy)])
    );
}

#[tokio::test]
async fn request_that_is_dropped_half_way_does_no_harm() {
    let bench = Bench::start().await;
    let mut spec = bench.spec("large", &[]);
    // More than a socket takes at once.
    spec.env.insert("LARGE".into(), "x".repeat(100_000));
    for _ in 0..20 {
        let spawning = bench.keeper.spawn(spec.clone());
        tokio::select! {
            biased;
            _ = spawning => {}
            () = tokio::task::yield_now() => {}
        }
    }
    bench.spawn_listening("shop", &[]).await;
}

#[tokio::test]
async fn request_that_is_too_long_is_refused_before_it_is_sent() {
    let bench = Bench::start().await;
    let mut spec = bench.spec("shop", &[]);
    spec.env.insert("LARGE".into(), "x".repeat(1 << 20));
    insta::assert_snapshot!(
        bench.keeper.spawn(spec).await.expect_err("it is too long"),
        @"cannot start `shop`: the command and environment are longer than 1024 KiB"
    );
    bench.spawn_listening("shop", &[]).await;
}

#[tokio::test]
async fn frozen_process_ends_by_itself_at_stop() {
    let mut bench = Bench::start().await;
    let pid = bench
        .spawn_listening("frozen", &["--exit-at-term", "0"])
        .await;
    bench.keeper.pause(&"frozen".into()).await.expect("sent");
    assert_eq!(bench.next_change().await.kind, ChangeKind::Stopped);
    assert_eq!(
        bench.keeper.stop(SOON).await,
        chaos_harness::keeper::Stopped::default()
    );
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn frozen_processes_die_with_the_coordinator() {
    let mut bench = Bench::start().await;
    let pid = bench.spawn_listening("frozen", &["--fork", "plain"]).await;
    let grandchild = bench.await_grandchild("frozen");
    bench.keeper.pause(&"frozen".into()).await.expect("sent");
    assert_eq!(bench.next_change().await.kind, ChangeKind::Stopped);
    drop(bench.keeper);
    eventually_dead(&[pid, grandchild]);
}

#[tokio::test]
async fn end_of_a_leader_ends_its_group() {
    let mut bench = Bench::start().await;
    let pid = bench.spawn_listening("leader", &["--fork", "plain"]).await;
    let grandchild = bench.await_grandchild("leader");
    kill_dead(pid);
    assert!(matches!(
        bench.next_change().await.kind,
        ChangeKind::Exited(_)
    ));
    eventually_dead(&[grandchild]);
}

#[tokio::test]
async fn kill_all_leaves_a_keeper_that_can_start_again() {
    let bench = Bench::start().await;
    let pids = spawn_family(&bench).await;
    assert_eq!(
        bench.keeper.kill_all().await.expect("an answer"),
        Vec::<i32>::new()
    );
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    tokio::time::timeout(SOON, bench.keeper.all_ended())
        .await
        .expect("all reported");
    let again = bench
        .keeper
        .spawn(bench.spec("plain", &[]))
        .await
        .expect("a process");
    assert_eq!(again.incarnation, 2);
}

#[tokio::test]
async fn children_get_their_environment_their_run_and_three_descriptors() {
    // A descriptor that a careless parent leaves open must not travel on.
    let leaky = std::fs::File::open("/proc/self/stat").expect("a file");
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).expect("inheritable");
    let bench = Bench::start().await;
    let mut spec = bench.spec("child", &["--descriptors"]);
    for name in ["GREETING", "CHAOS_RUN", "HOME"] {
        spec.argv.extend(["--variable".to_owned(), name.to_owned()]);
    }
    spec.env.insert("GREETING".into(), "hello there".into());
    bench.keeper.spawn(spec).await.expect("a process");
    assert_eq!(
        bench.await_line("child", "variable GREETING"),
        "=hello there"
    );
    assert_eq!(
        bench.await_line("child", "variable CHAOS_RUN="),
        bench.run_id
    );
    assert_eq!(bench.await_line("child", "variable HOME"), " unset");
    assert_eq!(bench.await_line("child", "descriptors "), "0 1 2");
}

#[tokio::test]
async fn children_start_with_no_signal_blocked_or_ignored() {
    let bench = Bench::start().await;
    // Not the fixture: the Rust runtime itself ignores SIGPIPE before `main`.
    let mut spec = bench.spec("child", &[]);
    spec.argv = ["/bin/cat", "/proc/self/status"].map(str::to_owned).into();
    bench.keeper.spawn(spec).await.expect("a process");
    for set in ["SigBlk:\t", "SigIgn:\t"] {
        let signals = u64::from_str_radix(&bench.await_line("child", set), 16).expect("a set");
        // Those above 31 are the C library's own and nobody's to change.
        assert_eq!(signals & 0x7fff_ffff, 0, "{set}{signals:x}");
    }
}

#[tokio::test]
async fn held_input_ends_when_told_and_not_before() {
    let mut bench = Bench::start().await;
    let mut spec = bench.spec("reader", &["--until-eof"]);
    spec.stdin = Stdin::Held;
    bench.keeper.spawn(spec).await.expect("a process");
    bench.await_line("reader", "listening ");
    bench
        .keeper
        .close_stdin(&"reader".into())
        .await
        .expect("closed");
    assert_eq!(
        bench.next_change().await.kind,
        ChangeKind::Exited(End::Code(0))
    );
}

#[tokio::test]
async fn niceness_is_the_asked_one() {
    let bench = Bench::start().await;
    let mut spec = bench.spec("nice", &[]);
    spec.nice = 5;
    let pid = bench.keeper.spawn(spec).await.expect("a process").pid;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("running");
    let (_, fields) = stat.rsplit_once(')').expect("a stat line");
    // Field 19 of proc_pid_stat(5); the 17th after the command.
    assert_eq!(fields.split_ascii_whitespace().nth(16), Some("5"));
}

/// What a spawn that fails says.
async fn refusal(change: impl FnOnce(&Bench, &mut SpawnSpec)) -> String {
    let bench = Bench::start().await;
    let mut spec = bench.spec("shop", &[]);
    change(&bench, &mut spec);
    let refused = bench.keeper.spawn(spec).await;
    assert!(bench.keeper.living().is_empty());
    let text = refused.expect_err("it cannot start").to_string();
    text.replace(&bench.folder.path().display().to_string(), "DIR")
}

#[tokio::test]
async fn spawn_that_fails_says_which_step_and_why() {
    insta::assert_snapshot!(
        refusal(|_, spec| spec.argv[0] = "./no-such-program".into()).await,
        @"`shop`: cannot execute `./no-such-program`: No such file or directory (os error 2)"
    );
    insta::assert_snapshot!(
        refusal(|bench, spec| spec.argv[0] = bench.folder.path().display().to_string()).await,
        @"`shop`: cannot execute `DIR`: Permission denied (os error 13)"
    );
    insta::assert_snapshot!(
        refusal(|bench, spec| spec.dir = bench.folder.path().join("gone")).await,
        @"`shop`: cannot use the folder `DIR/gone`: No such file or directory (os error 2)"
    );
    insta::assert_snapshot!(
        refusal(|bench, spec| spec.log = bench.folder.path().join("gone/shop.log")).await,
        @"`shop`: cannot write the log `DIR/gone/shop.log`: No such file or directory (os error 2)"
    );
    insta::assert_snapshot!(
        refusal(|_, spec| spec.argv.clear()).await,
        @"`shop`: cannot start `shop`: the command is empty"
    );
}

#[tokio::test]
async fn process_that_runs_is_not_started_twice() {
    let bench = Bench::start().await;
    bench.spawn_listening("shop", &[]).await;
    let again = bench.keeper.spawn(bench.spec("shop", &[])).await;
    let text = again.expect_err("it runs already").to_string();
    assert!(
        text.starts_with("`shop`: cannot start `shop`: it is already running as pid"),
        "{text}"
    );
}

#[tokio::test]
async fn keeper_outlives_the_signals_of_a_terminal() {
    let mut bench = Bench::start().await;
    let keeper = rustix::process::Pid::from_raw(bench.keeper.pid()).expect("a pid");
    use rustix::process::Signal as Raw;
    for signal in [Raw::INT, Raw::TERM, Raw::HUP, Raw::PIPE, Raw::QUIT] {
        rustix::process::kill_process(keeper, signal).expect("sent");
    }
    bench
        .keeper
        .spawn(bench.spec("late", &["--die-at-boot", "0"]))
        .await
        .expect("a process");
    assert_eq!(
        bench.next_change().await.kind,
        ChangeKind::Exited(End::Code(0))
    );
    assert_eq!(rustix::process::getsid(Some(keeper)), Ok(keeper));
}

/// Runs `chaos` to its end; exit code and standard error.
fn run_chaos(args: &[&str], temp_dir: &std::path::Path) -> (Option<i32>, String) {
    let mut command = assert_cmd::Command::new(chaos());
    command
        .args(args)
        .env_clear()
        .env("TMPDIR", temp_dir)
        .timeout(SOON);
    let output = command.output().expect("it runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[tokio::test]
async fn clean_kills_what_a_killed_run_left_and_nothing_else() {
    let temp = tempfile::tempdir().expect("a folder");
    let reports = temp.path().join("reports").display().to_string();
    // Unique on this machine: it is what strays are found by.
    let run_id = format!("killed-{}", std::process::id());
    let run_folder = temp.path().join("reports").join(&run_id);
    std::fs::create_dir_all(&run_folder).expect("a folder");
    std::fs::write(run_folder.join("run.lock"), "").expect("written");

    let bystanders = Bench::start().await;
    let bystander = bystanders.spawn_listening("bystander", &[]).await;
    let killed = Bench::start_as(&run_id, &[]).await;
    let pids = spawn_family(&killed).await;
    kill_dead(killed.keeper.pid());

    let (code, text) = run_chaos(&["clean", "--report-dir", &reports], temp.path());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("{run_id}` cleared: ")), "{text}");
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    assert!(is_alive(bystander));
    let (code, text) = run_chaos(&["clean", "--report-dir", &reports], temp.path());
    assert_eq!(
        (code, text.as_str()),
        (Some(0), ""),
        "there is nothing left to clear"
    );
    let left: Vec<_> = std::fs::read_dir(temp.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "only the reports are left: {left:?}");
}

#[test]
fn keeper_started_by_hand_says_that_it_should_not_be() {
    let temp = tempfile::tempdir().expect("a folder");
    let (code, text) = run_chaos(&["keeper", "--run-id", "x"], temp.path());
    assert_eq!(code, Some(2));
    assert!(
        text.starts_with("error: `chaos keeper` is started by `chaos run`"),
        "{text}"
    );
}
