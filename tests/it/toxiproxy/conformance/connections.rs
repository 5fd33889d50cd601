//! What both servers do to connections, as far as it does not depend on time.

use std::io::ErrorKind;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::super::deadly::black_hole;
use super::super::{address, echo, read_end, read_exact, within};
use super::{Kind, Request, Server, on_each};

/// A proxy named `a` of a server, to an upstream that the test plays.
pub(super) struct Link<'a> {
    server: &'a Server,
    upstream: TcpListener,
    listen: String,
}

impl<'a> Link<'a> {
    pub(super) async fn new(server: &'a Server) -> Self {
        Self::on(server, "127.0.0.1:0").await
    }

    async fn on(server: &'a Server, listen: &str) -> Self {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = address(&upstream).to_string();
        let listen = server.proxy("a", listen, &to).await;
        Self {
            server,
            upstream,
            listen,
        }
    }

    /// Both ends of a connection that is known to carry bytes both ways.
    pub(super) async fn connect(&self) -> (TcpStream, TcpStream) {
        let (mut caller, mut callee) = self.dial().await;
        caller.write_all(b"?").await.unwrap();
        assert_eq!(read_exact(&mut callee, 1).await, "?");
        callee.write_all(b"!").await.unwrap();
        assert_eq!(read_exact(&mut caller, 1).await, "!");
        (caller, callee)
    }

    /// Both ends of a connection that was just dialled.
    pub(super) async fn dial(&self) -> (TcpStream, TcpStream) {
        let port = self.listen.rsplit_once(':').unwrap().1;
        let caller = TcpStream::connect(format!("127.0.0.1:{port}"));
        let caller = caller.await.unwrap();
        let (callee, _) = within("the dial", self.upstream.accept()).await.unwrap();
        (caller, callee)
    }

    async fn patch(&self, body: serde_json::Value) {
        self.server
            .done("PATCH", "/proxies/a", &body.to_string())
            .await;
    }

    /// Adds a toxic named `t` to answers.
    pub(super) async fn add(&self, kind: &str, attributes: serde_json::Value) {
        self.add_named("t", kind, attributes).await;
    }

    pub(super) async fn add_named(&self, name: &str, kind: &str, attributes: serde_json::Value) {
        let toxic = json!({ "name": name, "type": kind, "attributes": attributes });
        self.server
            .done("POST", "/proxies/a/toxics", &toxic.to_string())
            .await;
    }

    /// Changes attributes of the toxic named `t`.
    pub(super) async fn update(&self, attributes: serde_json::Value) {
        let toxic = json!({ "attributes": attributes });
        self.server
            .done("PATCH", "/proxies/a/toxics/t", &toxic.to_string())
            .await;
    }

    pub(super) async fn remove(&self) {
        self.server.done("DELETE", "/proxies/a/toxics/t", "").await;
    }

    async fn connect_error(&self) -> Option<ErrorKind> {
        let connected = TcpStream::connect(&self.listen).await;
        connected.err().map(|error| error.kind())
    }
}

/// Whether a connection still carries bytes.
async fn lives((caller, callee): &mut (TcpStream, TcpStream)) -> bool {
    if caller.write_all(b"ping").await.is_err() {
        return false;
    }
    let mut bytes = [0; 4];
    let read = tokio::io::AsyncReadExt::read_exact(callee, &mut bytes);
    within("a byte or the end", read).await.is_ok()
}

#[tokio::test]
async fn standing_still_keeps_connections() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let mut pair = link.connect().await;
        let port = link.listen.rsplit_once(':').unwrap().1;
        for body in [
            json!({}),
            json!({ "enabled": true }),
            json!({ "listen": link.listen }),
            json!({ "listen": format!("localhost:{port}") }),
            json!({ "name": "other" }),
        ] {
            link.patch(body.clone()).await;
            assert!(lives(&mut pair).await, "{:?} {body}", server.kind);
        }
        let upstream = address(&link.upstream).to_string();
        let same = json!([{ "name": "a", "listen": link.listen, "upstream": upstream }]);
        server.done("POST", "/populate", &same.to_string()).await;
        assert!(lives(&mut pair).await, "{:?} populate", server.kind);
        server.done("POST", "/reset", "").await;
        assert!(lives(&mut pair).await, "{:?} reset", server.kind);
    })
    .await;
}

#[tokio::test]
async fn moving_cuts_connections() {
    on_each(async |server| {
        let link = Link::on(&server, "").await;
        let port = link.listen.rsplit_once(':').unwrap().1;
        let pair = link.connect().await;
        link.patch(json!({ "listen": format!("[::]:{port}") }))
            .await;
        let mut pair = pair;
        assert!(lives(&mut pair).await, "{:?} stands still", server.kind);
        // Every interface, written otherwise than it is reported.
        for listen in [format!(":{port}"), format!("0.0.0.0:{port}")] {
            let mut pair = link.connect().await;
            link.patch(json!({ "listen": listen })).await;
            assert!(!lives(&mut pair).await, "{:?} {listen}", server.kind);
        }
        let mut pair = link.connect().await;
        link.patch(json!({ "upstream": "127.0.0.1:1" })).await;
        assert!(!lives(&mut pair).await, "{:?} upstream", server.kind);
    })
    .await;
}

#[tokio::test]
async fn switching_off_closes_both_ends_and_refuses_and_comes_back() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        link.patch(json!({ "enabled": false })).await;
        assert_eq!(
            link.connect_error().await,
            Some(ErrorKind::ConnectionRefused)
        );
        assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
        assert_eq!(read_end(&mut callee).await, (Vec::new(), None));
        link.patch(json!({ "enabled": true })).await;
        assert!(lives(&mut link.connect().await).await);
    })
    .await;
}

#[tokio::test]
async fn deleting_closes_both_ends_and_frees_the_port() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        server.done("DELETE", "/proxies/a", "").await;
        assert_eq!(
            link.connect_error().await,
            Some(ErrorKind::ConnectionRefused)
        );
        assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
        assert_eq!(read_end(&mut callee).await, (Vec::new(), None));
        let again = server.proxy("b", &link.listen, "127.0.0.1:1").await;
        assert_eq!(again, link.listen);
    })
    .await;
}

#[tokio::test]
async fn every_interface_is_reached_by_both_versions_of_ip() {
    on_each(async |server| {
        let link = Link::on(&server, "").await;
        let port: u16 = link.listen.rsplit_once(':').unwrap().1.parse().unwrap();
        for host in ["127.0.0.1", "::1"] {
            let caller = TcpStream::connect((host, port)).await;
            assert!(caller.is_ok(), "{:?} {host}", server.kind);
            within("the dial", link.upstream.accept()).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn caller_of_a_dead_callee_is_accepted_and_closed() {
    on_each(async |server| {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = address(&free).to_string();
        drop(free);
        let listen = server.proxy("a", "127.0.0.1:0", &upstream).await;
        let mut caller = TcpStream::connect(&listen).await.unwrap();
        assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
    })
    .await;
}

#[tokio::test]
async fn removed_latency_flushes_what_waited_in_order() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        link.add("latency", json!({ "latency": 3_600_000 })).await;
        for part in ["one ", "two ", "three"] {
            callee.write_all(part.as_bytes()).await.unwrap();
        }
        link.remove().await;
        assert_eq!(read_exact(&mut caller, 13).await, "one two three");
    })
    .await;
}

#[tokio::test]
async fn bandwidth_of_zero_holds_everything_until_it_goes() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        link.add("bandwidth", json!({ "rate": 0 })).await;
        callee.write_all(b"held").await.unwrap();
        caller.write_all(b"asked").await.unwrap();
        assert_eq!(read_exact(&mut callee, 5).await, "asked");
        link.remove().await;
        assert_eq!(read_exact(&mut caller, 4).await, "held");
    })
    .await;
}

#[tokio::test]
async fn end_of_an_idle_connection_passes_a_bandwidth_of_zero() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, callee) = link.connect().await;
        link.add("bandwidth", json!({ "rate": 0 })).await;
        drop(callee);
        assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
    })
    .await;
}

#[tokio::test]
async fn removed_timeout_closes_and_its_bytes_are_gone() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        link.add("timeout", json!({})).await;
        callee.write_all(b"lost").await.unwrap();
        link.remove().await;
        assert_eq!(read_end(&mut caller).await.0, b"");
    })
    .await;
}

#[tokio::test]
async fn data_limit_is_exact_and_then_closes() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        link.add("limit_data", json!({ "bytes": 10 })).await;
        let (mut caller, mut callee) = link.dial().await;
        callee.write_all(b"0123456").await.unwrap();
        assert_eq!(read_exact(&mut caller, 7).await, "0123456");
        callee.write_all(b"789abc").await.unwrap();
        assert_eq!(read_end(&mut caller).await.0, b"789");
    })
    .await;
}

#[tokio::test]
async fn slicer_loses_nothing() {
    on_each(async |server| {
        let listen = server
            .proxy("a", "127.0.0.1:0", &echo().await.to_string())
            .await;
        let toxic = r#"{"type":"slicer","attributes":{"average_size":10,"size_variation":5}}"#;
        server.done("POST", "/proxies/a/toxics", toxic).await;
        let mut caller = TcpStream::connect(&listen).await.unwrap();
        let text = "0123456789".repeat(100);
        caller.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(read_exact(&mut caller, 1000).await, text);
    })
    .await;
}

#[tokio::test]
async fn toxicity_of_zero_touches_nothing() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let toxic = r#"{"type":"timeout","toxicity":0}"#;
        server.done("POST", "/proxies/a/toxics", toxic).await;
        assert!(lives(&mut link.connect().await).await);
    })
    .await;
}

#[tokio::test]
async fn new_connection_under_reset_peer_is_reset() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        link.add("reset_peer", json!({})).await;
        let (mut caller, mut callee) = link.dial().await;
        callee.write_all(b"x").await.unwrap();
        let reset = Some(ErrorKind::ConnectionReset);
        assert_eq!(read_end(&mut caller).await, (Vec::new(), reset));
    })
    .await;
}

#[tokio::test]
async fn live_connection_is_reset_by_ours_and_closed_by_the_original() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        link.add("reset_peer", json!({})).await;
        callee.write_all(b"x").await.unwrap();
        let end = server.differs("live-reset", None, Some(ErrorKind::ConnectionReset));
        assert_eq!(read_end(&mut caller).await, (Vec::new(), end));
    })
    .await;
}

#[tokio::test]
async fn reset_of_a_peer_is_passed_on_by_ours_and_a_close_in_the_original() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, callee) = link.connect().await;
        callee.set_zero_linger().unwrap();
        drop(callee);
        let end = server.differs("peer-reset", None, Some(ErrorKind::ConnectionReset));
        assert_eq!(read_end(&mut caller).await, (Vec::new(), end));
    })
    .await;
}

#[tokio::test]
async fn answer_after_the_callers_end_arrives_with_ours_and_is_lost_by_the_original() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        caller.shutdown().await.unwrap();
        assert_eq!(read_end(&mut callee).await, (Vec::new(), None));
        if server.kind == Kind::Toxiproxy {
            // The caller hears of the end although the callee has not ended.
            assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
            return;
        }
        callee.write_all(b"late").await.unwrap();
        drop(callee);
        let heard = server.differs("half-close", "", "late");
        let end = (heard.as_bytes().to_vec(), None);
        assert_eq!(read_end(&mut caller).await, end);
    })
    .await;
}

#[tokio::test]
async fn held_answer_arrives_although_the_callee_has_gone() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        link.add("latency", json!({ "latency": 3_600_000 })).await;
        callee.write_all(b"answer").await.unwrap();
        wait_until_read(&callee).await;
        let (upstream, proxied) = ports(&callee);
        drop(callee);
        // The first byte is answered by a reset, the second meets it.
        caller.write_all(b"?").await.unwrap();
        within("the reset", async {
            while sockets().any(|socket| socket.is(proxied, upstream)) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        caller.write_all(b"?").await.unwrap();
        let (port, proxy) = ports(&caller);
        within("the byte to be read", async {
            while sockets().any(|socket| socket.is(proxy, port) && socket.received > 0) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        link.remove().await;
        assert_eq!(read_end(&mut caller).await.0, b"answer");
    })
    .await;
}

#[tokio::test]
async fn values_that_end_the_original_do_nothing_to_ours() {
    for (kind, attributes) in [
        ("bandwidth", json!({ "rate": -1 })),
        ("latency", json!({ "jitter": i64::MAX })),
        (
            "slicer",
            json!({ "average_size": 10, "size_variation": 20 }),
        ),
    ] {
        on_each(async |mut server| {
            let link = Link::new(&server).await;
            link.add(kind, attributes.clone()).await;
            let (caller, mut callee) = link.dial().await;
            // The original's slicer draws where it cuts: of 1000 bytes one in seven survives, of so many none.
            callee.write_all(&[7; 32_000]).await.unwrap();
            if server.differs("deadly-values", true, false) {
                let ended = within("the end of the server", server.process.wait()).await;
                assert!(!ended.unwrap().success(), "{kind}");
            } else {
                server.done("DELETE", "/proxies/a/toxics/t", "").await;
                server.done("GET", "/proxies", "").await;
                drop(caller);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn caller_that_never_reads_hangs_the_original_and_not_ours() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (caller, mut callee) = link.connect().await;
        link.add("latency", json!({ "latency": 1 })).await;
        let flood = tokio::spawn(async move {
            let block = vec![0; 1 << 20];
            while callee.write_all(&block).await.is_ok() {}
        });
        // Nothing is read any more when a write takes longer than this.
        wait_until_full(&link).await;
        let answers = server.differs("never-hangs", false, true);
        assert_eq!(
            answers_in_time(&server, "/proxies/a/toxics/t").await,
            answers
        );
        flood.abort();
        drop(caller);
    })
    .await;
}

/// Whether a DELETE is answered while its caller has patience.
async fn answers_in_time(server: &Server, path: &str) -> bool {
    let request = Request::new("DELETE", path, "");
    let patience = std::time::Duration::from_secs(2);
    let answered = tokio::time::timeout(patience, server.call(&request)).await;
    answered.is_ok()
}

#[tokio::test]
async fn reset_that_is_far_away_is_called_off_by_ours_and_waited_for_by_the_original() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        link.add("reset_peer", json!({ "timeout": 3_600_000 }))
            .await;
        let (_caller, mut callee) = link.dial().await;
        callee.write_all(b"x").await.unwrap();
        wait_until_read(&callee).await;
        let answers = server.differs("long-reset", false, true);
        assert_eq!(
            answers_in_time(&server, "/proxies/a/toxics/t").await,
            answers
        );
    })
    .await;
}

#[tokio::test]
async fn upstream_that_does_not_answer_stalls_deleting_the_original_and_not_ours() {
    let (hole, _waiting) = black_hole().await;
    on_each(async |server| {
        let upstream = address(&hole).to_string();
        let listen = server.proxy("a", "127.0.0.1:0", &upstream).await;
        let _caller = TcpStream::connect(&listen).await.unwrap();
        within("the dial", async {
            while !is_dialling(address(&hole).port()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let answers = server.differs("dialling", false, true);
        assert_eq!(answers_in_time(&server, "/proxies/a").await, answers);
    })
    .await;
}

#[tokio::test]
async fn peers_are_asked_whether_they_are_there() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (caller, callee) = link.connect().await;
        for peer in [caller.peer_addr(), callee.peer_addr()] {
            let port = peer.unwrap().port();
            within("an idle connection with its timer", async {
                while !sockets().any(|socket| socket.local == port && socket.keeps_alive()) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    })
    .await;
}

/// Waits until a byte of the callee was acknowledged and is no longer in any queue.
pub(super) async fn wait_until_read(callee: &TcpStream) {
    let (upstream, proxied) = ports(callee);
    within("the byte to be read", async {
        while sockets().any(|socket| {
            (socket.is(proxied, upstream) && socket.received > 0)
                || (socket.is(upstream, proxied) && socket.queued > 0)
        }) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The ports of a connection, the near one first.
fn ports(end: &TcpStream) -> (u16, u16) {
    let near = end.local_addr().unwrap().port();
    (near, end.peer_addr().unwrap().port())
}

/// Whether somebody waits for a connection to this port.
fn is_dialling(port: u16) -> bool {
    sockets().any(|socket| socket.remote == port && socket.state == "02")
}

/// Waits until what is queued for the caller has ceased to grow.
async fn wait_until_full(link: &Link<'_>) {
    let port = link.listen.rsplit_once(':').unwrap().1.parse().unwrap();
    within("full queues", async {
        let mut before = 0;
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let queued = queued_from(port);
            if queued > 0 && queued == before {
                return;
            }
            before = queued;
        }
    })
    .await;
}

/// Bytes written to callers of this port that wait to be read or acknowledged.
fn queued_from(port: u16) -> u64 {
    let sockets = sockets().filter(|socket| socket.local == port);
    sockets.map(|socket| socket.queued).sum()
}

/// A socket as the kernel shows it.
struct Socket {
    local: u16,
    remote: u16,
    state: String,
    queued: u64,
    received: u64,
    timer: String,
}

impl Socket {
    /// Both ports: one alone may belong to several connections.
    fn is(&self, local: u16, remote: u16) -> bool {
        (self.local, self.remote) == (local, remote)
    }

    fn keeps_alive(&self) -> bool {
        self.state == "01" && self.timer == "02"
    }
}

/// All sockets of IPv4: proc(5), `/proc/net/tcp`.
fn sockets() -> impl Iterator<Item = Socket> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let lines: Vec<String> = table.lines().skip(1).map(str::to_owned).collect();
    lines.into_iter().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = |field: &str| u16::from_str_radix(field.rsplit_once(':')?.1, 16).ok();
        let (queued, received) = fields.get(4)?.split_once(':')?;
        Some(Socket {
            local: port(fields.get(1)?)?,
            remote: port(fields.get(2)?)?,
            state: (*fields.get(3)?).to_owned(),
            queued: u64::from_str_radix(queued, 16).ok()?,
            received: u64::from_str_radix(received, 16).ok()?,
            timer: fields.get(5)?.split_once(':')?.0.to_owned(),
        })
    })
}
