//! The HTTP server under the API: accepts connections, gives each a task, closes those that are idle.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Api, answer};

/// How long a connection may take until its next request is read, as with the original.
const IDLE: Duration = Duration::from_secs(60);

/// How long to wait when nothing can be accepted, mostly because the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers on this listener until it is dropped, and every connection with it.
pub(super) async fn serve(api: Api, listener: TcpListener) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connection(api.clone(), stream))),
            Err(error) => {
                tracing::warn!(%error, "Cannot accept a connection to the API");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(api: Api, stream: TcpStream) {
    // Answers are small; a socket that refuses the option still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(answer(api, request.map(Body::new)).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "A connection to the API ended early");
    }
}
