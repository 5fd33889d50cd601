//! The HTTP server under the API: accepts connections, gives each a task, closes those that are idle and
//! those whose peer does not read.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

use super::{Api, answer};

/// How long callers are waited for.
#[derive(Clone, Copy)]
struct Limits {
    /// Until the head of the next request is read; the original keeps an idle connection as long.
    idle: Duration,
    /// Until it reads on; the original gives as long for all of an answer.
    unread: Duration,
}

const LIMITS: Limits = Limits {
    idle: Duration::from_secs(60),
    unread: Duration::from_secs(30),
};

/// How long to wait when nothing can be accepted, mostly because the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers on this listener until it is dropped, and every connection with it.
pub(super) async fn serve(api: Api, listener: TcpListener) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connection(api.clone(), stream, LIMITS))),
            Err(error) => {
                tracing::warn!(%error, "Cannot accept a connection to the API");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(api: Api, stream: TcpStream, limits: Limits) {
    // Answers are small; a socket that refuses the option still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(answer(api, request.map(Body::new)).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .serve_connection(TokioIo::new(Patient::new(stream, limits.unread)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "A connection to the API ended early");
    }
}

/// A connection on which a write fails when nothing of it is taken for too long.
struct Patient {
    stream: TcpStream,
    patience: Duration,
    /// Runs while a write waits.
    runs_out: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            runs_out: None,
        }
    }

    fn within<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream), cx);
        if written.is_ready() {
            self.runs_out = None;
            return written;
        }
        let patience = self.patience;
        let runs_out = self
            .runs_out
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        let late = || Err(io::ErrorKind::TimedOut.into());
        runs_out.as_mut().poll(cx).map(|()| late())
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.within(cx, |stream, cx| stream.poll_write(cx, data))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.within(cx, |stream, cx| stream.poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.within(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.within(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt as _;
    use tokio::time::timeout;

    use super::*;
    use crate::toxiproxy::api::Offered;
    use crate::toxiproxy::engine::Engine;
    use crate::toxiproxy::wire::Proxy;

    /// The two ends of a connection: the caller's, then the server's.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap());
        let (caller, accepted) = tokio::join!(caller, listener.accept());
        (caller.unwrap(), accepted.unwrap().0)
    }

    /// Asks again and again for an answer of 64 KiB and reads none, until nothing more can be sent.
    async fn ask(stream: &mut TcpStream) {
        while stream
            .write_all(b"GET /proxies HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .is_ok()
        {}
    }

    #[tokio::test]
    async fn caller_that_never_reads_is_given_up() {
        let engine = Arc::new(Engine::new(0));
        let mut large = Proxy::new("n".repeat(65_536), "127.0.0.1:0", "u:1");
        large.enabled = false;
        engine.create(&large).await.unwrap();
        let api = Api::new(engine, Offered::default(), None);
        let (mut caller, stream) = pair().await;
        let unread = Duration::from_millis(20);
        let served = connection(api, stream, Limits { unread, ..LIMITS });
        let both = async { tokio::join!(served, ask(&mut caller)) };
        timeout(Duration::from_secs(20), both)
            .await
            .expect("the connection ends");
    }

    #[tokio::test]
    async fn caller_that_never_ends_its_request_is_given_up() {
        let engine = Arc::new(Engine::new(0));
        let api = Api::new(engine, Offered::default(), None);
        let (mut caller, stream) = pair().await;
        caller.write_all(b"GET /version HT").await.unwrap();
        let idle = Duration::from_millis(20);
        timeout(
            Duration::from_secs(20),
            connection(api, stream, Limits { idle, ..LIMITS }),
        )
        .await
        .expect("the connection ends");
    }
}
