//! Starting one child, with an error that says which step failed and on what.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::process::Pid;

use super::RUN_VARIABLE;
use super::protocol::{SpawnSpec, Stdin};
use super::system::prepare_child;

/// How this binary is named in an argv; it stays the same program when the file is replaced.
const SELF_EXE: &str = "/proc/self/exe";

/// Room asked for in a log before its process starts, so that a full disk is an error here and
/// not a service that dies of a failed write.
const LOG_ROOM_BYTES: u64 = 64 * 1024;

/// A step on the way to a running child, and why it failed.
pub(super) struct SpawnFailure {
    pub(super) what: String,
    pub(super) error: io::Error,
}

/// What the keeper holds of a child that it started.
pub(super) struct Started {
    pub(super) pid: Pid,
    /// The write end of a held standard input.
    pub(super) stdin: Option<ChildStdin>,
}

/// Starts the child; returns when it executes its program.
pub(super) fn spawn(spec: &SpawnSpec, run_id: &str) -> Result<Started, SpawnFailure> {
    let Some((program, arguments)) = spec.argv.split_first() else {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "the command is empty");
        return Err(failed(format!("start `{}`", spec.process))(error));
    };
    enter(&spec.dir).map_err(failed(format!("use the folder `{}`", spec.dir.display())))?;
    let log = open_log(&spec.log);
    let log = log.map_err(failed(format!("write the log `{}`", spec.log.display())))?;
    let execute = || failed(format!("execute `{program}`"));
    let errors = log.try_clone().map_err(execute())?;

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that starts processes"
    )]
    let mut command = Command::new(program);
    if program == SELF_EXE {
        command.arg0("chaos");
    }
    command
        .args(arguments)
        .env_clear()
        .envs(&spec.env)
        .env(RUN_VARIABLE, run_id);
    command
        .current_dir(&spec.dir)
        .process_group(0)
        .stdout(log)
        .stderr(errors);
    command.stdin(match spec.stdin {
        Stdin::Null => Stdio::null(),
        Stdin::Held => Stdio::piped(),
    });
    prepare_child(&mut command, spec.nice);
    let mut child = command.spawn().map_err(execute())?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| execute()(io::Error::other("no pid")))?;
    // Reaping is the keeper's own affair (`wait` for any child), so std's handle goes.
    Ok(Started {
        pid,
        stdin: child.stdin.take(),
    })
}

fn failed(what: String) -> impl FnOnce(io::Error) -> SpawnFailure {
    move |error| SpawnFailure { what, error }
}

/// A missing folder would otherwise read as a missing program.
fn enter(dir: &Path) -> io::Result<()> {
    if dir.metadata()?.is_dir() {
        Ok(())
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let length = log.metadata()?.len();
    match rustix::fs::fallocate(&log, FallocateFlags::KEEP_SIZE, length, LOG_ROOM_BYTES) {
        // Not every file system or file can reserve; then the process finds out by itself.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::SPIPE | Errno::NOSYS) => Ok(log),
        Err(error) => Err(error.into()),
    }
}
