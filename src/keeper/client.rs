//! The coordinator's side of the keeper: starts it, asks it, hears from it, stops it.
//!
//! Dropping a [`Keeper`] is safe at any moment: the channel ends and the keeper kills everything.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec};

use super::RUN_VARIABLE;
use super::processes::sweep;
use super::protocol::{
    Answer, Call, Change, ChangeKind, LINE_MAX_BYTES, ProcessId, Report, Request, Signal,
    SpawnSpec, Spawned,
};

/// Generous: the keeper answers in microseconds, on a loaded machine in milliseconds.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// Longer than the keeper itself takes for killing everything.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// For a keeper that said goodbye to end.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// For the strays of a keeper that was killed.
const SWEEP_DEADLINE: Duration = Duration::from_secs(5);
/// A keeper that leaves this much unread is not there any more.
const UNSENT_MAX_BYTES: usize = 4 * LINE_MAX_BYTES;
/// Changes that may wait for the coordinator; beyond, answers wait too.
const CHANGES_MAX: usize = 1024;

/// How to start a keeper.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// `/proc/self/exe` but in tests.
    pub executable: PathBuf,
    /// The run; every process started carries it in its environment.
    pub run_id: String,
    /// What the keeper itself has to complain about is appended here.
    pub log: PathBuf,
    /// What the keeper becomes when the coordinator vanished; empty: nothing.
    pub at_eof: Vec<String>,
}

/// Why a keeper did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It could not be started.
    #[error("cannot start the keeper of the run's processes")]
    Start(#[source] io::Error),
    /// It was started but is not there, or did not answer in time.
    #[error("lost the keeper of the run's processes while it should {0}")]
    Lost(String),
    /// A request failed. Reads ``cannot execute `./shop`: No such file …``.
    #[error("`{process}`: cannot {what}: {error}")]
    Failed {
        /// For which process.
        process: ProcessId,
        /// What was attempted.
        what: String,
        /// The system's reason.
        error: String,
    },
    /// A request cannot even be sent.
    #[error("cannot {what}: {error}")]
    Unsendable {
        /// What was attempted.
        what: String,
        /// What is wrong with it.
        error: String,
    },
    /// No such process is running.
    #[error("`{0}` is not running")]
    NotRunning(ProcessId),
}

/// What stopping everything took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Processes that did not end within the grace and were killed.
    pub forced: Vec<ProcessId>,
    /// Pids that outlived even that; anything but empty must be said loudly.
    pub left: Vec<i32>,
}

type Living = BTreeMap<ProcessId, i32>;
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A running keeper.
pub struct Keeper {
    run_id: String,
    pid: i32,
    process: tokio::process::Child,
    writer: OwnedWriteHalf,
    /// What the socket did not take yet. Kept here, so that a request that is dropped half-way
    /// leaves the rest of its line for the next one to send.
    unsent: Mutex<VecDeque<u8>>,
    seq: AtomicU64,
    waiting: Waiting,
    living: watch::Receiver<Living>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("run_id", &self.run_id)
            .field("pid", &self.pid)
            .finish()
    }
}

impl Keeper {
    /// Starts a keeper and waits until it is up. The receiver gets every change of every process,
    /// in order, and ends when the keeper is gone. It must be read: while it is full (1,024
    /// changes), answers wait behind it.
    ///
    /// # Errors
    ///
    /// [`KeeperError::Start`] or [`KeeperError::Lost`].
    pub async fn start(
        options: KeeperOptions,
    ) -> Result<(Keeper, mpsc::Receiver<Change>), KeeperError> {
        let (ours, process) = launch(&options).map_err(KeeperError::Start)?;
        let (read, write) = ours.into_split();
        let (ready, is_ready) = oneshot::channel();
        let (changes, receiver) = mpsc::channel(CHANGES_MAX);
        let (living_sender, living) = watch::channel(Living::new());
        let waiting = Waiting::default();
        let listener = Listener {
            waiting: waiting.clone(),
            living: living_sender,
            changes,
        };
        tokio::spawn(listener.run(read, ready));
        let pid = timeout(START_DEADLINE, is_ready).await;
        let Ok(Ok(pid)) = pid else {
            return Err(KeeperError::Lost("start".into()));
        };
        let keeper = Keeper {
            run_id: options.run_id,
            pid,
            process,
            writer: write,
            unsent: Mutex::default(),
            seq: AtomicU64::new(0),
            waiting,
            living,
        };
        Ok((keeper, receiver))
    }

    /// The keeper's own pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Starts a process; returns once it executes its program. Its end may be reported before
    /// this returns: compare incarnations.
    ///
    /// # Errors
    ///
    /// [`KeeperError::Failed`] when a step failed (folder, log, program), else `Lost`.
    pub async fn spawn(&self, spec: SpawnSpec) -> Result<Spawned, KeeperError> {
        let process = spec.process.clone();
        match self
            .ask(
                &format!("start `{process}`"),
                Request::Spawn(Box::new(spec)),
            )
            .await?
        {
            Answer::Spawned(spawned) => Ok(spawned),
            answer => Err(refusal(process, answer)),
        }
    }

    /// Sends a signal to a process and its whole group.
    ///
    /// # Errors
    ///
    /// [`KeeperError::NotRunning`] when it ended before.
    pub async fn signal(&self, process: &ProcessId, signal: Signal) -> Result<(), KeeperError> {
        let request = Request::Signal {
            process: process.clone(),
            signal,
            group: true,
        };
        match self.ask(&format!("signal `{process}`"), request).await? {
            Answer::Done => Ok(()),
            answer => Err(refusal(process.clone(), answer)),
        }
    }

    /// Freezes a process and its group; [`ChangeKind::Stopped`] confirms it.
    ///
    /// # Errors
    ///
    /// As [`Keeper::signal`].
    pub async fn pause(&self, process: &ProcessId) -> Result<(), KeeperError> {
        self.signal(process, Signal::Stop).await
    }

    /// Lets a frozen process run again; [`ChangeKind::Continued`] confirms it.
    ///
    /// # Errors
    ///
    /// As [`Keeper::signal`].
    pub async fn resume(&self, process: &ProcessId) -> Result<(), KeeperError> {
        self.signal(process, Signal::Cont).await
    }

    /// Ends the held standard input of a process.
    ///
    /// # Errors
    ///
    /// As [`Keeper::signal`].
    pub async fn close_stdin(&self, process: &ProcessId) -> Result<(), KeeperError> {
        let request = Request::CloseStdin {
            process: process.clone(),
        };
        match self
            .ask(&format!("close the input of `{process}`"), request)
            .await?
        {
            Answer::Done => Ok(()),
            answer => Err(refusal(process.clone(), answer)),
        }
    }

    /// Kills every process at once, adopted ones too. Returns the pids that survived it: none,
    /// unless the kernel or another user holds them.
    ///
    /// # Errors
    ///
    /// [`KeeperError::Lost`].
    pub async fn kill_all(&self) -> Result<Vec<i32>, KeeperError> {
        self.ask_down(Request::KillAll).await
    }

    /// The running processes and their pids.
    #[must_use]
    pub fn living(&self) -> BTreeMap<ProcessId, i32> {
        self.living.borrow().clone()
    }

    /// Waits until no started process runs any more, or the keeper is gone.
    pub async fn all_ended(&self) {
        // An error means that the listener ended, and with it the keeper.
        let _ = self.living.clone().wait_for(Living::is_empty).await;
    }

    /// Ends some processes: SIGTERM to their groups, frozen ones too, and SIGKILL to those that
    /// are still there after the grace. Returns the ones that had to be killed. Can be dropped
    /// half-way and called again, with no grace.
    pub async fn end(&self, processes: &[ProcessId], grace: Duration) -> Vec<ProcessId> {
        for process in processes {
            // Whoever ended meanwhile needs no signal; whoever is frozen cannot see one.
            let _ = self.signal(process, Signal::Term).await;
            let _ = self.resume(process).await;
        }
        if timeout(grace, self.ended(processes)).await.is_ok() {
            return Vec::new();
        }
        let mut forced = processes.to_vec();
        forced.retain(|process| self.living.borrow().contains_key(process));
        for process in &forced {
            let _ = self.signal(process, Signal::Kill).await;
        }
        // Longer only if the kernel holds one; then `stop` says so.
        let _ = timeout(END_DEADLINE, self.ended(&forced)).await;
        forced
    }

    /// Waits until none of these runs any more, or the keeper is gone.
    async fn ended(&self, processes: &[ProcessId]) {
        let none = |living: &Living| !processes.iter().any(|process| living.contains_key(process));
        // An error means that the listener ended, and with it the keeper.
        let _ = self.living.clone().wait_for(none).await;
    }

    /// Stops everything: [`Keeper::end`] for all that run, then SIGKILL to what they left, then the
    /// keeper itself. Bounded by the grace plus a few seconds. When the keeper is gone, finds the
    /// strays by their environment.
    pub async fn stop(mut self, grace: Duration) -> Stopped {
        let running: Vec<_> = self.living().into_keys().collect();
        let forced = self.end(&running, grace).await;
        let down = self.ask_down(Request::Quit).await;
        if timeout(END_DEADLINE, self.process.wait()).await.is_err() {
            // Its children die with it.
            let _ = self.process.start_kill();
            let _ = timeout(END_DEADLINE, self.process.wait()).await;
        }
        let left = match down {
            Ok(left) => left,
            Err(_) => sweep_strays(self.run_id.clone()).await,
        };
        Stopped { forced, left }
    }

    async fn ask_down(&self, request: Request) -> Result<Vec<i32>, KeeperError> {
        match self.ask("kill everything", request).await? {
            Answer::Down { left } => Ok(left),
            _ => Err(KeeperError::Lost("kill everything".into())),
        }
    }

    async fn ask(&self, what: &str, request: Request) -> Result<Answer, KeeperError> {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let line = line(&Call { seq, request });
        let line = line.map_err(|error| KeeperError::Unsendable {
            what: what.to_owned(),
            error,
        })?;
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(seq, sender);
        let asked = async {
            self.send(line).await.ok()?;
            answer.await.ok()
        };
        let answer = timeout(ANSWER_DEADLINE, asked).await;
        lock(&self.waiting).remove(&seq);
        answer
            .ok()
            .flatten()
            .ok_or_else(|| KeeperError::Lost(what.to_owned()))
    }

    async fn send(&self, line: Vec<u8>) -> io::Result<()> {
        lock(&self.unsent).extend(line);
        while !self.flush()? {
            self.writer.writable().await?;
        }
        Ok(())
    }

    /// Sends what the socket takes; whether that was all.
    fn flush(&self) -> io::Result<bool> {
        let mut unsent = lock(&self.unsent);
        while !unsent.is_empty() {
            match self.writer.try_write(unsent.as_slices().0) {
                Ok(written) => drop(unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if unsent.len() > UNSENT_MAX_BYTES {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(unsent.is_empty())
    }
}

/// A longer line would read as nonsense to the keeper, and so as the end of the coordinator.
fn line(call: &Call) -> Result<Vec<u8>, String> {
    let mut line = serde_json::to_vec(call).map_err(|error| error.to_string())?;
    if line.len() >= LINE_MAX_BYTES {
        let max = LINE_MAX_BYTES >> 10;
        return Err(format!(
            "the command and environment are longer than {max} KiB"
        ));
    }
    line.push(b'\n');
    Ok(line)
}

fn refusal(process: ProcessId, answer: Answer) -> KeeperError {
    match answer {
        Answer::Failed { what, error } => KeeperError::Failed {
            process,
            what,
            error,
        },
        _ => KeeperError::NotRunning(process),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is ever left half done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn sweep_strays(run_id: String) -> Vec<i32> {
    let sweeping = tokio::task::spawn_blocking(move || sweep(&run_id, SWEEP_DEADLINE));
    sweeping.await.unwrap_or_default().left
}

fn launch(options: &KeeperOptions) -> io::Result<(UnixStream, tokio::process::Child)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&options.log)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the keeper is what keeps the others"
    )]
    let mut command = tokio::process::Command::new(&options.executable);
    command
        .arg0("chaos")
        .args(["keeper", "--run-id", &options.run_id]);
    if !options.at_eof.is_empty() {
        command.arg("--at-eof").args(&options.at_eof);
    }
    command.env(RUN_VARIABLE, &options.run_id);
    command
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(log);
    let process = command.spawn()?;
    // The command holds the other end of the channel: only without it does EOF mean gone.
    drop(command);
    Ok((UnixStream::from_std(ours)?, process))
}

/// Hears what the keeper says and passes it on.
struct Listener {
    waiting: Waiting,
    living: watch::Sender<Living>,
    changes: mpsc::Sender<Change>,
}

impl Listener {
    /// Ends when the keeper is gone or talks nonsense; then so do all that wait for it.
    async fn run(self, read: OwnedReadHalf, ready: oneshot::Sender<i32>) {
        let mut lines = FramedRead::new(read, LinesCodec::new_with_max_length(LINE_MAX_BYTES));
        let mut ready = Some(ready);
        while let Some(Ok(line)) = lines.next().await {
            match serde_json::from_str(&line) {
                Ok(Report::Ready { pid }) => {
                    let _ = ready.take().map(|ready| ready.send(pid));
                }
                Ok(Report::Answer { seq, answer }) => self.pass_answer(seq, answer),
                Ok(Report::Changed(change)) => self.pass_change(change).await,
                Err(_) => break,
            }
        }
        // Dropping the senders is the answer to all that still wait.
        lock(&self.waiting).clear();
    }

    fn pass_answer(&self, seq: u64, answer: Answer) {
        if let Answer::Spawned(spawned) = &answer {
            self.living.send_modify(|living| {
                living.insert(spawned.process.clone(), spawned.pid);
            });
        }
        // Whoever asked may have given up.
        let _ = lock(&self.waiting)
            .remove(&seq)
            .map(|asker| asker.send(answer));
    }

    async fn pass_change(&self, change: Change) {
        if let ChangeKind::Exited(_) = change.kind {
            self.living.send_modify(|living| {
                living.remove(&change.process);
            });
        }
        // A coordinator that no longer listens is stopping.
        let _ = self.changes.send(change).await;
    }
}
