//! The coordinator's side of a load worker: a small HTTP server on loopback that it dials.
//!
//! It spawns nothing (the keeper does) and judges nothing: it hands out the assignment, says when
//! to begin and when to stop, and passes on what the worker sends, each batch once and in order.
//!
//! Read next: `load/wire.rs` for what is said, `load/worker.rs` for who says it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use rand_chacha::rand_core::Rng as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::evidence::clock::mono_ns;
use crate::load::wire::{
    Acknowledged, Assignment, BODY_BYTES_MAX, COMMAND_HOLD, Command, Failed, Finished, LoadBatch,
    Ready, SILENCE_MAX,
};

/// Messages that may wait for the run; then the worker waits.
const MESSAGES_MAX: usize = 64;

/// How often silence is looked for while the longest that is borne passes.
const LOOKS_PER_SILENCE: u32 = 30;

/// What a worker sent, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum LoadMessage {
    /// Results of about one second.
    Batch(LoadBatch),
    /// The load is over; nothing follows.
    Finished(Finished),
    /// The worker is lost, and so is the run: why. Nothing follows.
    Lost(String),
}

/// Why a worker did not get ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It never said so.
    #[error("the load worker was not ready within {0:?}")]
    TimedOut(Duration),
    /// It said why not.
    #[error("the load worker cannot start: {0}")]
    Failed(String),
}

/// The coordinator's side of one worker. Dropping it closes the server.
#[derive(Debug)]
pub struct LoadHost {
    url: String,
    token: String,
    shared: Arc<Shared>,
    messages: mpsc::Receiver<LoadMessage>,
    _server: DropGuard,
}

#[derive(Debug)]
struct Shared {
    assignment: Assignment,
    token: String,
    command: watch::Sender<Command>,
    stage: watch::Sender<Stage>,
    messages: mpsc::Sender<LoadMessage>,
    /// Highest sequence number passed on. Held while a batch is passed on, so that two copies of
    /// one batch cannot both be.
    received: tokio::sync::Mutex<u64>,
    /// CLOCK_MONOTONIC of the last request, ns; 0 before the first.
    heard_ns: Mutex<u64>,
}

/// How far the worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Ready(Ready),
    Failed(String),
    Over,
}

impl LoadHost {
    /// Listens on loopback for the worker with this assignment.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start(assignment: Assignment) -> std::io::Result<Self> {
        Self::with_silence(assignment, SILENCE_MAX).await
    }

    async fn with_silence(assignment: Assignment, silence_max: Duration) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (messages_in, messages) = mpsc::channel(MESSAGES_MAX);
        let shared = Arc::new(Shared {
            assignment,
            token: token(),
            command: watch::Sender::new(Command::Wait),
            stage: watch::Sender::new(Stage::Starting),
            messages: messages_in,
            received: tokio::sync::Mutex::new(0),
            heard_ns: Mutex::new(0),
        });
        let ended = CancellationToken::new();
        let serve = axum::serve(listener, router(Arc::clone(&shared)));
        let (server_ended, watch_ended) = (ended.clone(), ended.clone());
        let watched = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::select! {
                // Nothing to tell: a worker that gets no answer ends by itself.
                _ = serve.into_future() => {}
                () = server_ended.cancelled() => {}
            }
        });
        tokio::spawn(async move {
            tokio::select! {
                () = watch_silence(watched, silence_max) => {}
                () = watch_ended.cancelled() => {}
            }
        });
        Ok(Self {
            url,
            token: shared.token.clone(),
            shared,
            messages,
            _server: ended.drop_guard(),
        })
    }

    /// Where the worker dials: `http://127.0.0.1:4711`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the worker shows; for its environment, never its arguments.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Waits until the worker is ready.
    ///
    /// # Errors
    ///
    /// When it is not in time, or says that it cannot.
    pub async fn wait_ready(&self, within: Duration) -> Result<Ready, NotReady> {
        let mut stage = self.shared.stage.subscribe();
        let settled = stage.wait_for(|stage| *stage != Stage::Starting);
        let stage = match tokio::time::timeout(within, settled).await {
            Ok(Ok(stage)) => stage.clone(),
            _ => return Err(NotReady::TimedOut(within)),
        };
        match stage {
            Stage::Ready(ready) => Ok(ready),
            Stage::Failed(why) => Err(NotReady::Failed(why)),
            Stage::Starting | Stage::Over => Err(NotReady::Failed("it ended".into())),
        }
    }

    /// Lets the load begin at a CLOCK_MONOTONIC instant, which should lie some milliseconds ahead.
    pub fn go(&self, t0_mono_ns: u64) {
        self.shared.command.send_replace(Command::Go { t0_mono_ns });
    }

    /// Stops the load: nothing more begins, what is in flight may end within `grace`. The worker
    /// still sends what it has, then [`LoadMessage::Finished`].
    pub fn stop(&self, grace: Duration) {
        let grace_ms = grace.as_millis() as u64;
        self.shared.command.send_replace(Command::Stop { grace_ms });
    }

    /// The next message; none after the last one. Safe to drop half-way.
    pub async fn next(&mut self) -> Option<LoadMessage> {
        let message = self.messages.recv().await;
        if matches!(
            message,
            Some(LoadMessage::Finished(_) | LoadMessage::Lost(_))
        ) {
            self.messages.close();
        }
        message
    }
}

/// 128 bits that only this run knows.
fn token() -> String {
    let mut random = rand::rng();
    format!("{:016x}{:016x}", random.next_u64(), random.next_u64())
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/assignment", get(assignment))
        .route("/ready", post(ready))
        .route("/command", get(command))
        .route("/batch", post(batch))
        .route("/finished", post(finished))
        .route("/failed", post(failed))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(&shared), admit))
        .with_state(shared)
}

/// Lets in who shows the token, and notes that it was heard.
async fn admit(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Result<Response, StatusCode> {
    let shown = headers.get(header::AUTHORIZATION);
    let shown = shown.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if shown != Some(shared.token.as_str()) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    shared.hear();
    let response = next.run(request).await;
    shared.hear();
    Ok(response)
}

impl Shared {
    fn hear(&self) {
        *self.heard_ns.lock().unwrap_or_else(PoisonError::into_inner) = mono_ns();
    }

    fn silent_for(&self) -> Duration {
        let heard_ns = *self.heard_ns.lock().unwrap_or_else(PoisonError::into_inner);
        match heard_ns {
            0 => Duration::ZERO,
            _ => Duration::from_nanos(mono_ns().saturating_sub(heard_ns)),
        }
    }
}

async fn assignment(State(shared): State<Arc<Shared>>) -> Json<Assignment> {
    Json(shared.assignment.clone())
}

async fn ready(State(shared): State<Arc<Shared>>, Json(ready): Json<Ready>) -> Json<()> {
    shared.stage.send_replace(Stage::Ready(ready));
    Json(())
}

/// Hangs until there is a command that this worker does not have, or for [`COMMAND_HOLD`].
async fn command(
    State(shared): State<Arc<Shared>>,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
) -> Json<Command> {
    let begun = query.as_deref() == Some("begun");
    let is_news = |command: &Command| match command {
        Command::Wait => false,
        Command::Go { .. } => !begun,
        Command::Stop { .. } => true,
    };
    let mut commands = shared.command.subscribe();
    let news = commands.wait_for(is_news);
    match tokio::time::timeout(COMMAND_HOLD, news).await {
        Ok(Ok(command)) => Json(*command),
        _ => Json(Command::Wait),
    }
}

async fn batch(
    State(shared): State<Arc<Shared>>,
    Json(batch): Json<LoadBatch>,
) -> Result<Json<Acknowledged>, StatusCode> {
    let mut received = shared.received.lock().await;
    // A gap cannot come from this worker, which waits for each acknowledgement.
    if batch.seq > *received + 1 {
        return Err(StatusCode::CONFLICT);
    }
    if batch.seq == *received + 1 {
        // The permit first: a worker that gives up on the answer while this waits must find its
        // batch either passed on and counted, or neither.
        let permit = shared.messages.reserve().await;
        let permit = permit.map_err(|_| StatusCode::GONE)?;
        *received = batch.seq;
        permit.send(LoadMessage::Batch(batch));
    }
    Ok(Json(Acknowledged { seq: *received }))
}

async fn finished(
    State(shared): State<Arc<Shared>>,
    Json(finished): Json<Finished>,
) -> Result<Json<()>, StatusCode> {
    let received = shared.received.lock().await;
    if *shared.stage.borrow() != Stage::Over {
        let permit = shared.messages.reserve().await;
        let permit = permit.map_err(|_| StatusCode::GONE)?;
        shared.stage.send_replace(Stage::Over);
        permit.send(LoadMessage::Finished(finished));
    }
    drop(received);
    Ok(Json(()))
}

async fn failed(State(shared): State<Arc<Shared>>, Json(failed): Json<Failed>) -> Json<()> {
    let before = shared.stage.send_replace(Stage::Failed(failed.why.clone()));
    if matches!(before, Stage::Ready(_)) {
        // A receiver that is gone has no use for it.
        let _ = shared.messages.send(LoadMessage::Lost(failed.why)).await;
    }
    Json(())
}

/// Reports the worker as lost when it was silent for too long before its end.
async fn watch_silence(shared: Arc<Shared>, silence_max: Duration) {
    let mut looks = tokio::time::interval(silence_max / LOOKS_PER_SILENCE);
    loop {
        looks.tick().await;
        let over = matches!(*shared.stage.borrow(), Stage::Over | Stage::Failed(_));
        if over {
            return;
        }
        if shared.silent_for() > silence_max {
            let why = format!("the load worker was silent for {silence_max:?}");
            // A receiver that is gone has no use for it.
            let _ = shared.messages.send(LoadMessage::Lost(why)).await;
            return;
        }
    }
}

#[cfg(test)]
mod tests;
