//! What a command leaves for machines: one document for all its runs, in a file or a pipe, and an
//! exit code that hides nothing.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::Signal;
use serde_json::Value;

use crate::scene::{PAIR, Scene, assert_nothing_left};

/// A second and a half of load, nothing broken; `expect` is what must hold.
fn calm(name: &str, system: &str, expect: &str) -> String {
    format!(
        "name: {name}\nsystem: {system}\n\
         load: {{ journeys: {{ call: 1 }}, arrivals: 100/s, timeout: 1s }}\n\
         phases: {{ warm-up: 200ms, baseline: 1500ms }}\n\
         expect:\n  {expect}\n"
    )
}

const HOLDS: &str = "answered: { errors: { operation: call, in: whole, at-most: 20% } }";

/// A scene whose `several` folder holds scenarios, run in the order of their names.
fn several(scenarios: &[(&str, String)]) -> (Scene, String) {
    let scene = Scene::new(PAIR, "");
    let folder = scene.path("several");
    fs::create_dir(&folder).expect("a folder");
    for (name, text) in scenarios {
        fs::write(folder.join(format!("{name}.yaml")), text).expect("written");
    }
    (scene, folder.display().to_string())
}

/// A pipe with a name, and its reading end.
fn pipe(path: &Path) -> File {
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).expect("a pipe");
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag");
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(flags).open(path);
    opened.expect("its reading end")
}

#[test]
fn several_runs_become_one_document_each_and_exit_with_the_worst() {
    let missing = PAIR.replacen("[$(env:FIXTURE)", "[/nonexistent/service", 1);
    let (scene, folder) = several(&[
        ("1-cannot", calm("cannot", "../missing.yml", HOLDS)),
        ("2-violated", calm("violated", "../failing.yml", HOLDS)),
        ("3-holds", calm("holds", "../system.yaml", HOLDS)),
    ]);
    fs::write(scene.path("missing.yml"), missing).expect("written");
    let failing = PAIR.replacen("$(env:CALLEE_FLAG)", "--status=500", 1);
    fs::write(scene.path("failing.yml"), failing).expect("written");
    let (json, xml) = (scene.path("out.json"), scene.path("junit.xml"));
    let mut reader = pipe(&json);
    let done = scene
        .chaos(&[
            "run",
            &folder,
            "--json",
            &json.display().to_string(),
            "--junit",
            &xml.display().to_string(),
        ])
        .end();
    done.ends(1, &["/nonexistent/service", "FAIL          answered"]);

    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read");
    let outcomes: Value = serde_json::from_str(&text).expect("one document");
    let told: Vec<_> = outcomes
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| (it["scenario"].as_str(), it["exit"].as_str()))
        .collect();
    let expected = [
        (Some("cannot"), Some("not-carried-out")),
        (Some("violated"), Some("violated")),
        (Some("holds"), Some("held")),
    ];
    assert_eq!(told, expected, "{}", done.text);
    let kind = fs::symlink_metadata(&json).expect("still there");
    assert!(kind.file_type().is_fifo(), "the pipe was replaced");

    let xml = fs::read_to_string(&xml).expect("written");
    let suites: Vec<&str> = xml.split("<testsuite ").skip(1).collect();
    assert_eq!(suites.len(), 3, "{xml}");
    for (suite, (name, mark)) in suites.iter().zip([
        ("cannot", "<error"),
        ("violated", "<failure"),
        ("holds", "<testcase"),
    ]) {
        assert!(
            suite.contains(&format!("name=\"{name}\"")) && suite.contains(mark),
            "{suite}"
        );
    }
    assert!(!suites[2].contains("<error") && !suites[2].contains("<failure"));
}

#[test]
fn interrupted_series_tells_of_every_scenario_also_of_those_that_were_not_run() {
    let long = calm("long", "../system.yaml", HOLDS).replace("1500ms", "60s");
    let (scene, folder) = several(&[
        ("1-long", long),
        ("2-holds", calm("holds", "../system.yaml", HOLDS)),
    ]);
    let (json, xml) = (scene.path("out.json"), scene.path("junit.xml"));
    let running = scene.chaos(&[
        "run",
        &folder,
        "--json",
        &json.display().to_string(),
        "--junit",
        &xml.display().to_string(),
    ]);
    running.await_event("phase-started", "\"baseline\"");
    running.signal(Signal::INT);
    let done = running.end();
    done.ends(130, &["stopping"]);
    assert_nothing_left(done.folder());

    let outcomes: Value =
        serde_json::from_slice(&fs::read(&json).expect("written")).expect("one document");
    let endings: Vec<_> = outcomes
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| (it["exit"].as_str(), it["run-id"] == "unknown"))
        .collect();
    let interrupted = Some("interrupted");
    assert_eq!(endings, [(interrupted, false), (interrupted, true)]);
    let xml = fs::read_to_string(&xml).expect("written");
    assert_eq!(xml.matches("<testsuite ").count(), 2, "{xml}");
    assert!(xml.contains("told to stop before"), "{xml}");
}

#[test]
fn place_that_cannot_hold_the_results_is_refused_before_anything_starts() {
    let scene = Scene::new(PAIR, &calm("calm", "system.yaml", HOLDS));
    let nowhere = scene.path("nowhere/out.json").display().to_string();
    let folder = scene.path("").display().to_string();
    for (flag, path) in [("--json", &nowhere), ("--junit", &folder)] {
        let done = scene.start_with(&[flag, path]).end();
        done.ends(2, &[flag, path]);
        assert!(!scene.reports().exists());
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the binary under test")]
fn result_is_written_through_a_link_and_never_over_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = |name: &str, to: &Path| -> PathBuf {
        let path = folder.path().join(name);
        std::os::unix::fs::symlink(to, &path).expect("a link");
        path
    };
    let file = folder.path().join("file.json");
    fs::write(&file, "before").expect("written");
    for path in [
        link("to-stdout", Path::new("/dev/stdout")),
        link("to-file", &file),
    ] {
        let output = Command::new(crate::support::chaos())
            .args(["plan", "scenarios/calm.yaml", "--json"])
            .arg(&path)
            .output()
            .expect("started");
        assert_eq!(output.status.code(), Some(0));
        let text = match path.ends_with("to-stdout") {
            true => output.stdout,
            false => fs::read(&file).expect("written"),
        };
        let plan: Value = serde_json::from_slice(&text).expect("a whole document");
        assert_eq!(plan["name"], "calm");
        assert!(path.is_symlink(), "{} was replaced", path.display());
    }
    // Nothing half-written is left beside them.
    let entries = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(entries, 3);
}

#[test]
fn what_a_run_leaves_behind_is_told_and_keeps_it_from_exiting_0() {
    // The last service puts a file where the run's data was, which teardown cannot remove.
    let spoiler = "
  spoiler:
    command: [sh, -c, 'd=${1%/*}; mv \"$d\" \"$d.gone\"; : > \"$d\"', sh, $(data)]
    once: true
    needs: [caller, callee, spare]

links:";
    let system = PAIR.replacen("\nlinks:", spoiler, 1);
    let scene = Scene::new(&system, &calm("calm", "system.yaml", HOLDS));
    let xml = scene.path("junit.xml");
    let done = scene
        .start_with(&["--junit", &xml.display().to_string()])
        .end();
    done.ends(4, &["PASS          answered", "/data`", "exit 4"]);
    let outcome = fs::read(done.folder().join("outcome.json")).expect("written");
    let outcome: Value = serde_json::from_slice(&outcome).expect("JSON");
    assert_eq!(outcome["exit"], "not-carried-out");
    let xml = fs::read_to_string(&xml).expect("written");
    assert!(xml.contains("the run left nothing behind"), "{xml}");
    scene.report(done.folder()).ends(4, &["exit 4"]);
}

#[test]
fn edited_limits_are_judged_wherever_their_files_lie_but_never_on_another_system() {
    let scene =
        Scene::new(PAIR, &calm("calm", "system.yaml", HOLDS)).with("CALLEE_FLAG", "--delay-ms=2");
    let done = scene.run();
    done.ends(0, &[]);

    let elsewhere = scene.path("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    let edited = |name: &str, system: &str, expect: &str| {
        let path = elsewhere.join(name);
        fs::write(&path, calm("calm", system, expect)).expect("written");
        path.display().to_string()
    };
    let run = done.folder().display().to_string();
    let judge = |with: &str| {
        // The variables of the run count, not those of today.
        let later = Scene::new(PAIR, "");
        later.chaos(&["report", &run, "--with", with]).end()
    };
    let wider = HOLDS.replace("20%", "30%");
    let wider = edited("wider.yaml", ".././system.yaml", &wider);
    judge(&wider).ends(0, &["changed   answered"]);

    fs::write(elsewhere.join("copy.yml"), PAIR).expect("written");
    let copied = edited("copied.yaml", "copy.yml", HOLDS);
    judge(&copied).ends(0, &["PASS"]);

    let other = PAIR.replace("open-for: 500ms", "open-for: 600ms");
    fs::write(elsewhere.join("other.yml"), other).expect("written");
    let other = edited("other.yaml", "other.yml", HOLDS);
    judge(&other).ends(2, &["differs from what was run in its system"]);
    let load = elsewhere.join("load.yaml");
    let text = calm("calm", "../system.yaml", HOLDS).replace("100/s", "90/s");
    fs::write(&load, text).expect("written");
    judge(&load.display().to_string()).ends(2, &["differs from what was run in its load"]);
}

/// A small disk at a path, as long as it lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None when this process may not mount one.
    #[expect(
        clippy::disallowed_methods,
        reason = "there is no other way to a full disk"
    )]
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn at(path: &Path) -> Option<SmallDisk> {
        fs::create_dir(path).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
        let mounted = mount.arg(path).output().is_ok_and(|it| it.status.success());
        if !mounted {
            eprintln!("skipped: may not mount a file system (root may)");
        }
        mounted.then(|| SmallDisk(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    #[expect(clippy::disallowed_methods, reason = "the way back")]
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn full_disk_ends_the_run_says_so_and_leaves_nothing_running() {
    // So long that only a run that ends by itself can end in time.
    let long = calm("long", "system.yaml", HOLDS).replace("1500ms", "600s");
    let scene = Scene::new(PAIR, &long);
    let Some(_disk) = SmallDisk::at(&scene.reports()) else {
        return;
    };
    let running = scene.start();
    running.await_event("phase-started", "\"baseline\"");
    let filler = scene.reports().join("filler");
    fs::write(&filler, vec![0; 1 << 20]).expect_err("no room for it all");
    let done = running.end();
    done.ends(
        4,
        &[
            "no space left on the disk",
            "help: make room",
            "chaos report",
        ],
    );
    assert_nothing_left(done.folder());

    // What was written up to then is evidence, and proves nothing.
    fs::remove_file(&filler).expect("removed");
    scene
        .report(done.folder())
        .ends(4, &["INCONCLUSIVE  answered"]);
}
