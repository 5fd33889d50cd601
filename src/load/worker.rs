//! `chaos worker`: the process that drives a part of the load.
//!
//! It dials its coordinator, gets its part, opens connections, says ready, waits for T0, and then
//! sends what happened about once a second until everything is told. Two threads: this one keeps
//! the books and talks to the coordinator; the other paces and runs the users.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::plan::load::LoadModel;

use super::host;
use super::http::Target;
use super::journeys::Journeys;
use super::pacer;
use super::queue::Queue;
use super::recorder::Recorder;
use super::schedule::{Schedule, rate_max};
use super::shared::{Note, Shared};
use super::signals;
use super::uplink::{Gone, Uplink};
use super::user::User;
use super::wire::{Acknowledged, Assignment, Command, Failed, Ready};

/// Of the thread that keeps the books, which must not keep a request from being sent.
const NICE: i32 = 10;
/// How often results are sent.
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// How often the books are brought up to date and the end of the users is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long users may take to open their connections beyond the time-out of one.
const READY_SLACK: Duration = Duration::from_secs(10);
/// What requests in flight may take after a first signal.
const SIGNAL_GRACE: Duration = Duration::from_secs(1);

/// Why a worker could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The coordinator cannot be talked to.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The coordinator's address, the assignment, or this process makes it impossible.
    #[error("{0}")]
    Impossible(String),
}

/// Does a worker's part of the load, from dialling to the last acknowledged word.
///
/// # Errors
///
/// When the coordinator goes away, or the assignment cannot be carried out.
pub fn execute(coordinator: &str, token: &str) -> Result<(), WorkerError> {
    let target = Target::parse(coordinator).map_err(WorkerError::Impossible)?;
    let impossible = |error: std::io::Error| WorkerError::Impossible(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(impossible)?;
    let abandoned = CancellationToken::new();
    let uplink = Uplink::new(target, token, abandoned.clone());
    runtime.block_on(work(uplink, abandoned))
}

async fn work(mut uplink: Uplink, abandoned: CancellationToken) -> Result<(), WorkerError> {
    let assignment: Assignment = uplink.get("/assignment").await?;
    if assignment.local {
        uplink.silence_max = None;
        watch_stdin(abandoned);
    }
    match drive(&mut uplink, assignment).await {
        Err(WorkerError::Impossible(why)) => {
            let failed = Failed { why: why.clone() };
            let () = uplink.post("/failed", &failed).await?;
            Err(WorkerError::Impossible(why))
        }
        other => other,
    }
}

async fn drive(uplink: &mut Uplink, assignment: Assignment) -> Result<(), WorkerError> {
    let journeys = Journeys::new(&assignment).map_err(WorkerError::Impossible)?;
    let part = Part::new(&assignment, journeys)?;
    let shared = Arc::clone(&part.shared);
    obey_signals(&shared)?;
    // Users end on every way out of here; their thread is joined where they are done.
    let _cut_at_exit = CutOnDrop(Arc::clone(&shared));
    let users = spawn_users(&part, &assignment)?;
    // Where it is not allowed the send-lag shows it.
    let _ = setpriority_process(Some(gettid()), NICE);
    let ready = until_ready(&shared, part.users, &users).await?;
    let () = uplink.post("/ready", &ready).await?;

    let mut line = uplink.another();
    let Some(t0_mono_ns) = until_go(&mut line, &shared).await? else {
        return finish(uplink, part, users, 0).await;
    };
    shared.begin(shared.clock.from_mono(t0_mono_ns));
    part.begun.cancel();
    let listener = tokio::spawn(listen(line, Arc::clone(&shared)));
    let result = finish(uplink, part, users, t0_mono_ns).await;
    listener.abort();
    result
}

/// The thread that paces and runs the users; the error is a phrase.
type Users = JoinHandle<Result<(), String>>;

/// What this worker works with.
struct Part {
    shared: Arc<Shared>,
    notes: flume::Receiver<Note>,
    recorder: Recorder,
    users: u32,
    queue: Arc<Queue>,
    /// Cancelled at T0.
    begun: CancellationToken,
}

impl Part {
    fn new(assignment: &Assignment, journeys: Journeys) -> Result<Self, WorkerError> {
        let load = &assignment.load;
        let workers = assignment.workers.max(1);
        let wanted = match load.model {
            LoadModel::Open(_) => load.users_max,
            LoadModel::Closed { users, .. } => users,
        };
        let users = wanted.div_ceil(workers);
        if users == 0 {
            return Err(WorkerError::Impossible("the load has no users".into()));
        }
        let queue_max = match &load.model {
            LoadModel::Open(arrivals) => {
                let waiting = rate_max(arrivals) * assignment.ticket_deadline.as_secs_f64();
                (waiting.ceil() as usize).clamp(1024, 1 << 20)
            }
            LoadModel::Closed { .. } => 0,
        };
        let bounds = journeys
            .journeys
            .iter()
            .map(|journey| journey.bound(load.timeout));
        let tail = assignment.ticket_deadline + bounds.max().unwrap_or_default();
        let (shared, notes) = Shared::new(
            journeys,
            assignment.clock,
            load.timeout,
            assignment.duration,
            tail,
        );
        let shared = Arc::new(shared);
        let patience_ns = (tail + Duration::from_secs(1)).as_nanos() as u64;
        let recorder = Recorder::new(Arc::clone(&shared), assignment.phases.clone(), patience_ns);
        Ok(Self {
            shared,
            notes,
            recorder,
            users,
            queue: Arc::new(Queue::new(queue_max)),
            begun: CancellationToken::new(),
        })
    }
}

/// Ends the users when the worker gives up in the middle.
struct CutOnDrop(Arc<Shared>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.cut_now();
    }
}

/// Cancels `abandoned` when standard input ends: whoever held the other end is gone.
fn watch_stdin(abandoned: CancellationToken) {
    // A thread that may block for ever and ends with the process; tokio's own would be waited for.
    std::thread::spawn(move || {
        let mut sink = [0; 64];
        while std::io::stdin().read(&mut sink).is_ok_and(|read| read > 0) {}
        abandoned.cancel();
    });
}

fn obey_signals(shared: &Arc<Shared>) -> Result<(), WorkerError> {
    let shared = Arc::clone(shared);
    let runtime = Handle::current();
    let on_signal = move |count| match count {
        1 => stop(&runtime, &shared, SIGNAL_GRACE),
        _ => shared.cut_now(),
    };
    signals::install(on_signal).map_err(WorkerError::Impossible)
}

/// Stops issuing now; cuts what is still in flight after the grace.
fn stop(runtime: &Handle, shared: &Arc<Shared>, grace: Duration) {
    shared.stop.cancel();
    let shared = Arc::clone(shared);
    runtime.spawn(async move {
        tokio::time::sleep(grace).await;
        shared.cut.cancel();
    });
}

/// Starts the thread that paces and runs the users. It ends when all of them have ended.
fn spawn_users(part: &Part, assignment: &Assignment) -> Result<Users, WorkerError> {
    let (shared, queue) = (Arc::clone(&part.shared), Arc::clone(&part.queue));
    let (users, timeout, begun) = (part.users, assignment.load.timeout, part.begun.clone());
    let schedule = schedule(assignment, &shared);
    let life = lives(
        assignment,
        Arc::clone(&shared),
        Arc::clone(&queue),
        begun.clone(),
    );
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let result = runtime.block_on(async {
            let bell = Bell::new().map_err(|error| format!("no timer for the pacer: {error}"))?;
            match schedule {
                Some(schedule) => {
                    let (shared, queue) = (Arc::clone(&shared), Arc::clone(&queue));
                    tokio::spawn(async move {
                        begun.cancelled().await;
                        pacer::pace(schedule, &shared, &queue, &bell).await;
                    });
                }
                // Its users issue their own.
                None => shared.issued_to_ns.store(u64::MAX, Relaxed),
            }
            host::run(users, timeout, life).await
        });
        // Nothing is due any more; what was, nobody will take.
        drop(runtime);
        shared.stop.cancel();
        shared.issued_to_ns.store(u64::MAX, Relaxed);
        for due in queue.abandon() {
            shared.note(Note::Dropped { due_ns: due.at_ns });
        }
        result
    };
    let thread = std::thread::Builder::new().name("users".into()).spawn(run);
    thread.map_err(|error| WorkerError::Impossible(error.to_string()))
}

/// The tickets of this worker's part; none in the closed model.
fn schedule(assignment: &Assignment, shared: &Shared) -> Option<Schedule> {
    let LoadModel::Open(arrivals) = &assignment.load.model else {
        return None;
    };
    Some(Schedule::new(
        arrivals,
        assignment.seed,
        assignment.duration,
        shared.journeys.tickets_max(),
        (assignment.worker, assignment.workers),
    ))
}

/// What each user does with its life, by the model of the load.
fn lives(
    assignment: &Assignment,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    begun: CancellationToken,
) -> impl Fn() -> host::Life + Send + Sync + 'static {
    let model = assignment.load.model.clone();
    let deadline = assignment.ticket_deadline;
    let duration_ns = assignment.duration.as_nanos() as u64;
    let (worker, workers) = (
        u64::from(assignment.worker),
        u64::from(assignment.workers.max(1)),
    );
    let tickets_max = shared.journeys.tickets_max();
    let next = Arc::new(AtomicU64::new(0));
    move || {
        let (shared, queue, begun) = (Arc::clone(&shared), Arc::clone(&queue), begun.clone());
        let (model, next) = (model.clone(), Arc::clone(&next));
        Box::pin(async move {
            let mut user = User::new(Arc::clone(&shared));
            user.connect().await;
            match model {
                LoadModel::Open(_) => user.serve(&queue, deadline).await,
                LoadModel::Closed { think, .. } => {
                    tokio::select! {
                        () = begun.cancelled() => {}
                        () = shared.stop.cancelled() => return,
                    }
                    let end_ns = shared.t0_ns() + duration_ns;
                    until(&shared, shared.t0_ns()).await;
                    let number = || {
                        let number = next.fetch_add(1, Relaxed) * workers + worker;
                        (number < tickets_max).then_some(number)
                    };
                    user.repeat(think, end_ns, number).await;
                }
            }
        })
    }
}

async fn until(shared: &Shared, at_ns: u64) {
    let left = Duration::from_nanos(at_ns.saturating_sub(shared.clock.now_ns()));
    tokio::select! {
        () = tokio::time::sleep(left) => {}
        () = shared.stop.cancelled() => {}
    }
}

async fn until_ready(shared: &Shared, users: u32, thread: &Users) -> Result<Ready, WorkerError> {
    let patience = shared.timeout + READY_SLACK;
    let all_ready = async {
        while shared.users_ready.load(Relaxed) < users && !thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(patience, all_ready).await.is_ok();
    if thread.is_finished() || !in_time {
        let ready = shared.users_ready.load(Relaxed);
        let why = format!("{ready} of {users} users were ready within {patience:?}");
        return Err(WorkerError::Impossible(why));
    }
    Ok(Ready {
        users,
        connected: shared.users_connected.load(Relaxed),
    })
}

/// Waits for T0, as CLOCK_MONOTONIC ns; none when the load is stopped before it begins.
async fn until_go(line: &mut Uplink, shared: &Arc<Shared>) -> Result<Option<u64>, WorkerError> {
    loop {
        let command = tokio::select! {
            command = line.get("/command") => command?,
            () = shared.stop.cancelled() => return Ok(None),
        };
        match command {
            Command::Wait => {}
            Command::Go { t0_mono_ns } => return Ok(Some(t0_mono_ns)),
            Command::Stop { .. } => {
                shared.cut_now();
                return Ok(None);
            }
        }
    }
}

/// Waits for a stop while the load is on. A coordinator that is gone is one.
async fn listen(mut line: Uplink, shared: Arc<Shared>) {
    loop {
        match line.get("/command?begun").await {
            Ok(Command::Wait | Command::Go { .. }) => {}
            Ok(Command::Stop { grace_ms }) => {
                let grace = Duration::from_millis(grace_ms);
                return stop(&Handle::current(), &shared, grace);
            }
            Err(_) => return shared.cut_now(),
        }
    }
}

/// Sends what happens until all users have ended, then the account of the whole.
async fn finish(
    uplink: &mut Uplink,
    mut part: Part,
    users: Users,
    t0_mono_ns: u64,
) -> Result<(), WorkerError> {
    let mut batches = tokio::time::interval(BATCH_EVERY);
    batches.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        // Before the notes are read: what was noted last is then among them.
        let over = users.is_finished();
        let mut due = false;
        while let Ok(note) = part.notes.try_recv() {
            part.recorder.book(note);
            if part.recorder.is_full() {
                due = true;
                break;
            }
        }
        if over && !due {
            break;
        }
        due |= tokio::select! {
            biased;
            _ = batches.tick() => true,
            _ = look.tick() => false,
        };
        if due {
            send(uplink, &mut part, false).await?;
        }
    }
    send(uplink, &mut part, true).await?;
    let now_ns = crate::evidence::clock::mono_ns();
    let wall_s = match t0_mono_ns {
        0 => 0.0,
        t0_ns => now_ns.saturating_sub(t0_ns) as f64 / 1e9,
    };
    let finished = part.recorder.finish(cpu_s(), wall_s);
    let () = uplink.post("/finished", &finished).await?;
    join(users).await
}

async fn send(uplink: &mut Uplink, part: &mut Part, last: bool) -> Result<(), WorkerError> {
    let now_ns = part.shared.clock.now_ns();
    let Some(batch) = part.recorder.take_batch(now_ns, last) else {
        return Ok(());
    };
    let seq = batch.seq;
    let acknowledged: Acknowledged = uplink.post("/batch", &batch).await?;
    match acknowledged.seq >= seq {
        true => Ok(()),
        false => Err(WorkerError::Impossible(format!(
            "batch {seq} was not taken"
        ))),
    }
}

async fn join(users: Users) -> Result<(), WorkerError> {
    let joined = tokio::task::spawn_blocking(|| users.join()).await;
    match joined {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(why))) => Err(WorkerError::Impossible(why)),
        _ => Err(WorkerError::Impossible("the users' thread panicked".into())),
    }
}

/// CPU time of this process so far, s.
fn cpu_s() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}
