//! The measurements, each on one subject.

use std::net::SocketAddr;
use std::time::Duration;

use chaos_harness::evidence::clock::mono_ns;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::peer::{ECHO, SEND};
use super::subject::Subject;

/// A subject that does not answer for so long is broken.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much of everything.
pub(crate) struct Size {
    bytes: u64,
    round_trips: usize,
    connections: usize,
    /// Of each toxic, by each caller.
    pub(crate) delays: usize,
}

impl Size {
    /// Enough for figures that can be compared.
    pub(crate) fn full() -> Self {
        Self {
            bytes: 1 << 30,
            round_trips: 5_000,
            connections: 2_000,
            delays: 20,
        }
    }

    /// Enough to see that it works.
    pub(crate) fn quick() -> Self {
        Self {
            bytes: 1 << 26,
            round_trips: 300,
            connections: 100,
            delays: 3,
        }
    }
}

/// One figure per round.
#[derive(Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    pub(crate) fn median(&self) -> f64 {
        quantile(&self.0, 0.5)
    }
}

/// The value below which a share of them lies.
pub(crate) fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let place = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

pub(crate) async fn within<T>(future: impl Future<Output = std::io::Result<T>>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("the subject answers in time")
        .expect("the subject keeps the connection")
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let socket = within(TcpStream::connect(address)).await;
    socket.set_nodelay(true).expect("an open socket");
    socket
}

pub(crate) fn seconds_since(began_ns: u64) -> f64 {
    (mono_ns() - began_ns) as f64 / 1e9
}

/// MB/s of one connection, and the proxy's CPU seconds per GB.
pub(crate) async fn throughput(subject: &Subject, size: &Size) -> (f64, f64) {
    let mut socket = connect(subject.address).await;
    let mut order = vec![SEND];
    order.extend_from_slice(&size.bytes.to_be_bytes());
    let (cpu_before, began_ns) = (subject.cpu_s(), mono_ns());
    within(socket.write_all(&order)).await;
    let mut buffer = vec![0; 256 * 1024];
    let mut received = 0;
    loop {
        match within(socket.read(&mut buffer)).await {
            0 => break,
            length => received += length as u64,
        }
    }
    let took = seconds_since(began_ns);
    assert_eq!(received, size.bytes, "{}: every byte arrives", subject.name);
    let gigabytes = received as f64 / 1e9;
    let cpu = subject.cpu_s() - cpu_before;
    (gigabytes * 1e3 / took, cpu / gigabytes)
}

/// Round trips of 64 bytes, one after another: p50 and p99, microseconds.
pub(crate) async fn rtt(subject: &Subject, size: &Size) -> (f64, f64) {
    let mut socket = connect(subject.address).await;
    within(socket.write_all(&[ECHO])).await;
    let mut bytes = [1; 64];
    let mut times = Vec::with_capacity(size.round_trips);
    for _ in 0..size.round_trips {
        let began_ns = mono_ns();
        within(socket.write_all(&bytes)).await;
        within(socket.read_exact(&mut bytes)).await;
        times.push(seconds_since(began_ns) * 1e6);
    }
    (quantile(&times, 0.5), quantile(&times, 0.99))
}

/// Connections made, used once and closed, one after another.
pub(crate) async fn connections(subject: &Subject, size: &Size) -> f64 {
    let began_ns = mono_ns();
    for _ in 0..size.connections {
        let mut socket = connect(subject.address).await;
        within(socket.write_all(&[ECHO, 1])).await;
        within(socket.read_u8()).await;
    }
    size.connections as f64 / seconds_since(began_ns)
}

/// Resident memory before and with idle connections that each carried a byte, MB.
pub(crate) async fn memory(subject: &Subject, idle: usize) -> (f64, f64) {
    let before = subject.memory_mb();
    let mut open = Vec::with_capacity(idle);
    for _ in 0..idle {
        let mut socket = connect(subject.address).await;
        within(socket.write_all(&[ECHO, 1])).await;
        within(socket.read_u8()).await;
        open.push(socket);
    }
    (before, subject.memory_mb())
}
