//! `chaos run` from end to end on fixture services: what a run leaves in its folder, how each way
//! to boot works, what faults do, and what is said when a run cannot be carried out.

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::Value;

use crate::scene::{Done, PAIR, Scene, assert_nothing_left, send};

/// Three seconds of load, nothing broken.
const CALM: &str = "
load: { journeys: { call: 1 }, arrivals: 50/s, timeout: 1s }
phases: { warm-up: 500ms, baseline: 2500ms, drain: { within: 3s, quiet: 500ms } }
expect:
  answered: { errors: { operation: call, in: whole, at-most: 5% } }
  adds-up: { conserved: { left: given, right: taken, never-below: 0 } }
";

/// Long enough for whatever is going to end it.
const LONG: &str = "
load: { journeys: { call: 1 }, arrivals: 50/s, timeout: 1s }
phases: { warm-up: 500ms, baseline: 60s }
expect:
  answered: { errors: { operation: call, in: whole, at-most: 50% } }
";

#[test]
fn healthy_system_passes_and_its_run_is_judged_and_rendered_again_to_the_same_bytes() {
    let scene = Scene::new(PAIR, CALM);
    let done = scene.start_with(&["--set", "load.timeout=900ms"]).end();
    done.ends(
        0,
        &[
            "PASS          answered",
            "PASS          adds-up",
            "PASS          stays-up",
        ],
    );
    for name in [
        "plan.json",
        "scenario.yaml",
        "system.yaml",
        "events.jsonl",
        "load.hlog",
        "outcome.json",
        "report.html",
        "records/operation.jsonl",
        "records/call.jsonl",
        "records/entry.jsonl",
        "logs/caller.log",
    ] {
        let file = done.folder().join(name).metadata();
        assert!(file.is_ok_and(|found| found.len() > 0), "{name}");
    }
    assert_eq!(
        fs::canonicalize(scene.reports().join("latest")).expect("a link"),
        done.folder()
    );

    let read = |name: &str| fs::read(done.folder().join(name)).expect("written");
    let page = String::from_utf8(read("report.html")).expect("text");
    assert!(
        page.contains(" --set load.timeout=900ms"),
        "how to repeat it"
    );
    let before = (read("outcome.json"), read("report.html"));
    scene.report(done.folder()).ends(0, &["PASS  3 passed"]);
    assert_eq!(before.0, read("outcome.json"), "outcome.json differs");
    assert!(before.1 == read("report.html"), "report.html differs");
}

#[test]
fn every_kind_of_readiness_need_and_file_works() {
    let scenario = "
load: { journeys: { ask: 1 }, arrivals: 20/s }
phases: { warm-up: 200ms, baseline: 1s }
expect: { up: stays-up }
";
    let scene = Scene::new(include_str!("systems/boot.yaml"), scenario);
    fs::create_dir(scene.path("inner")).expect("a folder");
    fs::write(scene.path("inner/here.txt"), "in its own folder\n").expect("written");
    let config = r#"{ "log": { "url": "", "port": 1 }, "kept": true }"#;
    fs::write(scene.path("config.json"), config).expect("written");
    fs::write(scene.path("app.ini"), "log=$(link:by-log)\n").expect("written");
    let done = scene.run();
    done.ends(0, &[]);

    let ready: Vec<Value> = done.events("service-ready");
    let order: Vec<_> = ready
        .iter()
        .filter_map(|event| event["service"].as_str())
        .collect();
    assert_eq!(order, ["job", "by-log", "by-command", "by-tcp"]);
    assert_eq!(done.log("by-command.prepare-1").trim(), "first");
    assert_eq!(done.log("by-command.prepare-2").trim(), "second");
    assert!(done.log("by-command.ready").contains("asked"));

    let links = done.events("link-created");
    let link = links
        .iter()
        .find(|it| it["link"] == "by-tcp -> by-log")
        .expect("a link");
    let address = link["listen"].as_str().expect("an address");
    let (_, port) = address.rsplit_once(':').expect("a port");
    let log = done.log("by-tcp");
    for shown in [
        "shown in its own folder".to_owned(),
        format!("shown log={address}"),
        format!("\"url\": \"http://{address}\""),
        format!("\"port\": {port}"),
        "\"kept\": true".to_owned(),
    ] {
        assert!(log.contains(&shown), "`{shown}` in {log}");
    }
}

#[test]
fn every_fault_on_a_link_is_applied_confirmed_bites_and_is_lifted() {
    let injected = [
        "{ latency: 100ms }",
        "blackhole",
        "{ down: { how: refuse } }",
        "{ down: { how: reset } }",
        "{ limit-data: 40B }",
    ];
    let done = Scene::new(PAIR, &chain(&injected, "link: caller -> callee,")).run();
    done.ends(0, &[]);
    for (index, fault) in lifted_faults(&done, injected.len()).iter().enumerate() {
        let bite = &fault["bites"][0];
        let bit = |what: &str| bite[what].as_u64().unwrap_or(0);
        // A refused connection never reaches the proxy, so there is nothing to count.
        let proven = injected[index].contains("refuse")
            || bit("requests").max(bit("connections")).max(bit("closed")) > 0;
        assert!(proven, "{} did not bite: {bite}", injected[index]);
    }
}

#[test]
fn declared_probe_is_asked_after_the_fault_and_its_answer_is_kept() {
    let probe = "to: callee.http\n    probe: { get: /health/ready }\n";
    let scenario = "
load: { journeys: { call: 1 }, arrivals: 50/s, timeout: 1s }
phases: { warm-up: 500ms, baseline: 1s, recovery: 1s }
faults: { slow: { at: 0s, for: 1s, link: caller -> callee, inject: { latency: 100ms } } }
expect: { judged: { errors: { operation: call, during: slow, at-most: 10% } } }
";
    let done = Scene::new(&PAIR.replace("to: callee.http\n", probe), scenario).run();
    done.ends(0, &["PASS          judged"]);
    let events = fs::read_to_string(done.folder().join("events.jsonl")).expect("events");
    let probed = events.lines().find(|line| line.contains("\"link-probed\""));
    let probed: Value = serde_json::from_str(probed.expect("it was asked")).expect("an event");
    assert_eq!(probed["event"]["link"], "caller -> callee", "{probed}");
    assert_eq!(probed["event"]["detail"], "status 200", "{probed}");
    assert!(probed["event"]["took-ms"].is_u64(), "{probed}");
    let calls = fs::read_to_string(done.folder().join("records/call.jsonl")).expect("calls");
    assert!(!calls.contains("/health/ready"), "it is nobody's traffic");
    let rows: u64 = (done.events("source-read").iter())
        .filter(|it| it["source"] == "request-log")
        .map(|it| it["rows"].as_u64().expect("a number"))
        .sum();
    assert_eq!(rows, calls.lines().count() as u64, "nor lost");
}

#[test]
fn every_fault_on_a_service_is_applied_confirmed_and_lifted() {
    let injected = ["kill", "stop", "pause", "restart"];
    let done = Scene::new(PAIR, &chain(&injected, "service: callee,")).run();
    // Whoever ends because of a fault stays up in the sense of the property.
    done.ends(0, &["PASS          stays-up"]);
    lifted_faults(&done, injected.len());
    let exits = done.events("service-exited");
    let of_callee: Vec<_> = exits
        .iter()
        .filter(|exit| exit["service"] == "callee")
        .collect();
    let signals: Vec<_> = of_callee
        .iter()
        .map(|exit| exit["signal"].as_i64())
        .collect();
    // Killed, stopped, restarted; and the teardown.
    assert_eq!(signals, [Some(9), Some(15), Some(15), Some(15)]);
    assert!(of_callee.iter().all(|exit| exit["by-us"] == true));
}

#[test]
fn fault_that_follows_another_on_a_service_at_once_begins_when_that_one_is_over() {
    let injected = ["pause", "pause", "kill", "pause", "kill", "kill"];
    let scenario = chain(&injected, "service: callee,").replace(", delay: 300ms", "");
    let done = Scene::new(PAIR, &scenario).run();
    let (applied, lifted) = (done.events("fault-applied"), done.events("fault-lifted"));
    for (before, after) in lifted.iter().zip(&applied[1..]) {
        let (ended, asked) = (before["confirmed-ns"].as_u64(), after["asked-ns"].as_u64());
        assert!(asked > ended, "{before} {after}");
    }
    lifted_faults(&done, injected.len());
}

/// A scenario of one fault after the other, half a second each.
fn chain(injected: &[&str], target: &str) -> String {
    let mut faults = String::new();
    for (index, inject) in injected.iter().enumerate() {
        let start = match index {
            0 => "at: 0s".to_owned(),
            _ => format!("after: f{}, delay: 300ms", index - 1),
        };
        let (lasts, inject) = match *inject {
            "kill" => ("", "{ kill: { down-for: 500ms } }"),
            "restart" => ("", "{ restart: { down-for: 300ms } }"),
            other => ("for: 500ms,", other),
        };
        faults += &format!("  f{index}: {{ {start}, {lasts} {target} inject: {inject} }}\n");
    }
    format!(
        "load: {{ journeys: {{ call: 1 }}, arrivals: 50/s, timeout: 1s }}\n\
         phases: {{ warm-up: 300ms, baseline: 500ms, recovery: 1s }}\n\
         faults:\n{faults}\
         expect: {{ stays-up: stays-up }}\n"
    )
}

/// The ends of all faults in order, each after its start; none failed.
fn lifted_faults(done: &Done, count: usize) -> Vec<Value> {
    assert!(
        done.events("fault-failed").is_empty(),
        "{:?}",
        done.events("fault-failed")
    );
    let (applied, lifted) = (done.events("fault-applied"), done.events("fault-lifted"));
    assert_eq!(
        (applied.len(), lifted.len()),
        (count, count),
        "{}",
        done.text
    );
    for (on, off) in applied.iter().zip(&lifted) {
        assert_eq!(on["fault"], off["fault"]);
        assert!(
            on["confirmed-ns"].as_u64() >= on["asked-ns"].as_u64(),
            "{on}"
        );
        assert!(
            off["asked-ns"].as_u64() > on["confirmed-ns"].as_u64(),
            "{on} {off}"
        );
    }
    lifted
}

#[test]
fn service_that_ends_by_itself_during_the_run_fails_stays_up_by_name() {
    let scene = Scene::new(PAIR, CALM).with("CALLEE_FLAG", "--die-after=60");
    let done = scene.run();
    done.ends(1, &["FAIL          stays-up", "callee", "70"]);
    assert_eq!(done.verdict("stays-up")["blames"][0], "callee");
}

#[test]
fn service_that_is_never_ready_is_named_with_its_log() {
    let system = PAIR.replace(
        "$(env:CALLEE_FLAG)]",
        "--never-ready, --log, waiting for a database]",
    );
    let system = system.replace(
        "ready: { http: /health/ready }",
        "ready: { http: /health/ready, within: 1s }",
    );
    Scene::new(&system, CALM).run().ends(
        4,
        &[
            "`callee`",
            "was not ready within 1s",
            "log: waiting for a database",
            "help:",
        ],
    );
}

#[test]
fn service_that_dies_in_its_boot_is_named_with_its_log() {
    let system = PAIR.replace(
        "$(env:CALLEE_FLAG)]",
        "--log, no such table, --die-at-boot, '3']",
    );
    Scene::new(&system, CALM)
        .run()
        .ends(4, &["`callee`", "code 3", "log: no such table"]);
}

#[test]
fn missing_executable_is_named() {
    let system = PAIR.replace(
        "[$(env:FIXTURE), --port, $(port:http), $(env:CALLEE_FLAG)]",
        "[/nonexistent/service]",
    );
    Scene::new(&system, CALM)
        .run()
        .ends(4, &["`callee`", "/nonexistent/service"]);
}

#[test]
fn pinned_port_that_is_taken_is_named_with_its_holder() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = holder.local_addr().expect("an address").port();
    let system = PAIR.replacen("ports: [http]", &format!("ports: {{ http: {port} }}"), 1);
    let done = Scene::new(&system, CALM).start().end();
    let (port, me) = (
        format!("port {port} is taken"),
        format!("pid {}", std::process::id()),
    );
    done.ends(4, &[&port, &me]);
}

#[test]
fn link_may_be_pinned_on_all_addresses() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let pinned = format!("to: callee.http\n    listen: 0.0.0.0:{port}\n");
    let scenario = "
load: { journeys: { call: 1 }, arrivals: 20/s, timeout: 1s }
phases: { warm-up: 200ms, baseline: 1s }
expect: { up: stays-up }
";
    let done = Scene::new(&PAIR.replace("to: callee.http\n", &pinned), scenario).run();
    done.ends(0, &[]);
    let calls = fs::read_to_string(done.folder().join("records/call.jsonl")).expect("calls");
    assert!(calls.contains("caller -> callee"), "it carried none");
}

#[test]
fn report_folder_that_cannot_be_written_is_named() {
    let scene = Scene::new(PAIR, CALM);
    let file = scene.path("file");
    fs::write(&file, "").expect("written");
    let reports = file.join("reports").display().to_string();
    let done = scene.start_with(&["--report-dir", &reports]).end();
    done.ends(4, &[&reports]);
}

#[test]
fn loss_of_one_of_the_runs_own_processes_ends_it_at_once_and_says_which() {
    for role in ["proxy", "worker", "keeper"] {
        let scene = Scene::new(PAIR, LONG);
        let running = scene.start();
        running.await_event("phase-started", "\"baseline\"");
        send(running.own(role), Signal::KILL);
        let done = running.end();
        done.ends(4, &[role, "ended"]);
        assert_nothing_left(done.folder());
        // What was measured up to then is kept, and proves nothing.
        assert_eq!(done.verdict("answered")["status"], "inconclusive");
    }
}
