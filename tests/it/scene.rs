//! A whole run of the real binary on a small system of fixture services, in a folder of its own,
//! and the search for what it left behind.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{chaos, eventually, fixture, is_alive, until_some};

/// The system that most scenes play in.
pub(crate) const PAIR: &str = include_str!("systems/pair.yaml");

/// Far longer than any of the runs takes on a loaded machine.
const RUN_WITHIN: Duration = Duration::from_secs(90);

/// A scenario and its system in a folder of their own.
pub(crate) struct Scene {
    folder: Arc<TempDir>,
    environment: Vec<(String, String)>,
}

/// A run under way. Killed when a test that failed drops it.
pub(crate) struct Running {
    child: Child,
    folder: Arc<TempDir>,
    ended: bool,
}

/// A run that ended.
pub(crate) struct Done {
    /// Exit code, or `128 + signal`.
    pub(crate) code: i32,
    /// What it wrote to standard error.
    pub(crate) text: String,
    /// Its run folder; none when it made none.
    pub(crate) run: Option<PathBuf>,
    _folder: Arc<TempDir>,
}

impl Scene {
    pub(crate) fn new(system: &str, scenario: &str) -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("system.yaml"), system).expect("written");
        let scenario = match scenario.contains("system:") {
            true => scenario.to_owned(),
            false => format!("name: scene\nsystem: system.yaml\n{scenario}"),
        };
        fs::write(folder.path().join("scenario.yaml"), scenario).expect("written");
        Scene {
            folder: Arc::new(folder),
            environment: Vec::new(),
        }
    }

    /// Sets a variable of `allow-env`.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Scene {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn reports(&self) -> PathBuf {
        self.path("reports")
    }

    /// Runs it to its end; nothing may be left, however it ended.
    pub(crate) fn run(&self) -> Done {
        let done = self.start().end();
        if let Some(run) = &done.run {
            assert_nothing_left(run);
        }
        done
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Running {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, arguments: &[&str]) -> Running {
        let scenario = self.path("scenario.yaml").display().to_string();
        let mut all = vec!["run", &scenario];
        all.extend(arguments);
        self.chaos(&all)
    }

    /// `chaos report` of a run.
    pub(crate) fn report(&self, run: &Path) -> Done {
        self.chaos(&["report", &run.display().to_string()]).end()
    }

    #[expect(clippy::disallowed_methods, reason = "the binary under test")]
    pub(crate) fn chaos(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new(chaos());
        command.args(arguments);
        if !arguments.contains(&"--report-dir") {
            command.arg("--report-dir").arg(self.reports());
        }
        let log = File::create(self.path("stderr.txt")).expect("a file");
        let child = command
            .envs(self.environment.iter().cloned())
            .env("FIXTURE", fixture())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("started");
        Running {
            child,
            folder: Arc::clone(&self.folder),
            ended: false,
        }
    }
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // A run that has just ended by itself needs none.
        send(self.pid(), signal);
    }

    /// The run folder, once there is one.
    pub(crate) fn run_folder(&self) -> Option<PathBuf> {
        newest_run(&self.folder.path().join("reports"))
    }

    /// Waits for an event of a kind and, unless empty, with this text in its line.
    pub(crate) fn await_event(&self, kind: &str, text: &str) {
        eventually(&format!("event {kind} {text}"), RUN_WITHIN, || {
            self.run_folder().is_some_and(|run| {
                let lines = fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
                let wanted = format!("\"kind\":\"{kind}\"");
                lines
                    .lines()
                    .any(|line| line.contains(&wanted) && line.contains(text))
            })
        });
    }

    /// The pid of one of the run's own processes: `proxy`, `worker`, `keeper`.
    pub(crate) fn own(&self, role: &str) -> i32 {
        until_some(role, RUN_WITHIN, || {
            let run = self.run_folder()?;
            let found = processes_of(&run)
                .into_iter()
                .chain(children_of(self.pid()));
            found
                .into_iter()
                .find(|pid| argument(*pid, 1).as_deref() == Some(role))
        })
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Done {
        let status = until_some("end of the run", RUN_WITHIN, || {
            self.child.try_wait().expect("our child")
        });
        self.ended = true;
        Done {
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            text: fs::read_to_string(self.folder.path().join("stderr.txt")).unwrap_or_default(),
            run: self.run_folder(),
            _folder: Arc::clone(&self.folder),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // The keeper takes everything else down.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Done {
    /// The run folder of a run that must have made one.
    #[track_caller]
    pub(crate) fn folder(&self) -> &Path {
        self.run
            .as_deref()
            .unwrap_or_else(|| panic!("no run folder:\n{}", self.text))
    }

    /// Asserts the exit code and that each text is said.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32, texts: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{}", self.text);
        for text in texts {
            assert!(
                self.text.contains(text),
                "`{text}` is not said:\n{}",
                self.text
            );
        }
        self
    }

    /// All events of a kind.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        let events = events(self.folder()).into_iter();
        events.filter(|event| event["kind"] == kind).collect()
    }

    /// The verdict on a property.
    #[track_caller]
    pub(crate) fn verdict(&self, property: &str) -> Value {
        let outcome = fs::read(self.folder().join("outcome.json")).expect("an outcome");
        let outcome: Value = serde_json::from_slice(&outcome).expect("JSON");
        let verdicts = outcome["verdicts"].as_array().expect("verdicts");
        let found = verdicts.iter().find(|it| it["property"] == property);
        found
            .unwrap_or_else(|| panic!("no verdict on {property}: {outcome}"))
            .clone()
    }

    /// The log of a process.
    pub(crate) fn log(&self, process: &str) -> String {
        fs::read_to_string(self.folder().join(format!("logs/{process}.log"))).unwrap_or_default()
    }
}

/// The newest run below a report folder.
fn newest_run(reports: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(reports).ok()?.flatten();
    let runs = entries
        .map(|entry| entry.path())
        .filter(|path| !path.is_symlink());
    runs.filter(|path| path.join("logs").is_dir())
        .max_by_key(|path| path.metadata().and_then(|found| found.created()).ok())
}

/// Asserts that no process, no listening port and no data of a run is left.
#[track_caller]
pub(crate) fn assert_nothing_left(run: &Path) {
    let strays = processes_of(run);
    assert!(strays.is_empty(), "left of {}: {strays:?}", run.display());
    assert!(
        !run.join("data").exists(),
        "data of {} is left",
        run.display()
    );
    for port in ports_of(run) {
        let bound = std::net::TcpListener::bind(("127.0.0.1", port));
        assert!(bound.is_ok(), "port {port} is still taken");
    }
}

/// The events of a run; the last line of a killed run may be half there.
fn events(run: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
    let lines = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line["event"].clone()).collect()
}

/// The ports of a run's links, both sides.
fn ports_of(run: &Path) -> Vec<u16> {
    let port = |address: &Value| address.as_str()?.rsplit_once(':')?.1.parse().ok();
    let events = events(run).into_iter();
    events
        .flat_map(|event| [port(&event["listen"]), port(&event["upstream"])])
        .flatten()
        .collect()
}

/// Processes that carry the run in their environment, found as the sweep finds them.
pub(crate) fn processes_of(run: &Path) -> Vec<i32> {
    let id = run
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let wanted = format!("CHAOS_RUN={id}");
    let carries = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
    };
    pids()
        .into_iter()
        .filter(carries)
        .filter(|pid| is_alive(*pid))
        .collect()
}

fn children_of(parent: i32) -> Vec<i32> {
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_ascii_whitespace().nth(1) == Some(parent.to_string().as_str())
    };
    pids().into_iter().filter(is_child).collect()
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn argument(pid: i32, index: usize) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let argument = line.split(|byte| *byte == 0).nth(index)?;
    Some(String::from_utf8_lossy(argument).into_owned())
}

/// Signals a process that may have ended meanwhile.
pub(crate) fn send(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a pid");
    let _ = rustix::process::kill_process(pid, signal);
}
