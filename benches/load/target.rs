//! The trivial target: answers every request at once, and can be frozen as a whole.
//!
//! One thread at nice +5, as the services of a run are: the worker is scheduled first.

use std::convert::Infallible;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use chaos_harness::evidence::clock::mono_ns;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::bare;

const NICE: i32 = 5;

/// A running target.
pub(crate) struct Target {
    pub(crate) url: String,
    freezes: tokio::sync::mpsc::UnboundedSender<Freeze>,
}

struct Freeze {
    from_ns: u64,
    lasts: Duration,
    logged: mpsc::Sender<(u64, u64)>,
}

impl Target {
    pub(crate) fn start() -> Self {
        let (freezes, orders) = tokio::sync::mpsc::unbounded_channel();
        let (url_in, url) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be built");
            runtime.block_on(serve(url_in, orders));
        });
        let url = url.recv().expect("the target says where it listens");
        Self { url, freezes }
    }

    /// Freezes the target at a CLOCK_MONOTONIC instant; the instants between which it really was
    /// will be told.
    pub(crate) fn freeze(&self, from_ns: u64, lasts: Duration) -> mpsc::Receiver<(u64, u64)> {
        let (logged, log) = mpsc::channel();
        let freeze = Freeze {
            from_ns,
            lasts,
            logged,
        };
        self.freezes.send(freeze).expect("the target runs");
        log
    }
}

async fn serve(
    url: mpsc::Sender<String>,
    mut orders: tokio::sync::mpsc::UnboundedReceiver<Freeze>,
) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    url.send(format!("http://{address}"))
        .expect("the benchmark waits for it");
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let _ = stream.set_nodelay(true);
                let connection = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                tokio::spawn(async move { let _ = connection.await; });
            }
            order = orders.recv() => match order {
                Some(order) => { tokio::spawn(freeze(order)); }
                None => return,
            }
        }
    }
}

async fn answer(_: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
}

/// Blocks the one thread that everything here runs on: a process that is stopped.
async fn freeze(order: Freeze) {
    let ahead = Duration::from_nanos(order.from_ns.saturating_sub(mono_ns()));
    tokio::time::sleep(ahead).await;
    let frozen_ns = mono_ns();
    bare::sleep_until(frozen_ns + order.lasts.as_nanos() as u64);
    let thawed_ns = mono_ns();
    let _ = order.logged.send((frozen_ns, thawed_ns));
}
