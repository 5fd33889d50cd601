//! The keeper process: one thread, one loop over the channel and the ends of children.
//!
//! It never waits for anything without a bound, and never starts anything on its own, except the
//! command it was given for the case that the coordinator vanishes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal as Raw, WaitOptions, WaitStatus};

use super::channel::{Channel, Peer};
use super::processes::{descendants, timespec};
use super::protocol::{
    Answer, Change, ChangeKind, End, ProcessId, Report, Request, Signal, SpawnSpec, Spawned,
};
use super::spawn::spawn;
use super::system::{self, now_mono_ns};

/// How long killing everything may take before the keeper gives up on what is left.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// How long a coordinator may take to read the last answer.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);

/// How soon to look again for descendants while killing: their ends are signalled to their own
/// parents, not to the keeper.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What `chaos keeper` is started with.
#[derive(Debug)]
pub struct ServeOptions {
    /// The run; children carry it in their environment.
    pub run_id: String,
    /// What to become when the coordinator vanished and everything is killed; empty: just end.
    pub at_eof: Vec<OsString>,
}

/// Why a keeper could not keep.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct ServeError {
    what: &'static str,
    source: io::Error,
}

fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError { what, source }
}

/// Serves the coordinator at the other end of `socket` until it quits or vanishes; then nothing of
/// the run is left running.
///
/// # Errors
///
/// When the process cannot be made a keeper, or the at-EOF command cannot be executed.
pub fn serve(options: &ServeOptions, socket: OwnedFd) -> Result<(), ServeError> {
    system::keep_descriptors_private().map_err(cannot("close inherited descriptors"))?;
    let signals = system::hold_signals().map_err(cannot("hold signals back"))?;
    // Fails only for the leader of a process group, which a keeper started by hand is.
    let _ = rustix::process::setsid();
    let me = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(me))
        .map_err(|errno| cannot("adopt orphans")(errno.into()))?;
    // `ps` would otherwise show the last part of /proc/self/exe.
    let _ = rustix::thread::set_name(c"chaos-keeper");
    let channel = Channel::new(UnixStream::from(socket)).map_err(cannot("open the channel"))?;

    let mut keeper = Keeper {
        run_id: options.run_id.clone(),
        me,
        channel,
        signals,
        children: HashMap::new(),
        incarnations: HashMap::new(),
    };
    match keeper.run() {
        Ending::Quit => Ok(()),
        Ending::PeerGone => {
            keeper.kill_everything();
            become_command(&options.at_eof).map_err(cannot("execute the command at the end"))
        }
    }
}

fn become_command(argv: &[OsString]) -> io::Result<()> {
    let Some((program, arguments)) = argv.split_first() else {
        return Ok(());
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "replaces the keeper, which has no children now"
    )]
    let mut command = Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null());
    system::prepare_exec(&mut command);
    Err(command.exec())
}

/// Why the loop ended.
enum Ending {
    Quit,
    PeerGone,
}

struct Child {
    process: ProcessId,
    incarnation: u32,
    /// Held open, never written.
    stdin: Option<ChildStdin>,
}

struct Keeper {
    run_id: String,
    me: Pid,
    channel: Channel,
    signals: OwnedFd,
    /// By pid; few enough to search by id.
    children: HashMap<Pid, Child>,
    incarnations: HashMap<ProcessId, u32>,
}

impl Keeper {
    fn run(&mut self) -> Ending {
        if self.channel.send(&Report::Ready {
            pid: self.me.as_raw_pid(),
        }) == Peer::Gone
        {
            return Ending::PeerGone;
        }
        loop {
            self.wait_for_something();
            if self.reap() == Peer::Gone || self.channel.flush() == Peer::Gone {
                return Ending::PeerGone;
            }
            let (calls, peer) = self.channel.receive();
            for call in calls {
                let quits = matches!(call.request, Request::Quit);
                let answer = self.answer(call.request);
                let sent = self.channel.send(&Report::Answer {
                    seq: call.seq,
                    answer,
                });
                if quits {
                    self.say_goodbye();
                    return Ending::Quit;
                }
                if sent == Peer::Gone {
                    return Ending::PeerGone;
                }
            }
            if peer == Peer::Gone {
                return Ending::PeerGone;
            }
        }
    }

    /// Until a call, the end of a child, or room for what is unsent. The one wait without a
    /// deadline: a keeper with nothing to do has no reason to wake up.
    fn wait_for_something(&self) {
        let interest = match self.channel.has_unsent() {
            true => PollFlags::IN | PollFlags::OUT,
            false => PollFlags::IN,
        };
        let mut fds = [
            PollFd::from_borrowed_fd(self.channel.as_fd(), interest),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        // Interrupted or failed: the loop looks at everything anyway.
        let _ = poll(&mut fds, None);
    }

    /// Gives the last answer a bounded time to leave.
    fn say_goodbye(&mut self) {
        if self.channel.has_unsent() {
            let mut fds = [PollFd::from_borrowed_fd(
                self.channel.as_fd(),
                PollFlags::OUT,
            )];
            let _ = poll(&mut fds, Some(&timespec(GOODBYE_DEADLINE)));
            let _ = self.channel.flush();
        }
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Spawn(spec) => self.spawn(&spec),
            Request::Signal {
                process,
                signal,
                group,
            } => self.signal(&process, signal, group),
            Request::CloseStdin { process } => self.close_stdin(&process),
            Request::KillAll | Request::Quit => Answer::Down {
                left: self.kill_everything(),
            },
        }
    }

    fn spawn(&mut self, spec: &SpawnSpec) -> Answer {
        if let Some(pid) = self.find(&spec.process) {
            return Answer::Failed {
                what: format!("start `{}`", spec.process),
                error: format!("it is already running as pid {pid}"),
            };
        }
        match spawn(spec, &self.run_id) {
            Err(failure) => Answer::Failed {
                what: failure.what,
                error: failure.error.to_string(),
            },
            Ok(started) => {
                let incarnation = self.incarnations.entry(spec.process.clone()).or_insert(0);
                *incarnation += 1;
                let child = Child {
                    process: spec.process.clone(),
                    incarnation: *incarnation,
                    stdin: started.stdin,
                };
                let spawned = Spawned {
                    process: spec.process.clone(),
                    pid: started.pid.as_raw_pid(),
                    incarnation: *incarnation,
                    at_mono_ns: now_mono_ns(),
                };
                self.children.insert(started.pid, child);
                Answer::Spawned(spawned)
            }
        }
    }

    fn signal(&self, process: &ProcessId, signal: Signal, group: bool) -> Answer {
        let Some(pid) = self.find(process) else {
            return Answer::NotRunning;
        };
        let sent = match group {
            true => rustix::process::kill_process_group(pid, signal.raw()),
            false => rustix::process::kill_process(pid, signal.raw()),
        };
        match sent {
            Ok(()) => Answer::Done,
            Err(errno) => Answer::Failed {
                what: format!("send SIG{signal} to `{process}` (pid {pid})"),
                error: io::Error::from(errno).to_string(),
            },
        }
    }

    fn close_stdin(&mut self, process: &ProcessId) -> Answer {
        match self
            .find(process)
            .and_then(|pid| self.children.get_mut(&pid))
        {
            Some(child) => {
                child.stdin = None;
                Answer::Done
            }
            None => Answer::NotRunning,
        }
    }

    fn find(&self, process: &ProcessId) -> Option<Pid> {
        self.children
            .iter()
            .find(|(_, child)| child.process == *process)
            .map(|(pid, _)| *pid)
    }

    /// Collects what changed: the keeper's own children and the orphans it adopted.
    fn reap(&mut self) -> Peer {
        system::drain(&self.signals);
        let mut peer = Peer::Present;
        let any = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
        // Ends with `None` (nobody changed) or ECHILD (nobody there).
        while let Ok(Some((pid, status))) = rustix::process::wait(any) {
            if self.report(pid, status) == Peer::Gone {
                peer = Peer::Gone;
            }
        }
        peer
    }

    /// Reports a change of a child; an orphan's is of no interest to anyone.
    fn report(&mut self, pid: Pid, status: WaitStatus) -> Peer {
        let Some(kind) = change_kind(status) else {
            return Peer::Present;
        };
        let Some(child) = self.children.get(&pid) else {
            return Peer::Present;
        };
        let change = Change {
            process: child.process.clone(),
            pid: pid.as_raw_pid(),
            incarnation: child.incarnation,
            at_mono_ns: now_mono_ns(),
            kind,
        };
        if let ChangeKind::Exited(_) = kind {
            self.children.remove(&pid);
            // What it left in its group would hold the ports that its next incarnation needs. The
            // group's id cannot have been reused: it is either still in use or was just freed.
            let _ = rustix::process::kill_process_group(pid, Raw::KILL);
        }
        self.channel.send(&Report::Changed(change))
    }

    /// Kills until nobody is left, or the deadline: those who fork meanwhile are found next time
    /// around. Returns who is left.
    fn kill_everything(&mut self) -> Vec<i32> {
        let deadline = u64::try_from(KILL_DEADLINE.as_nanos()).unwrap_or(u64::MAX);
        let end = now_mono_ns().saturating_add(deadline);
        loop {
            for pid in self.children.keys() {
                kill(*pid, rustix::process::kill_process_group);
            }
            let found = descendants(self.me);
            for pid in &found {
                kill(*pid, rustix::process::kill_process);
            }
            // A vanished peer changes nothing here.
            let _ = self.reap();
            if found.is_empty() && self.children.is_empty() {
                return Vec::new();
            }
            if now_mono_ns() > end {
                return found.into_iter().map(Pid::as_raw_pid).collect();
            }
            let mut fds = [PollFd::new(&self.signals, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&timespec(LOOK_AGAIN)));
        }
    }
}

/// SIGKILL reaches the stopped as well; SIGCONT is for what traces or freezes them.
fn kill(pid: Pid, send: fn(Pid, Raw) -> rustix::io::Result<()>) {
    // Fails for those who just ended and those of other users; the next look tells.
    let _ = send(pid, Raw::KILL);
    let _ = send(pid, Raw::CONT);
}

fn change_kind(status: WaitStatus) -> Option<ChangeKind> {
    /// The bit of a wait status that tells of a core, as in `WCOREDUMP`.
    const CORE: i32 = 0x80;
    if status.stopped() {
        Some(ChangeKind::Stopped)
    } else if status.continued() {
        Some(ChangeKind::Continued)
    } else if let Some(code) = status.exit_status() {
        Some(ChangeKind::Exited(End::Code(code)))
    } else {
        let core = status.as_raw() & CORE != 0;
        let number = status.terminating_signal()?;
        Some(ChangeKind::Exited(End::Signal { number, core }))
    }
}
