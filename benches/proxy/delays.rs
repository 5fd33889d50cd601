//! How exact the delays are: how far each timing toxic is off what it was told, beside the real server.
//!
//! Every event begins with bytes that the caller writes, and ends with what comes back: a byte, an end, a
//! reset. So both servers pay for the same way there and back.

use chaos_harness::evidence::clock::mono_ns;
use chaos_harness::toxiproxy::wire::{Stream, Toxic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::measure::{connect, seconds_since, within};
use super::peer::{ECHO, SEND};
use super::subject::Subject;

/// What every toxic is told to do, ms.
const DELAY_MS: u16 = 50;

/// Connections at a time: enough to meet, too few to keep the machine busy.
const CALLERS: usize = 8;

/// A timing toxic, and what a connection under it shows.
pub(crate) struct Timed {
    kind: &'static str,
    attributes: &'static [(&'static str, u32)],
    shows: Shows,
}

/// What the delay is measured by.
#[derive(Clone, Copy)]
enum Shows {
    /// An answer of so many bytes comes late.
    Answer(usize),
    /// The second half of so many bytes comes later than the first.
    SecondHalf(usize),
    /// The end comes late after the upstream's.
    LateEnd,
    /// The connection ends so long after an answer that was swallowed.
    Cut,
}

/// Each of them with a delay of [`DELAY_MS`].
pub(crate) const ALL: [Timed; 6] = [
    Timed {
        kind: "latency",
        attributes: &[("latency", DELAY_MS as u32)],
        shows: Shows::Answer(1),
    },
    Timed {
        kind: "bandwidth",
        attributes: &[("rate", 20)],
        shows: Shows::Answer(20 * DELAY_MS as usize),
    },
    Timed {
        kind: "slicer",
        attributes: &[("average_size", 1000), ("delay", DELAY_MS as u32 * 1000)],
        shows: Shows::SecondHalf(2000),
    },
    Timed {
        kind: "slow_close",
        attributes: &[("delay", DELAY_MS as u32)],
        shows: Shows::LateEnd,
    },
    Timed {
        kind: "timeout",
        attributes: &[("timeout", DELAY_MS as u32)],
        shows: Shows::Cut,
    },
    Timed {
        kind: "reset_peer",
        attributes: &[("timeout", DELAY_MS as u32)],
        shows: Shows::Cut,
    },
];

impl Timed {
    /// The name of its toxic.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// How far each delay is off, ms.
    pub(crate) async fn errors(&self, subject: &Subject, each: usize) -> Vec<f64> {
        let mut toxic = Toxic::new("timed", self.kind, Stream::Downstream);
        for (name, value) in self.attributes {
            toxic = toxic.with(name, *value);
        }
        subject.add(&toxic).await;
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (address, shows) = (subject.address, self.shows);
            callers.spawn(async move {
                let mut seen = Vec::with_capacity(each);
                for _ in 0..each {
                    seen.push(shows.delay_ms(address).await);
                }
                seen
            });
        }
        let seen = callers.join_all().await.concat();
        subject.remove(&toxic).await;
        let error = |delay: f64| (delay - f64::from(DELAY_MS)).abs();
        seen.into_iter().map(error).collect()
    }
}

impl Shows {
    /// One delay on a connection of its own, ms.
    async fn delay_ms(self, address: std::net::SocketAddr) -> f64 {
        let mut socket = connect(address).await;
        let mut bytes = vec![1; 4096];
        match self {
            Self::Answer(length) => {
                bytes[0] = ECHO;
                let began_ns = mono_ns();
                within(socket.write_all(&bytes[..=length])).await;
                within(socket.read_exact(&mut bytes[..length])).await;
                seconds_since(began_ns) * 1e3
            }
            Self::SecondHalf(length) => {
                bytes[0] = ECHO;
                within(socket.write_all(&bytes[..=length])).await;
                within(socket.read_exact(&mut bytes[..length / 2])).await;
                let began_ns = mono_ns();
                within(socket.read_exact(&mut bytes[..1])).await;
                seconds_since(began_ns) * 1e3
            }
            Self::LateEnd => {
                let mut order = vec![SEND];
                order.extend_from_slice(&0u64.to_be_bytes());
                let began_ns = mono_ns();
                within(socket.write_all(&order)).await;
                until_the_end(&mut socket).await;
                seconds_since(began_ns) * 1e3
            }
            Self::Cut => {
                let began_ns = mono_ns();
                within(socket.write_all(&[ECHO, 1])).await;
                until_the_end(&mut socket).await;
                seconds_since(began_ns) * 1e3
            }
        }
    }
}

/// Reads until the connection is closed or reset.
async fn until_the_end(socket: &mut tokio::net::TcpStream) {
    let mut bytes = [0; 64];
    within(async {
        while matches!(socket.read(&mut bytes).await, Ok(length) if length > 0) {}
        Ok(())
    })
    .await;
}

/// An echo of 8 MB through `latency` 200, which must not cap what goes through, s.
pub(crate) async fn large_echo(subject: &Subject) -> f64 {
    const BYTES: usize = 8_000_000;
    let toxic = Toxic::new("timed", "latency", Stream::Downstream).with("latency", 200);
    subject.add(&toxic).await;
    let socket = connect(subject.address).await;
    let (mut reader, mut writer) = socket.into_split();
    let began_ns = mono_ns();
    let sends = tokio::spawn(async move {
        within(writer.write_all(&[ECHO])).await;
        within(writer.write_all(&vec![1; BYTES])).await;
        writer
    });
    let mut bytes = vec![0; BYTES];
    within(reader.read_exact(&mut bytes)).await;
    let took = seconds_since(began_ns);
    drop(sends.await);
    drop(reader);
    subject.remove(&toxic).await;
    took
}
