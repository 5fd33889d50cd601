//! No byte is lost, doubled or moved while toxics come and go.

use chaos_harness::toxiproxy::wire::{Proxy, Stream, Toxic};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{DEADLINE, Running, echo, start, within};

const LENGTH: usize = 1 << 20;
const CONNECTIONS: u8 = 8;

/// The bytes of one connection: a period that no buffer size divides.
fn payload(connection: u8) -> Vec<u8> {
    (0..LENGTH)
        .map(|place| (place % 251) as u8 ^ connection)
        .collect()
}

/// A set of toxics that promise to lose nothing.
fn harmless_set(rng: &mut ChaCha8Rng) -> Vec<Toxic> {
    let mut toxics = Vec::new();
    for stream in [Stream::Upstream, Stream::Downstream] {
        for kind in [
            "latency",
            "slicer",
            "noop",
            "stall",
            "bandwidth",
            "slow_close",
        ] {
            if rng.random_bool(0.3) {
                let toxic = Toxic::new(format!("{kind}-{}", stream.as_str()), kind, stream);
                toxics.push(match kind {
                    "latency" => toxic
                        .with("latency", rng.random_range(0..5))
                        .with("jitter", 3),
                    "slicer" => toxic.with("average_size", rng.random_range(100..9000)),
                    "bandwidth" => toxic.with("rate", rng.random_range(0..1_000_000)),
                    "slow_close" => toxic.with("delay", 1),
                    _ => toxic,
                });
            }
        }
    }
    // The order is a part of the set, and changes too.
    let turn = rng.random_range(0..=toxics.len());
    toxics.rotate_left(turn);
    toxics
}

async fn through(listen: String, connection: u8) {
    let socket = TcpStream::connect(&listen).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let sent = payload(connection);
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    within("the echo", reader.read_to_end(&mut received))
        .await
        .unwrap();
    sending.await.unwrap();
    assert_eq!(received.len(), expected.len());
    let differs = received
        .iter()
        .zip(&expected)
        .position(|(got, sent)| got != sent);
    assert_eq!(differs, None, "first wrong byte of connection {connection}");
}

async fn link() -> (Running, String) {
    let running = start().await;
    let proxy = Proxy::new("link", "127.0.0.1:0", echo().await.to_string());
    let listen = running.client.create(&proxy).await.unwrap().listen;
    (running, listen)
}

#[tokio::test]
async fn bytes_are_exact_under_changing_sets_of_toxics() {
    let (running, listen) = link().await;
    let streams: Vec<_> = (0..CONNECTIONS)
        .map(|number| tokio::spawn(through(listen.clone(), number)))
        .collect();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for _ in 0..150 {
        running
            .client
            .set_toxics("link", &harmless_set(&mut rng))
            .await
            .unwrap();
    }
    running.client.reset().await.unwrap();
    for stream in streams {
        within("a stream", stream).await.unwrap();
    }
}

#[tokio::test]
async fn latency_does_not_cap_throughput() {
    let (running, listen) = link().await;
    let toxic = Toxic::new("far", "latency", Stream::Downstream).with("latency", 6_000);
    running.client.set_toxics("link", &[toxic]).await.unwrap();
    // One after another, the four chunks of a megabyte at least would be there after the deadline.
    let many: Vec<_> = (0..CONNECTIONS)
        .map(|number| tokio::spawn(through(listen.clone(), number)))
        .collect();
    for stream in many {
        tokio::time::timeout(DEADLINE, stream)
            .await
            .unwrap()
            .unwrap();
    }
    let stats = running.client.stats().await.unwrap();
    let delayed = &stats.proxies["link"].toxics["far"];
    assert!(delayed.delayed_bytes > 0);
    assert_eq!(delayed.connections, u64::from(CONNECTIONS));
}
