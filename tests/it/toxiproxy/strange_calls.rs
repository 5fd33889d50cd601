//! Whatever is sent to the API, it answers, goes on, and does not grow: calls drawn from what clients
//! send, with values at every limit, bodies cut, twisted and nested, names of 64 KiB.
//!
//! `PROXY_FUZZ_S=600 cargo test --test it strange_calls` goes on for as long as that.

use chaos_harness::evidence::clock::mono_ns;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use serde_json::{Value, json};

use super::robustness::standalone;
use super::within;

/// Calls of the short run.
const CALLS: usize = 2_000;
/// After so many calls everything is removed, so that what is kept cannot be what is there.
const CALLS_BEFORE_CLEANING: usize = 250;
/// Longest name in a path.
const PATH_MAX: usize = 10_000;
/// What the process may have grown by at its end: a leak of a body per call would be far more.
const GROWTH_MAX_KB: u64 = 64 * 1024;

/// Draws calls; the same seed draws the same ones.
struct Strange(ChaCha8Rng);

impl Strange {
    fn one_of<'a>(&mut self, these: &[&'a str]) -> &'a str {
        these.choose(&mut self.0).copied().unwrap_or_default()
    }

    fn name(&mut self) -> String {
        match self.0.random_range(0..12) {
            0 => "n".repeat(65_536),
            1 => self
                .one_of(&["", "x/y", "%2e", "ü", " ", "\u{0}", "a.b", "\"", "..", "#"])
                .into(),
            _ => self.one_of(&["a", "b", "c", "d"]).into(),
        }
    }

    fn number(&mut self) -> Value {
        let limits = [
            json!(0),
            json!(1),
            json!(-1),
            json!(i64::MAX),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(1.5),
            json!(1e308),
            json!("1"),
            json!(null),
            json!(true),
            json!([1]),
            json!({}),
        ];
        match self.0.random_bool(0.5) {
            true => json!(self.0.random_range(0..5_000)),
            false => limits.choose(&mut self.0).cloned().unwrap_or_default(),
        }
    }

    fn toxic(&mut self) -> Value {
        let kinds = [
            "latency",
            "bandwidth",
            "slow_close",
            "timeout",
            "reset_peer",
            "slicer",
            "limit_data",
            "noop",
            "stall",
            "reset",
            "corrupt",
            "loss",
            "slow_open",
            "limit_time",
            "http",
            "down",
        ];
        let keys = [
            "latency",
            "jitter",
            "rate",
            "delay",
            "timeout",
            "average_size",
            "size_variation",
            "bytes",
            "share",
            "every",
            "first",
            "status",
            "body",
            "match",
            "distribution",
            "time",
            "shared",
            "abort",
            "drop_response",
        ];
        let attributes: serde_json::Map<String, Value> = (0..self.0.random_range(0..4))
            .map(|_| (self.one_of(&keys).to_owned(), self.number()))
            .collect();
        let mut toxic = json!({ "type": self.one_of(&kinds), "attributes": attributes });
        if self.0.random_bool(0.5) {
            toxic["name"] = self.name().into();
        }
        if self.0.random_bool(0.5) {
            toxic["stream"] = self.one_of(&["upstream", "DownStream", "", "both"]).into();
        }
        if self.0.random_bool(0.3) {
            toxic["toxicity"] = self.number();
        }
        toxic
    }

    fn proxy(&mut self) -> Value {
        let listen = [
            "127.0.0.1:0",
            "localhost:0",
            "127.0.0.1",
            "127.0.0.1:99999",
            "127.0.0.1:-1",
            "[::1]:0",
        ];
        let mut proxy = json!({
            "name": self.name(),
            "listen": self.one_of(&listen),
            "upstream": self.one_of(&["127.0.0.1:1", "", "nowhere", "127.0.0.1:x"]),
        });
        if self.0.random_bool(0.3) {
            proxy["enabled"] = [json!(false), json!(true), json!("no")]
                .choose(&mut self.0)
                .cloned()
                .unwrap_or_default();
        }
        if self.0.random_bool(0.3) {
            proxy["toxics"] = json!([self.toxic(), self.toxic()]);
        }
        proxy
    }

    fn body(&mut self) -> Vec<u8> {
        let value = match self.0.random_range(0..6) {
            0 | 1 => self.proxy(),
            2 => json!([self.proxy(), self.proxy()]),
            3 | 4 => self.toxic(),
            _ => self.number(),
        };
        let mut body = value.to_string().into_bytes();
        match self.0.random_range(0..12) {
            0 => body.truncate(self.0.random_range(0..=body.len())),
            1 => {
                let at = self.0.random_range(0..body.len());
                body[at] = self.0.random();
            }
            2 => body = b"[".repeat(self.0.random_range(1..20_000)),
            3 => body.extend(b" trailing".repeat(1_000)),
            _ => {}
        }
        body
    }

    fn call(&mut self) -> (Method, String, Vec<u8>) {
        let method = ["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD"];
        let method = self.one_of(&method).parse().expect("a method");
        let path = match self.0.random_range(0..10) {
            0 => "/populate".to_owned(),
            1 => "/reset".to_owned(),
            2 | 3 => "/proxies".to_owned(),
            4 | 5 => format!("/proxies/{}", escaped(&self.name())),
            6 | 7 => format!("/proxies/{}/toxics", escaped(&self.name())),
            8 => {
                let (proxy, toxic) = (escaped(&self.name()), escaped(&self.name()));
                format!("/proxies/{proxy}/toxics/{toxic}")
            }
            _ => self
                .one_of(&[
                    "/",
                    "//",
                    "/stats",
                    "/requests?after=-1",
                    "/requests?after=18446744073709551615",
                    "/lease/x",
                    "/version",
                ])
                .to_owned(),
        };
        (method, path, self.body())
    }
}

/// As one segment of a path, which clients do not send as long as a body may be.
fn escaped(name: &str) -> String {
    name.bytes()
        .take(PATH_MAX)
        .map(|byte| format!("%{byte:02X}"))
        .collect()
}

/// Resident memory of a process, KB.
fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test runner passes nothing else on"
)]
fn longer_ns() -> u64 {
    let seconds = std::env::var("PROXY_FUZZ_S");
    let seconds = seconds.ok().and_then(|text| text.parse::<u64>().ok());
    seconds.unwrap_or(0) * 1_000_000_000
}

#[tokio::test]
async fn strange_calls_are_answered_and_leave_the_server_as_it_was() {
    let server = standalone();
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let mut strange = Strange(ChaCha8Rng::seed_from_u64(2026));
    let until_ns = mono_ns() + longer_ns();
    let (mut calls, mut settled_kb) = (0, None);
    while calls < CALLS || mono_ns() < until_ns {
        for _ in 0..CALLS_BEFORE_CLEANING {
            let (method, path, body) = strange.call();
            let told = format!(
                "{method} {} with {} bytes",
                &path[..path.len().min(80)],
                body.len()
            );
            let request = http
                .request(method, format!("{}{path}", server.api))
                .body(body);
            let answer = within(&told, request.send()).await;
            let answer = answer.map_err(reqwest::Error::without_url).expect(&told);
            let status = answer.status().as_u16();
            // The only faults of the server's own are addresses that it cannot listen on.
            let text = within(&told, answer.text()).await;
            let text = text.map_err(reqwest::Error::without_url).expect(&told);
            let is_address = ["listen", "address", "lookup"]
                .iter()
                .any(|it| text.contains(it));
            let is_fine = status < 500 || (status == 500 && is_address);
            assert!(is_fine, "{told}: {status} {text:.200}");
            calls += 1;
        }
        clean(&http, &server.api).await;
        // The first rounds warm caches and pools up.
        let now_kb = resident_kb(server.child.id());
        let settled = *settled_kb.get_or_insert(now_kb);
        assert!(
            now_kb < settled + GROWTH_MAX_KB,
            "grew from {settled} KB to {now_kb} KB in {calls} calls"
        );
    }
}

/// Removes every proxy that a path can name.
async fn clean(http: &reqwest::Client, api: &str) {
    let all = within("all proxies", http.get(format!("{api}/proxies")).send()).await;
    let all: serde_json::Map<String, Value> = all.expect("an answer").json().await.expect("JSON");
    for name in all
        .keys()
        .filter(|name| (1..PATH_MAX).contains(&name.len()) && !name.contains('/'))
    {
        let url = format!("{api}/proxies/{}", escaped(name));
        within("a removal", http.delete(url).send())
            .await
            .expect("an answer");
    }
}
