//! However a run is ended, nothing of it is left, its evidence is kept, and the next one starts
//! clean. A handful of moments; `scripts/kill-test` tries many more.

use std::fs;

use rustix::process::Signal;

use crate::scene::{PAIR, Running, Scene, assert_nothing_left, processes_of, send};
use crate::support::{SOON, eventually};

const STOP: &str = include_str!("systems/stop.yaml");

fn scene() -> Scene {
    Scene::new(PAIR, STOP)
}

/// Waits for the end of a run that was told to stop and looks for what it left.
#[track_caller]
fn ends_clean(scene: &Scene, running: Running, code: i32) {
    let done = running.end();
    done.ends(code, &["stopping"]);
    assert_nothing_left(done.folder());
    let again = scene.report(done.folder());
    again.ends(code, &["INCONCLUSIVE  answered"]);
    assert_eq!(again.verdict("answered")["status"], "inconclusive");
}

#[test]
fn interrupt_in_any_phase_leaves_nothing_and_exits_130() {
    for phase in ["boot", "baseline", "drain"] {
        let scene = scene();
        let running = scene.start();
        running.await_event("phase-started", &format!("\"{phase}\""));
        running.signal(Signal::INT);
        ends_clean(&scene, running, 130);
    }
}

#[test]
fn termination_while_a_fault_is_on_leaves_nothing_and_exits_143() {
    let scene = scene();
    let running = scene.start();
    running.await_event("fault-applied", "frozen");
    running.signal(Signal::TERM);
    ends_clean(&scene, running, 143);
}

#[test]
fn filter_that_never_ends_does_not_keep_a_run_from_being_stopped() {
    let endless = "evidence:
  endless: { records: version, every: 200ms, http: { get: callee.http/ledger }, rows: last(repeat(.)) }";
    for (before, after) in [
        ("select: .status - 200", "select: last(repeat(.))"),
        ("evidence:", endless),
    ] {
        assert!(PAIR.contains(before), "{before}");
        let scene = Scene::new(&PAIR.replace(before, after), STOP);
        let running = scene.start();
        running.await_event("fault-applied", "silent");
        running.signal(Signal::INT);
        ends_clean(&scene, running, 130);
    }
}

#[test]
fn second_interrupt_kills_those_who_take_their_time() {
    let scene = scene().with("CALLEE_FLAG", "--ignore-term");
    let running = scene.start();
    running.await_event("fault-applied", "silent");
    running.signal(Signal::INT);
    running.await_event("stopping", "");
    running.signal(Signal::INT);
    ends_clean(&scene, running, 130);
}

#[test]
fn killed_coordinator_leaves_nothing_but_evidence_and_the_next_start_is_clean() {
    let scene = scene();
    let running = scene.start();
    running.await_event("fault-applied", "silent");
    running.signal(Signal::KILL);
    let done = running.end();
    assert_eq!(done.code, 128 + 9);
    // The keeper needs a moment to find out; then it cleans up after the run.
    let run = done.folder();
    eventually("end of what was left", SOON, || {
        processes_of(run).is_empty() && !run.join("data").exists() && !run.join("run.lock").exists()
    });
    assert_nothing_left(run);
    let again = scene.report(run);
    assert_eq!(
        again.verdict("answered")["status"],
        "inconclusive",
        "{}",
        again.text
    );
}

#[test]
fn coordinator_and_keeper_killed_at_once_are_cleared_by_clean() {
    let scene = scene();
    let running = scene.start();
    running.await_event("fault-applied", "silent");
    let keeper = running.own("keeper");
    send(keeper, Signal::STOP);
    running.signal(Signal::KILL);
    send(keeper, Signal::KILL);
    let done = running.end();
    scene.chaos(&["clean"]).end().ends(0, &["cleared"]);
    assert_nothing_left(done.folder());
    assert!(!done.folder().join("run.lock").exists());
}

#[test]
fn run_that_cannot_be_cleared_keeps_nothing_else_from_being_cleared() {
    let scene = scene();
    let temp = scene.path("temp");
    let (stuck, other) = (scene.reports().join("a"), scene.reports().join("b"));
    for folder in [&stuck, &other.join("data"), &temp] {
        fs::create_dir_all(folder).expect("a folder");
    }
    for run in [&stuck, &other] {
        fs::write(run.join("run.lock"), "").expect("written");
    }
    // No folder, so it cannot be removed as one.
    fs::write(stuck.join("data"), "").expect("written");
    let ports = temp.join(format!(
        "chaos-ports-{}",
        rustix::process::getuid().as_raw()
    ));
    fs::create_dir(&ports).expect("a folder");
    fs::write(ports.join("29999.lock"), "").expect("written");

    let scene = scene.with("TMPDIR", &temp.display().to_string());
    let done = scene.chaos(&["clean"]).end();
    done.ends(4, &["cannot clear", "/a`", "/b` cleared"]);
    assert!(
        stuck.join("run.lock").exists(),
        "the next start must find it"
    );
    assert!(!other.join("run.lock").exists() && !other.join("data").exists());
    assert!(!ports.exists(), "ports of killed runs are let go of too");
}
