//! What must not end, stall or corrupt the proxy: toxics that come and go under many live connections,
//! peers of every bad kind, and no descriptors.
//!
//! `PROXY_SOAK_S=60 cargo test --test it live_connections` runs the first for as long as that.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use chaos_harness::evidence::clock::mono_ns;
use chaos_harness::toxiproxy::Client;
use chaos_harness::toxiproxy::wire::{Proxy, Stream, Toxic};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{DEADLINE, Link, NEVER_MS, echo, read_end, read_exact, toxic, within};
use crate::support::chaos;

const CONNECTIONS: u64 = 200;

/// Changes of the short run.
const CHANGES: usize = 80;

/// A set of toxics that promise to lose, double and move nothing.
fn harmless_set(rng: &mut ChaCha8Rng) -> Vec<Toxic> {
    let kinds = [
        "latency",
        "bandwidth",
        "slicer",
        "loss",
        "stall",
        "slow_close",
        "slow_open",
        "noop",
    ];
    let mut set = Vec::new();
    for stream in [Stream::Upstream, Stream::Downstream] {
        for kind in kinds {
            if !rng.random_bool(0.2) {
                continue;
            }
            let mut toxic = toxic(kind, stream);
            toxic.toxicity = [0.3, 1.0][rng.random_range(0..2)];
            set.push(match kind {
                "latency" => toxic
                    .with("latency", rng.random_range(0..20))
                    .with("jitter", 10)
                    .with("distribution", "pareto"),
                "bandwidth" => toxic
                    .with("rate", rng.random_range(0..50_000))
                    .with("shared", rng.random_bool(0.5)),
                "slicer" => toxic.with("average_size", rng.random_range(100..9000)),
                "loss" => toxic.with("share", 0.1).with("timeout", 5),
                "slow_close" | "slow_open" => toxic.with("delay", 5),
                _ => toxic,
            });
        }
    }
    // A quiet time now and then, in which connections may go inside the kernel.
    if rng.random_bool(0.3) {
        set.clear();
    }
    set
}

/// Sends bytes drawn from the connection's number until told to stop, and compares what comes back.
async fn checksummed(listen: SocketAddr, number: u64, stop: Arc<AtomicBool>, sum: Arc<AtomicU64>) {
    let (mut reader, mut writer) = TcpStream::connect(listen).await.unwrap().into_split();
    let counted = Arc::clone(&sum);
    let sending = tokio::spawn(async move {
        let mut rng = ChaCha8Rng::seed_from_u64(number);
        let mut digest = Sha256::new();
        let mut chunk = vec![0; 12_000];
        while !stop.load(Ordering::Acquire) {
            let length = rng.random_range(1..chunk.len());
            rng.fill(&mut chunk[..length]);
            writer.write_all(&chunk[..length]).await.unwrap();
            digest.update(&chunk[..length]);
            counted.fetch_add(length as u64, Ordering::Relaxed);
            // All of them together must leave room for the calls that change the toxics.
            tokio::task::yield_now().await;
        }
        writer.shutdown().await.unwrap();
        digest.finalize()
    });
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer).await.unwrap() {
            0 => break,
            length => digest.update(&buffer[..length]),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(
        digest.finalize(),
        sending.await.unwrap(),
        "connection {number}"
    );
}

/// Seconds of the long run, if one is wanted.
#[expect(
    clippy::disallowed_methods,
    reason = "the test runner passes nothing else on"
)]
fn soak_ns() -> u64 {
    let seconds = std::env::var("PROXY_SOAK_S");
    let seconds = seconds.ok().and_then(|text| text.parse::<u64>().ok());
    seconds.unwrap_or(0) * 1_000_000_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_connections_stay_exact_under_seeded_changes() {
    let server = standalone();
    let client = Client::new(&server.api).unwrap();
    let proxy = Proxy::new("link", "127.0.0.1:0", echo().await.to_string());
    let listen = client.create(&proxy).await.unwrap().listen;
    let listen: SocketAddr = listen.parse().unwrap();
    let (stop, sum) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let streams: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let stream = checksummed(listen, number, Arc::clone(&stop), Arc::clone(&sum));
            tokio::spawn(stream)
        })
        .collect();
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let (until_ns, mut changes) = (mono_ns() + soak_ns(), 0);
    while changes < CHANGES || mono_ns() < until_ns {
        let carried = sum.load(Ordering::Relaxed);
        let set = harmless_set(&mut rng);
        let is_quiet = set.is_empty();
        // On a starved machine a call may run into its time-out; the set is the same when it comes again.
        within("a change", async {
            while client.set_toxics("link", &set).await.is_err() {}
        })
        .await;
        changes += 1;
        // Sets that let bytes pass are left until some did.
        if is_quiet {
            within("bytes to pass", async {
                while sum.load(Ordering::Relaxed) == carried {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }
    within("the reset", async {
        while client.reset().await.is_err() {}
    })
    .await;
    stop.store(true, Ordering::Release);
    for stream in streams {
        tokio::time::timeout(3 * DEADLINE, stream)
            .await
            .expect("a stream ends")
            .unwrap();
    }
    let stats = client.stats().await.unwrap();
    let bytes = &stats.proxies["link"].bytes;
    assert_eq!(bytes.upstream_sent, sum.load(Ordering::Relaxed));
    assert_eq!(bytes.downstream_sent, bytes.upstream_sent);
}

#[tokio::test]
async fn late_opening_ends_with_its_toxic_and_counts() {
    let link = Link::new().await;
    link.set(&[toxic("slow_open", Stream::Upstream).with("delay", NEVER_MS)])
        .await;
    let mut caller = TcpStream::connect(link.listen).await.unwrap();
    caller.write_all(b"early").await.unwrap();
    link.stats_when("the delay", |stats| {
        let toxic = &stats.toxics["slow_open-upstream"];
        (toxic.connections, toxic.delayed_chunks) == (1, 1)
    })
    .await;
    link.set(&[]).await;
    let (mut callee, _) = within("the dial", link.upstream.accept()).await.unwrap();
    assert_eq!(read_exact(&mut callee, 5).await, "early");
}

#[tokio::test]
async fn limited_time_closes_both_sides_of_an_idle_connection() {
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    link.running
        .client
        .set_toxics(
            "link",
            &[toxic("limit_time", Stream::Downstream).with("time", 1)],
        )
        .await
        .unwrap();
    assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
    assert_eq!(read_end(&mut callee).await, (Vec::new(), None));
}

#[tokio::test]
async fn vanished_and_flooding_peers_leave_the_others_alone() {
    let link = Link::new().await;
    let (mut steady, mut steady_callee) = link.connect().await;
    link.set(&[toxic("latency", Stream::Upstream).with("latency", 1)])
        .await;
    let mut flooding = Vec::new();
    for _ in 0..10 {
        let (mut caller, callee) = link.connect().await;
        flooding.push(tokio::spawn(async move {
            // Its callee never reads, so at some time it can write no more.
            let flood = async { while caller.write_all(&[0; 65_536]).await.is_ok() {} };
            let _ = tokio::time::timeout(Duration::from_millis(300), flood).await;
            (caller, callee)
        }));
        let (gone, kept) = link.connect().await;
        gone.set_zero_linger().unwrap();
        drop((gone, kept));
    }
    for word in ["one", "two", "three"] {
        steady.write_all(word.as_bytes()).await.unwrap();
        assert_eq!(read_exact(&mut steady_callee, word.len()).await, word);
    }
    for flood in flooding {
        drop(within("a flood", flood).await.unwrap());
    }
    let alone = link.stats_when("the others to be gone", |stats| stats.connections.open == 1);
    alone.await;
    steady.write_all(b"still").await.unwrap();
    assert_eq!(read_exact(&mut steady_callee, 5).await, "still");
}

/// Does something to one end of a connection, without waiting for the other; what is left of it.
async fn disturb(mut socket: TcpStream, rng: &mut ChaCha8Rng) -> Option<TcpStream> {
    // Whatever the peer has done, nothing here needs to succeed.
    match rng.random_range(0..8) {
        0 => {
            let _ = socket.set_zero_linger();
            return None;
        }
        1 => return None,
        2 => drop(socket.shutdown().await),
        3 | 4 => drop(socket.try_read(&mut vec![0; 200_000])),
        _ => drop(socket.try_write(&vec![7; rng.random_range(1..400_000)])),
    }
    tokio::task::yield_now().await;
    Some(socket)
}

#[tokio::test]
async fn connection_ends_with_its_peers_whatever_they_did_before() {
    let link = Link::new().await;
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for _ in 0..100 {
        let set = harmless_set(&mut rng);
        link.set(&set).await;
        let caller = TcpStream::connect(link.listen).await.unwrap();
        let (callee, _) = within("the dial", link.upstream.accept()).await.unwrap();
        let mut ends = [Some(caller), Some(callee)];
        for _ in 0..20 {
            let end = &mut ends[rng.random_range(0..2)];
            if let Some(socket) = end.take() {
                *end = disturb(socket, &mut rng).await;
            }
        }
    }
    link.set(&[]).await;
    link.stats_when("all connections to end", |stats| {
        stats.connections.open == 0
    })
    .await;
}

/// `chaos proxy` as its users start it, ended with the test.
pub(super) struct Standalone {
    pub(super) child: Child,
    pub(super) api: String,
    log: Receiver<String>,
}

impl Drop for Standalone {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the test is the proxy's parent")]
pub(super) fn standalone() -> Standalone {
    let mut child = Command::new(chaos())
        .args(["proxy", "--port", "0", "--host", "127.0.0.1", "--seed", "3"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let announced = lines.next().unwrap().unwrap();
    let announced: serde_json::Value = serde_json::from_str(&announced).unwrap();
    let api = format!("http://{}", announced["address"].as_str().unwrap());
    let (sender, log) = channel();
    std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .all(|line| sender.send(line).is_ok())
    });
    Standalone { child, api, log }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_without_descriptors_says_so_and_goes_on() {
    const LIMIT: u64 = 64;
    let proxy = standalone();
    let client = Client::new(&proxy.api).unwrap();
    let link = Proxy::new("link", "127.0.0.1:0", echo().await.to_string());
    let listen = client.create(&link).await.unwrap().listen;
    let pid = Pid::from_child(&proxy.child);
    let few = Rlimit {
        current: Some(LIMIT),
        maximum: Some(LIMIT),
    };
    prlimit(Some(pid), Resource::Nofile, few).unwrap();
    let mut callers = Vec::new();
    for _ in 0..2 * LIMIT {
        callers.push(TcpStream::connect(&listen).await.unwrap());
    }
    within("word of it", async {
        while !proxy
            .log
            .try_iter()
            .any(|line| line.contains("cannot be accepted"))
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(callers);
    within("a connection that carries", async {
        loop {
            let mut caller = TcpStream::connect(&listen).await.unwrap();
            let mut answer = [0; 4];
            // Those that came while there was nothing left are turned away.
            let sent = caller.write_all(b"ping").await.is_ok();
            if sent && caller.read_exact(&mut answer).await.is_ok() {
                return assert_eq!(&answer, b"ping");
            }
        }
    })
    .await;
    within("the API", async {
        while client.version().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
