//! The proxy server as its users meet it: over its API and its sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod conformance;
mod connections;
mod deadly;
mod http_faults;
mod life;
mod racing_calls;
mod requests;
mod robustness;
mod splice;
mod strange_calls;
mod streams;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use chaos_harness::toxiproxy::wire::{Proxy, ProxyStats, Stream, Toxic};
use chaos_harness::toxiproxy::{Client, Server, ServerOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A wait longer than this is a failed claim.
const DEADLINE: Duration = Duration::from_secs(20);

/// Longer than any test: what it delays or holds moves only by a change.
const NEVER_MS: i64 = 3_600_000;

/// A server of its own for each test, ended with it.
struct Running {
    client: Client,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start() -> Running {
    start_seeded(1).await
}

async fn start_seeded(seed: u64) -> Running {
    let options = ServerOptions {
        host: "127.0.0.1".to_owned(),
        port: 0,
        seed,
        ..ServerOptions::default()
    };
    let server = Server::bind(options).await.expect("a free port");
    let client = Client::new(&format!("http://{}", server.address())).expect("a client");
    let task = tokio::spawn(async move {
        server.run_until(std::future::pending()).await;
    });
    Running { client, task }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// A proxy named `link` to an upstream that the test plays itself.
struct Link {
    running: Running,
    upstream: TcpListener,
    listen: SocketAddr,
}

impl Link {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(settle: impl FnOnce(&mut Proxy)) -> Self {
        let running = start().await;
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut proxy = Proxy::new("link", "127.0.0.1:0", address(&upstream).to_string());
        settle(&mut proxy);
        let listen = running
            .client
            .create(&proxy)
            .await
            .unwrap()
            .listen
            .parse()
            .unwrap();
        Self {
            running,
            upstream,
            listen,
        }
    }

    /// Both ends of a new connection through the proxy.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let caller = TcpStream::connect(self.listen).await.unwrap();
        let (callee, _) = within("the proxy to dial", self.upstream.accept())
            .await
            .unwrap();
        self.stats_when("the connection carries", |stats| stats.current > 0)
            .await;
        (caller, callee)
    }

    /// Sets the toxics and waits until all live connections run them.
    async fn set(&self, toxics: &[Toxic]) {
        let generation = self
            .running
            .client
            .set_toxics("link", toxics)
            .await
            .unwrap()
            .unwrap();
        let confirmed = |stats: &ProxyStats| stats.generation >= generation && stats.confirmed;
        self.stats_when("the set to be confirmed", confirmed).await;
    }

    async fn stats(&self) -> ProxyStats {
        self.running
            .client
            .stats()
            .await
            .unwrap()
            .proxies
            .remove("link")
            .expect("the proxy")
    }

    /// Polls the statistics until the condition holds.
    async fn stats_when(&self, what: &str, holds: impl Fn(&ProxyStats) -> bool) -> ProxyStats {
        within(what, async {
            loop {
                let stats = self.stats().await;
                if holds(&stats) {
                    return stats;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("a bound socket")
}

fn toxic(kind: &str, stream: Stream) -> Toxic {
    Toxic::new(format!("{kind}-{}", stream.as_str()), kind, stream)
}

/// The end that sends in a direction, and the end that receives.
fn ends(stream: Stream, pair: (TcpStream, TcpStream)) -> (TcpStream, TcpStream) {
    match stream {
        Stream::Upstream => pair,
        Stream::Downstream => (pair.1, pair.0),
    }
}

async fn read_exact(socket: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    within("bytes", socket.read_exact(&mut bytes))
        .await
        .expect("bytes and not an end");
    String::from_utf8(bytes).expect("text")
}

/// What is left to read, and how it ends: `None` for a close, else the kind of error.
async fn read_end(socket: &mut TcpStream) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut bytes = Vec::new();
    let read = within("the end", socket.read_to_end(&mut bytes)).await;
    (bytes, read.err().map(|error| error.kind()))
}

/// Sends back what it gets, on every connection, until the test ends.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = address(&listener);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
                    // The peer may be gone already.
                    let _ = writer.shutdown().await;
                }
            });
        }
    });
    address
}
