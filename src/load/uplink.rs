//! The worker's line to its coordinator.
//!
//! Every message is sent until it is answered. How long that may take is the only difference
//! between a local worker (until its standard input ends) and a remote one (15 s of silence).

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::Full;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::http::{Connection, Keep, Target};
use super::wire::{COMMAND_HOLD, SILENCE_MAX};

/// Bound of one exchange with the coordinator.
const EXCHANGE_MAX: Duration = COMMAND_HOLD.saturating_add(Duration::from_secs(6));

/// Pause between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Why the coordinator cannot be talked to any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// It was silent for too long, or the worker's standard input ended.
    #[error("the coordinator is gone")]
    Silent,
    /// It wants nothing of this worker.
    #[error("the coordinator answered `{path}` with {status}")]
    Refused {
        /// What was asked.
        path: &'static str,
        /// The answer.
        status: u16,
    },
    /// It is not the coordinator of this version.
    #[error("the coordinator's answer to `{path}` cannot be read: {why}")]
    Garbled {
        /// What was asked.
        path: &'static str,
        /// Why.
        why: String,
    },
}

/// One connection to the coordinator.
#[derive(Debug)]
pub(crate) struct Uplink {
    connection: Connection,
    authorization: String,
    /// Cancelled when the worker's standard input has ended.
    abandoned: CancellationToken,
    /// How long it may be silent.
    pub(crate) silence_max: Option<Duration>,
}

impl Uplink {
    pub(crate) fn new(target: Target, token: &str, abandoned: CancellationToken) -> Self {
        Self {
            connection: Connection::new(target),
            authorization: format!("Bearer {token}"),
            abandoned,
            silence_max: Some(SILENCE_MAX),
        }
    }

    /// A second line to the same coordinator.
    pub(crate) fn another(&self) -> Self {
        Self {
            connection: Connection::new(self.connection.target().clone()),
            authorization: self.authorization.clone(),
            abandoned: self.abandoned.clone(),
            silence_max: self.silence_max,
        }
    }

    /// Asks for something.
    pub(crate) async fn get<A: DeserializeOwned>(&mut self, path: &'static str) -> Result<A, Gone> {
        self.insist(Method::GET, path, Bytes::new()).await
    }

    /// Says something.
    pub(crate) async fn post<A: DeserializeOwned>(
        &mut self,
        path: &'static str,
        message: &impl Serialize,
    ) -> Result<A, Gone> {
        let body = serde_json::to_vec(message).map_err(|error| Gone::Garbled {
            path,
            why: error.to_string(),
        })?;
        self.insist(Method::POST, path, body.into()).await
    }

    async fn insist<A: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &'static str,
        body: Bytes,
    ) -> Result<A, Gone> {
        let silent_since = Instant::now();
        loop {
            let Ok(request) = self.request(&method, path, body.clone()) else {
                return Err(Gone::Silent);
            };
            let exchange = self.connection.exchange(request, EXCHANGE_MAX, Keep::Body);
            let answer = tokio::select! {
                answer = exchange => answer,
                () = self.abandoned.cancelled() => return Err(Gone::Silent),
            };
            match answer {
                Ok(answer) if answer.status == 200 => {
                    return serde_json::from_slice(&answer.body).map_err(|error| Gone::Garbled {
                        path,
                        why: error.to_string(),
                    });
                }
                Ok(answer) => {
                    let status = answer.status;
                    return Err(Gone::Refused { path, status });
                }
                Err(_)
                    if self
                        .silence_max
                        .is_some_and(|max| silent_since.elapsed() >= max) =>
                {
                    return Err(Gone::Silent);
                }
                Err(_) => tokio::time::sleep(TRY_AGAIN).await,
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let target = self.connection.target();
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", target.prefix))
            .header(HOST, &target.authority)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
    }
}
