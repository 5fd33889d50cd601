//! Faults of single HTTP requests: exact counts, exact bytes, and everything else untouched.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::HeaderMap;
use chaos_harness::toxiproxy::wire::{Protocol, Proxy, RequestEnd, Stream, Toxic};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Link, NEVER_MS, Running, address, read_end, read_exact, start_seeded, within};

/// Keep-alive connections of one proxy.
const CONNECTIONS: usize = 32;

/// Requests of each.
const REQUESTS: usize = 10;

/// How often the upstream saw each key.
type Seen = Arc<Mutex<BTreeMap<String, usize>>>;

/// An upstream that answers everything, behind a proxy with one toxic.
struct Shop {
    running: Running,
    listen: SocketAddr,
    seen: Seen,
}

impl Shop {
    async fn new(seed: u64, toxic: Toxic) -> Self {
        let seen = Seen::default();
        let noted = Arc::clone(&seen);
        let app = Router::new().fallback(move |headers: HeaderMap| async move {
            let key = headers["key"].to_str().unwrap().to_owned();
            *noted.lock().unwrap().entry(key).or_default() += 1;
            "done"
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = address(&listener).to_string();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let running = start_seeded(seed).await;
        let mut proxy = Proxy::new("link", "127.0.0.1:0", upstream);
        proxy.protocol = Protocol::Http;
        proxy.toxics = vec![toxic];
        let listen = running.client.create(&proxy).await.unwrap().listen;
        let listen = listen.parse().unwrap();
        Self {
            running,
            listen,
            seen,
        }
    }

    /// All connections, opened one after another: their numbers are their places.
    async fn callers(&self) -> Vec<Caller> {
        let mut callers = Vec::new();
        for _ in 0..CONNECTIONS {
            callers.push(Caller(TcpStream::connect(self.listen).await.unwrap()));
        }
        callers
    }

    /// What all callers got, all at once, by key.
    async fn ask_all(&self) -> BTreeMap<String, Option<u16>> {
        let asking = |(place, mut caller): (usize, Caller)| async move {
            let mut got = Vec::new();
            for request in 0..REQUESTS {
                let key = format!("{place}-{request}");
                let status = caller.ask("POST", "/charge", &key).await;
                got.push((key, status));
                if status.is_none() {
                    break;
                }
            }
            got
        };
        let callers = self.callers().await;
        let tasks: Vec<_> = callers
            .into_iter()
            .enumerate()
            .map(|caller| tokio::spawn(asking(caller)))
            .collect();
        let mut all = BTreeMap::new();
        for task in tasks {
            all.extend(within("the answers", task).await.unwrap());
        }
        all
    }

    fn seen(&self) -> BTreeMap<String, usize> {
        self.seen.lock().unwrap().clone()
    }

    async fn acted_on(&self) -> u64 {
        let stats = self.running.client.stats().await.unwrap();
        stats.proxies["link"].toxics["fault"].requests
    }
}

/// A client that keeps its connection.
struct Caller(TcpStream);

impl Caller {
    /// The status of the answer; `None` when the connection ends instead.
    async fn ask(&mut self, method: &str, path: &str, key: &str) -> Option<u16> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: shop\r\nkey: {key}\r\nContent-Length: 5\r\n\r\nhello"
        );
        self.0.write_all(request.as_bytes()).await.ok()?;
        let head = self.head().await?;
        let length: usize = field(&head, "content-length")?.parse().ok()?;
        read_exact(&mut self.0, length).await;
        head[9..12].parse().ok()
    }

    async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within("an answer", self.0.read_u8()).await.ok()?);
        }
        String::from_utf8(head).ok()
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// A fault on every request unless `more` says otherwise.
fn fault(attributes: serde_json::Value) -> Toxic {
    let mut toxic = Toxic::new("fault", "http", Stream::Upstream);
    toxic.attributes = attributes.as_object().unwrap().clone();
    toxic
}

fn failed(got: &BTreeMap<String, Option<u16>>) -> Vec<&str> {
    let failed = got.iter().filter(|(_, status)| **status != Some(200));
    failed.map(|(key, _)| key.as_str()).collect()
}

#[tokio::test]
async fn first_two_of_all_requests_fail_and_the_upstream_sees_the_rest() {
    let shop = Shop::new(1, fault(json!({"status": 503, "first": 2}))).await;
    let got = shop.ask_all().await;
    let failed = failed(&got);
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.iter().all(|key| got[*key] == Some(503)));
    assert!(failed.iter().all(|key| !shop.seen().contains_key(*key)));
    assert_eq!(shop.seen().len(), CONNECTIONS * REQUESTS - 2);
    assert_eq!(shop.acted_on().await, 2);
}

#[tokio::test]
async fn every_tenth_request_fails_exactly() {
    let shop = Shop::new(1, fault(json!({"status": 500, "every": 10}))).await;
    let got = shop.ask_all().await;
    assert_eq!(failed(&got).len(), CONNECTIONS * REQUESTS / 10);
    assert_eq!(shop.seen().len(), CONNECTIONS * REQUESTS / 10 * 9);
    assert!(shop.seen().values().all(|times| *times == 1));
}

#[tokio::test]
async fn dropped_response_was_seen_once_by_the_upstream_and_never_by_the_caller() {
    let rule =
        json!({"drop_response": true, "first": 3, "match": {"method": "POST", "path": "/charge"}});
    let shop = Shop::new(1, fault(rule)).await;
    let got = shop.ask_all().await;
    let lost: Vec<_> = got.iter().filter(|(_, status)| status.is_none()).collect();
    assert_eq!(lost.len(), 3, "{lost:?}");
    assert_eq!(failed(&got).len(), 3);
    assert!(got.keys().all(|key| shop.seen()[key] == 1));
    assert_eq!(got.len(), shop.seen().len());
    let rows = shop.running.client.requests(0, false).await.unwrap().rows;
    let reset = rows.iter().filter(|row| row.end == RequestEnd::Reset);
    let statuses: Vec<_> = reset.map(|row| row.status).collect();
    assert_eq!(statuses, [Some(200); 3], "the upstream did answer");
}

#[tokio::test]
async fn share_is_drawn_from_the_seed_by_connection_and_request() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let shop = Shop::new(seed, fault(json!({"status": 503, "share": 0.3}))).await;
        let got = shop.ask_all().await;
        runs.push(
            failed(&got)
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    assert!((60..=130).contains(&runs[0].len()), "{}", runs[0].len());
}

async fn link(toxics: &[Toxic]) -> Link {
    let link = Link::with(|proxy| proxy.protocol = Protocol::Http).await;
    link.set(toxics).await;
    link
}

async fn send(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).await.unwrap();
}

async fn expect(socket: &mut TcpStream, text: &str) {
    assert_eq!(read_exact(socket, text.len()).await, text);
}

const GET: &str = "GET /a HTTP/1.1\r\n\r\n";
const BAD: &str = "GET /bad HTTP/1.1\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const FAILED: &str =
    "HTTP/1.1 503 Service Unavailable\r\nx-chaos-toxic: fault\r\ncontent-length: 0\r\n\r\n";

fn only_bad(mut attributes: serde_json::Value) -> Toxic {
    attributes["match"] = json!({"path": "/bad"});
    fault(attributes)
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let link = link(&[only_bad(json!({"status": 503}))]).await;
    let (mut caller, mut callee) = link.connect().await;
    send(&mut caller, &[GET, BAD, GET, BAD, BAD, GET].concat()).await;
    expect(&mut callee, &[GET, GET, GET].concat()).await;
    send(&mut callee, &[OK, OK].concat()).await;
    expect(&mut caller, &[OK, FAILED, OK, FAILED, FAILED].concat()).await;
    send(&mut callee, OK).await;
    expect(&mut caller, OK).await;
}

#[tokio::test]
async fn request_is_recognised_however_its_bytes_come() {
    let link = link(&[only_bad(json!({"status": 503}))]).await;
    let (mut caller, mut callee) = link.connect().await;
    let chunked = "POST /bad HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for byte in [chunked, GET].concat().as_bytes() {
        caller.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    expect(&mut caller, FAILED).await;
    expect(&mut callee, GET).await;
}

#[tokio::test]
async fn who_waits_for_a_word_before_the_body_gets_the_answer_and_the_end() {
    let link = link(&[only_bad(json!({"status": 503}))]).await;
    let (mut caller, mut callee) = link.connect().await;
    let head = |path: &str| {
        format!("PUT {path} HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    };
    send(&mut caller, &head("/good")).await;
    expect(&mut callee, &head("/good")).await;
    send(&mut callee, "HTTP/1.1 100 Continue\r\n\r\n").await;
    expect(&mut caller, "HTTP/1.1 100 Continue\r\n\r\n").await;
    send(&mut caller, "hi").await;
    expect(&mut callee, "hi").await;
    send(&mut callee, OK).await;
    expect(&mut caller, OK).await;
    send(&mut caller, &head("/bad")).await;
    let (answer, end) = read_end(&mut caller).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!((field(&answer, "connection"), end), (Some("close"), None));
    drop(caller);
    assert_eq!(read_end(&mut callee).await, (Vec::new(), None));
}

#[tokio::test]
async fn aborted_request_resets_behind_the_answers_before_it() {
    let link = link(&[only_bad(json!({"abort": true}))]).await;
    let (mut caller, mut callee) = link.connect().await;
    send(&mut caller, &[GET, BAD, GET].concat()).await;
    expect(&mut callee, GET).await;
    send(&mut callee, OK).await;
    expect(&mut caller, OK).await;
    let (rest, end) = read_end(&mut caller).await;
    assert_eq!(rest, b"");
    assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset));
    let (seen, _) = read_end(&mut callee).await;
    assert_eq!(seen, b"", "the upstream saw neither of the others");
}

#[tokio::test]
async fn word_to_go_on_passes_and_the_answer_after_it_is_lost() {
    let link = link(&[only_bad(json!({"drop_response": true}))]).await;
    let (mut caller, mut callee) = link.connect().await;
    let head = "PUT /bad HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    send(&mut caller, head).await;
    expect(&mut callee, head).await;
    for part in ["HTTP/1.1 100 Con", "tinue\r\n\r\n"] {
        send(&mut callee, part).await;
    }
    expect(&mut caller, "HTTP/1.1 100 Continue\r\n\r\n").await;
    send(&mut caller, "hi").await;
    expect(&mut callee, "hi").await;
    send(&mut callee, OK).await;
    let (answer, end) = read_end(&mut caller).await;
    assert_eq!(answer, b"");
    assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn body_is_replaced_and_the_connection_goes_on() {
    let link = link(&[only_bad(json!({"body": "{\"broken"}))]).await;
    let (mut caller, mut callee) = link.connect().await;
    send(&mut caller, &[BAD, GET].concat()).await;
    expect(&mut callee, &[BAD, GET].concat()).await;
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    for byte in chunked.as_bytes() {
        callee.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    send(&mut callee, OK).await;
    expect(
        &mut caller,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 8\r\n\r\n{\"broken",
    )
    .await;
    expect(&mut caller, OK).await;
    let stats = link.stats().await;
    assert_eq!(stats.toxics["fault"].changed_chunks, 1);
}

#[tokio::test]
async fn delayed_request_goes_when_the_fault_is_lifted() {
    let link = link(&[only_bad(json!({"delay": NEVER_MS}))]).await;
    let (mut caller, mut callee) = link.connect().await;
    send(&mut caller, &[GET, BAD, GET].concat()).await;
    expect(&mut callee, GET).await;
    link.stats_when("the delay", |stats| {
        stats.toxics["fault"].delayed_chunks == 1 && stats.requests == 3
    })
    .await;
    link.set(&[]).await;
    expect(&mut callee, &[BAD, GET].concat()).await;
}

#[tokio::test]
async fn delayed_answer_keeps_its_place_before_those_of_later_requests() {
    let link = link(&[only_bad(json!({"status": 503, "delay": NEVER_MS}))]).await;
    let (mut caller, mut callee) = link.connect().await;
    send(&mut caller, &[BAD, GET].concat()).await;
    link.stats_when("both requests", |stats| stats.requests == 2)
        .await;
    let early = callee.try_read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(early, Err(std::io::ErrorKind::WouldBlock));
    link.set(&[]).await;
    expect(&mut caller, FAILED).await;
    expect(&mut callee, GET).await;
    send(&mut callee, OK).await;
    expect(&mut caller, OK).await;
}

#[tokio::test]
async fn delayed_answer_arrives_although_the_upstream_has_closed_its_idle_connection() {
    let link = link(&[only_bad(json!({"status": 503, "delay": NEVER_MS}))]).await;
    let (mut caller, callee) = link.connect().await;
    send(&mut caller, BAD).await;
    link.stats_when("the request", |stats| stats.requests == 1)
        .await;
    drop(callee);
    link.set(&[]).await;
    expect(&mut caller, FAILED).await;
    assert_eq!(read_end(&mut caller).await.0, b"");
}

#[tokio::test]
async fn more_answers_than_there_is_room_for_all_come() {
    const LENGTH: usize = 100_000;
    const REQUESTS: usize = 50;
    let toxic = fault(json!({"status": 503, "body": "q".repeat(LENGTH)}));
    let shop = Shop::new(1, toxic).await;
    let caller = TcpStream::connect(shop.listen).await.unwrap();
    let (mut reader, mut writer) = caller.into_split();
    let sending = tokio::spawn(async move {
        // Long enough that each is read by itself.
        let request = format!("GET /a HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(60_000));
        let all = request.repeat(REQUESTS);
        writer.write_all(all.as_bytes()).await.unwrap();
    });
    let (mut answers, mut bytes) = (0, vec![0; 1 << 20]);
    while answers < REQUESTS * LENGTH {
        let length = within("an answer", reader.read(&mut bytes)).await.unwrap();
        assert!(length > 0, "the end after {answers} bytes");
        answers += bytes[..length].iter().filter(|byte| **byte == b'q').count();
    }
    assert_eq!(answers, REQUESTS * LENGTH, "no head has a q");
    within("the requests", sending).await.unwrap();
}

#[tokio::test]
async fn upgraded_connection_passes_untouched() {
    let link = link(&[fault(json!({"status": 503, "every": 2}))]).await;
    let (mut caller, mut callee) = link.connect().await;
    let upgrade = "GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    send(&mut caller, upgrade).await;
    expect(&mut callee, upgrade).await;
    send(&mut callee, "HTTP/1.1 101 Switching Protocols\r\n\r\n").await;
    expect(&mut caller, "HTTP/1.1 101 Switching Protocols\r\n\r\n").await;
    send(&mut caller, GET).await;
    expect(&mut callee, GET).await;
    send(&mut callee, "\0 anything").await;
    expect(&mut caller, "\0 anything").await;
    assert_eq!(link.stats().await.toxics["fault"].requests, 0);
}

#[tokio::test]
async fn proxy_of_other_bytes_refuses_the_toxic() {
    let link = Link::new().await;
    let toxics = [fault(json!({}))];
    let refused = link.running.client.set_toxics("link", &toxics).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("`http` needs a proxy with"), "{error}");
}
