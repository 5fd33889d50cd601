//! What hangs or ends the original, thrown at ours again and again while another link carries traffic.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use chaos_harness::toxiproxy::wire::{Proxy, ProxyUpdate, Stream, Toxic};
use chaos_harness::toxiproxy::{Client, ClientError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{NEVER_MS, address, echo, start, toxic, within};

/// How often everything is done.
const ROUNDS: u32 = 100;

/// What the server promises of every call, whatever its connections do.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// Bytes that a caller leaves unread.
const FLOOD: u64 = 4 << 20;

/// A toxic that ends the process of the original, given one byte.
fn deadly_toxics() -> Vec<Toxic> {
    let slicer = || toxic("slicer", Stream::Downstream);
    vec![
        slicer(),
        slicer().with("average_size", 10).with("size_variation", 50),
        toxic("bandwidth", Stream::Downstream).with("rate", -1),
        toxic("latency", Stream::Downstream).with("jitter", i64::MAX),
    ]
}

/// Sends numbered blocks through a link and checks what comes back, until told to stop; answers how many.
fn bystander(listen: String, mut stop: watch::Receiver<bool>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let mut socket = TcpStream::connect(listen).await.unwrap();
        let mut blocks = 0_u64;
        while !*stop.borrow_and_update() {
            let sent: Vec<u8> = blocks.to_le_bytes().repeat(512);
            socket.write_all(&sent).await.unwrap();
            let mut heard = vec![0; sent.len()];
            within("a block", socket.read_exact(&mut heard))
                .await
                .unwrap();
            assert!(sent == heard, "block {blocks} came back changed");
            blocks += 1;
        }
        blocks
    })
}

/// A listener that accepts nothing more: connects to it wait.
pub(super) async fn black_hole() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    let pause = Duration::from_millis(300);
    while let Ok(connected) =
        tokio::time::timeout(pause, TcpStream::connect(address(&listener))).await
    {
        waiting.push(connected.unwrap());
    }
    (listener, waiting)
}

/// Calls of the API, and how long the slowest took.
struct Calls<'a> {
    client: &'a Client,
    slowest: Cell<Duration>,
}

impl Calls<'_> {
    async fn made<T>(&self, call: impl Future<Output = Result<T, ClientError>>) -> T {
        let begun = tokio::time::Instant::now();
        let answer = call.await.unwrap();
        self.slowest.set(self.slowest.get().max(begun.elapsed()));
        answer
    }
}

/// Values that end the process.
async fn deadly_values(calls: &Calls<'_>, listen: &str) {
    for deadly in deadly_toxics() {
        calls.made(calls.client.add_toxic("victim", &deadly)).await;
        let mut caller = TcpStream::connect(listen).await.unwrap();
        caller.write_all(&[7; 4096]).await.unwrap();
        calls.made(calls.client.proxies()).await;
        calls
            .made(calls.client.remove_toxic("victim", &deadly.name))
            .await;
    }
}

/// A caller that does not read, while a toxic goes.
async fn silent_caller(calls: &Calls<'_>, listen: &str) {
    let slow = toxic("latency", Stream::Downstream).with("latency", 1);
    calls.made(calls.client.add_toxic("victim", &slow)).await;
    let mut caller = TcpStream::connect(listen).await.unwrap();
    let flood = async {
        let block = vec![0; 1 << 20];
        while caller.write_all(&block).await.is_ok() {}
    };
    let received = async || {
        let stats = calls.made(calls.client.stats()).await;
        stats.proxies["victim"].bytes.downstream_received
    };
    let before = received().await;
    let remove = async {
        within("the flood", async {
            while received().await < before + FLOOD {
                tokio::task::yield_now().await;
            }
        })
        .await;
        calls
            .made(calls.client.remove_toxic("victim", &slow.name))
            .await;
        calls.made(calls.client.proxies()).await;
    };
    tokio::select! {
        () = flood => {}
        () = remove => {}
    }
}

/// A reset that is an hour away, called off.
async fn late_reset(calls: &Calls<'_>, listen: &str) {
    let late = toxic("reset_peer", Stream::Downstream).with("timeout", NEVER_MS);
    calls.made(calls.client.add_toxic("victim", &late)).await;
    let mut caller = TcpStream::connect(listen).await.unwrap();
    caller.write_all(b"x").await.unwrap();
    calls
        .made(calls.client.remove_toxic("victim", &late.name))
        .await;
}

/// An upstream that does not answer connects, while the proxy is switched off and deleted.
async fn black_holed(calls: &Calls<'_>, upstream: String) {
    let proxy = Proxy::new("hole", "127.0.0.1:0", upstream);
    let listen = calls.made(calls.client.create(&proxy)).await.listen;
    let _callers = (
        TcpStream::connect(&listen).await.unwrap(),
        TcpStream::connect(&listen).await.unwrap(),
    );
    let off = ProxyUpdate {
        enabled: Some(false),
        ..ProxyUpdate::default()
    };
    calls.made(calls.client.update("hole", &off)).await;
    calls.made(calls.client.delete("hole")).await;
}

#[tokio::test]
async fn what_hangs_or_ends_the_original_costs_no_call_and_no_byte_elsewhere() {
    let running = start().await;
    let client = &running.client;
    let upstream = echo().await.to_string();
    let create = async |name: &str| {
        let proxy = Proxy::new(name, "127.0.0.1:0", upstream.clone());
        client.create(&proxy).await.unwrap().listen
    };
    let (victim, other) = (create("victim").await, create("other").await);
    let (stop, stopped) = watch::channel(false);
    let bystander = bystander(other, stopped);
    let (hole, _waiting) = black_hole().await;
    let calls = Calls {
        client,
        slowest: Cell::default(),
    };
    for _ in 0..ROUNDS {
        deadly_values(&calls, &victim).await;
        silent_caller(&calls, &victim).await;
        late_reset(&calls, &victim).await;
        black_holed(&calls, address(&hole).to_string()).await;
    }
    let slowest = calls.slowest.get();
    assert!(slowest <= CALL_LIMIT, "a call took {slowest:?}");
    stop.send(true).unwrap();
    assert!(bystander.await.expect("no byte lost") > 0);
    assert_eq!(client.proxies().await.unwrap().len(), 2);
}
