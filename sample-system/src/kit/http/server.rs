//! Listening, and stopping within a deadline.
//!
//! axum's graceful shutdown waits for ever for its last connection, so everything here is bounded: after
//! the deadline, or a second signal, what is left is cut and counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How many requests are being worked on.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<AtomicU64>);

impl InFlight {
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn enter(&self) -> Entered {
        self.0.fetch_add(1, Ordering::SeqCst);
        Entered(Arc::clone(&self.0))
    }
}

struct Entered(Arc<AtomicU64>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What became of the requests that were being worked on when the service was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drained {
    /// In flight at the signal.
    pub(crate) at_signal: u64,
    /// Not finished when time was up.
    pub(crate) cut: u64,
}

/// Listens at `address`.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Counts the requests of `router`.
pub(crate) fn counted(router: Router, in_flight: &InFlight) -> Router {
    let in_flight = in_flight.clone();
    router.layer(from_fn(move |request: Request, next: Next| {
        let entered = in_flight.enter();
        async move {
            let response = next.run(request).await;
            drop(entered);
            response
        }
    }))
}

/// Serves until `stop`, then finishes what is in flight. Never returns before all is finished, so put a
/// time-out around it.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

/// Waits until nothing is in flight, for at most `limit`.
pub(crate) async fn drain(in_flight: &InFlight, limit: Duration) -> u64 {
    let empty = async {
        while in_flight.now() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    drop(tokio::time::timeout(limit, empty).await);
    in_flight.now()
}
