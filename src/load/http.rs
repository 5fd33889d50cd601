//! One HTTP/1.1 connection, used over and over: what a user of the load sends its requests on, and
//! what the worker talks to its coordinator with.
//!
//! Raw hyper instead of a pooled client: half the CPU per request, no environment variable can
//! send it through a proxy, and the clock stops at the end of the body. It never retries a request
//! that may have been sent.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

/// Bodies beyond this are no answers.
const BODY_BYTES_MAX: usize = 16 << 20;

/// An answer, its body read to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Empty unless it was asked for.
    pub(crate) body: Bytes,
}

/// Why there is no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Not answered in full in time.
    #[error("timeout")]
    Timeout,
    /// No connection could be opened.
    #[error("connect")]
    Connect,
    /// The peer reset the connection.
    #[error("reset")]
    Reset,
    /// The peer closed the connection before it answered.
    #[error("closed")]
    Closed,
    /// The answer broke off, was too long, or was no HTTP.
    #[error("body")]
    Body,
}

/// Whether the body is kept or only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Body,
    Nothing,
}

/// Host and port of a base URL, and the path in front of every request's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `127.0.0.1:4711`: what is dialled, and the `Host` header.
    pub(crate) authority: String,
    /// `` or `/api`, without a slash at the end.
    pub(crate) prefix: String,
}

impl Target {
    /// Reads `http://HOST:PORT[/PREFIX]`; the error is a phrase.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let bad = || format!("`{url}` is no URL such as `http://127.0.0.1:4711`");
        let uri: http::Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        if uri.scheme_str() != Some("http") || authority.host().is_empty() {
            return Err(bad());
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self {
            authority: format!("{}:{port}", authority.host()),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// A connection that is opened when it is needed.
#[derive(Debug)]
pub(crate) struct Connection {
    target: Target,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        // An exchange that was given up on must not linger on the wire.
        self.driver.abort();
    }
}

impl Connection {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, open: None }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Opens the connection unless it is open.
    pub(crate) async fn open(&mut self, within: Duration) -> Result<(), Error> {
        timeout_at(Instant::now() + within, self.ready())
            .await
            .unwrap_or(Err(Error::Timeout))
    }

    /// Sends a request and reads its answer to the end of the body, all within `within`. A
    /// connection whose exchange failed, or was cut by dropping this future, is not used again.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        within: Duration,
        keep: Keep,
    ) -> Result<Answer, Error> {
        let deadline = Instant::now() + within;
        let answer = timeout_at(deadline, self.send(request, keep)).await;
        answer.unwrap_or(Err(Error::Timeout))
    }

    async fn send(&mut self, request: Request<Full<Bytes>>, keep: Keep) -> Result<Answer, Error> {
        let mut request = request;
        // A kept-alive connection may turn out to be closed: hyper hands back what it did not
        // begin to send, and a fresh connection takes it. Twice would be a peer that hangs up.
        for fresh in [false, true] {
            self.ready().await?;
            // Taken, so that a future that is dropped half-way leaves no half-used connection.
            let Some(mut open) = self.open.take() else {
                return Err(Error::Connect);
            };
            match open.sender.try_send_request(request).await {
                Ok(response) => {
                    let answer = read(response, keep).await?;
                    self.open = Some(open);
                    return Ok(answer);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    _ => return Err(classify(error.error())),
                },
            }
        }
        Err(Error::Closed)
    }

    /// Leaves an open, idle connection behind.
    async fn ready(&mut self) -> Result<(), Error> {
        if let Some(open) = &mut self.open
            && !open.sender.is_closed()
            && open.sender.ready().await.is_ok()
        {
            return Ok(());
        }
        self.open = None;
        let stream = TcpStream::connect(&self.target.authority)
            .await
            .map_err(|_| Error::Connect)?;
        stream.set_nodelay(true).map_err(|_| Error::Connect)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Error::Connect)?;
        // How the connection ends is told to whoever waits for an answer on it.
        let driver = tokio::spawn(async move {
            let _ = driver.await;
        });
        let driver = driver.abort_handle();
        self.open = Some(Open { sender, driver });
        Ok(())
    }
}

async fn read(response: http::Response<Incoming>, keep: Keep) -> Result<Answer, Error> {
    let status = response.status().as_u16();
    let mut incoming = response.into_body();
    let mut body = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| match classify(&error) {
            // The headers were there: the answer broke off.
            Error::Closed => Error::Body,
            other => other,
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        length += data.len();
        if length > BODY_BYTES_MAX {
            return Err(Error::Body);
        }
        if keep == Keep::Body {
            body.extend_from_slice(data);
        }
    }
    let body = body.freeze();
    Ok(Answer { status, body })
}

fn classify(error: &hyper::Error) -> Error {
    use std::error::Error as _;
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>());
    match io.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe) => Error::Reset,
        Some(std::io::ErrorKind::ConnectionAborted) => Error::Reset,
        Some(std::io::ErrorKind::UnexpectedEof) => Error::Closed,
        _ if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {
            Error::Closed
        }
        _ => Error::Body,
    }
}
