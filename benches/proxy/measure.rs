//! The measurements, each on one subject.

use std::net::SocketAddr;
use std::time::Duration;

use chaos_harness::evidence::clock::mono_ns;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::peer::{ECHO, ECHO_APART, SEND};
use super::processors::on_processor;
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

    /// What each has more than the one of the same round.
    pub(crate) fn without(&self, base: &Self) -> Self {
        let pairs = self.0.iter().zip(&base.0);
        Self(pairs.map(|(figure, base)| figure - base).collect())
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

/// What is measured of each subject in each round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    RoundTrips,
    Connections,
    Throughput,
}

impl Kind {
    /// In this order.
    pub(crate) const ALL: [Self; 3] = [Self::RoundTrips, Self::Connections, Self::Throughput];

    /// The word on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::RoundTrips => "rtt",
            Self::Connections => "connections",
            Self::Throughput => "throughput",
        }
    }

    /// The figures of one round.
    pub(crate) async fn measure(self, subject: &Subject, size: &Size) -> Vec<(&'static str, f64)> {
        match self {
            Self::RoundTrips => {
                let (p50, p99) = rtt(subject, size).await;
                vec![("RTT p50 us", p50), ("RTT p99 us", p99)]
            }
            Self::Connections => vec![("connections/s", connections(subject, size).await)],
            Self::Throughput => {
                let (rate, cost) = throughput(subject, size).await;
                vec![("MB/s", rate), ("CPU s/GB", cost)]
            }
        }
    }
}

/// MB/s of one connection, and the proxy's CPU seconds per GB.
async fn throughput(subject: &Subject, size: &Size) -> (f64, f64) {
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

/// Round trips of 64 bytes, one after another: p50 and p99, microseconds. Neither end is in a runtime,
/// which would add its own wakes.
async fn rtt(subject: &Subject, size: &Size) -> (f64, f64) {
    let (address, round_trips) = (subject.address, size.round_trips);
    let measured = tokio::task::spawn_blocking(move || {
        on_processor(0, || round_trips_us(address, round_trips))
    });
    let times = within(async { measured.await? }).await;
    (quantile(&times, 0.5), quantile(&times, 0.99))
}

fn round_trips_us(address: SocketAddr, round_trips: usize) -> std::io::Result<Vec<f64>> {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(&[ECHO_APART])?;
    let mut bytes = [1; 64];
    let mut times = Vec::with_capacity(round_trips);
    for _ in 0..round_trips {
        let began_ns = mono_ns();
        socket.write_all(&bytes)?;
        socket.read_exact(&mut bytes)?;
        times.push(seconds_since(began_ns) * 1e6);
    }
    Ok(times)
}

/// Connections made, used once and closed, one after another.
async fn connections(subject: &Subject, size: &Size) -> f64 {
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
