//! What a Toxiproxy 2.12 server does, held against `chaos proxy` always, and against a real Toxiproxy when
//! `TOXIPROXY_SERVER` names its binary (`scripts/test` installs one).
//!
//! The API is a set of transcripts (`*.txt`, see `transcript.rs`); connections and processes are claims in
//! code. Both servers must do the same, but for the differences that `docs/toxiproxy.md` names: a claim
//! about one says its name, and what each of the two does.

mod client;
mod connections;
mod differences;
mod process;
mod timing;
mod transcript;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};

use chaos_harness::toxiproxy::Client;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use super::within;

/// Which server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Chaos,
    Toxiproxy,
}

impl Kind {
    /// How to start it; `None` when there is none on this machine.
    fn command(self) -> Option<Command> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a server of a test, killed with it"
        )]
        let new = |binary: &Path| Command::new(binary);
        match self {
            Self::Chaos => {
                let mut command = new(Path::new(env!("CARGO_BIN_EXE_chaos")));
                command.arg("proxy");
                Some(command)
            }
            Self::Toxiproxy => real_server().as_deref().map(new),
        }
    }
}

fn real_server() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "an input of the tests")]
    std::env::var_os("TOXIPROXY_SERVER").map(PathBuf::from)
}

/// A server process of a test.
pub(super) struct Server {
    pub(super) kind: Kind,
    pub(super) api: SocketAddr,
    pub(super) process: Child,
    output: Lines<BufReader<ChildStdout>>,
    /// What was read of its output.
    seen: String,
}

impl Server {
    /// Starts it on a free port and waits until it answers; `None` when there is none on this machine.
    pub(super) async fn start(kind: Kind, arguments: &[&str]) -> Option<Self> {
        Self::start_with(kind, arguments, &[]).await
    }

    /// As [`Self::start`], with variables of the environment.
    async fn start_with(
        kind: Kind,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Option<Self> {
        let mut command = kind.command()?;
        let port = free_port();
        command
            .args(["-host", "127.0.0.1", "-port", &port.to_string()])
            .args(arguments)
            .envs(variables.iter().copied());
        let api = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Self::spawn(kind, command, api);
        within("the server to answer", async {
            while TcpStream::connect(api).await.is_err() {
                let ended = server.process.try_wait().unwrap();
                assert_eq!(ended, None, "{kind:?} ended at its start");
                tokio::task::yield_now().await;
            }
        })
        .await;
        Some(server)
    }

    fn spawn(kind: Kind, mut command: Command, api: SocketAddr) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn().expect("the server starts");
        let output = process.stdout.take().expect("piped");
        Self {
            kind,
            api,
            process,
            output: BufReader::new(output).lines(),
            seen: String::new(),
        }
    }

    /// What this server does, of two that differ by name.
    pub(super) fn differs<T>(&self, _difference: &str, toxiproxy: T, chaos: T) -> T {
        match self.kind {
            Kind::Toxiproxy => toxiproxy,
            Kind::Chaos => chaos,
        }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.api)).unwrap()
    }

    /// One call, sent as it is written.
    pub(super) async fn call(&self, request: &Request<'_>) -> Answer {
        let stream = TcpStream::connect(self.api).await.unwrap();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut sent = hyper::Request::builder()
            .method(request.method)
            .uri(request.path)
            .header("host", self.api.to_string())
            .header("user-agent", "conformance");
        if let Some((name, value)) = request.header {
            let headers = sent.headers_mut().expect("a request that can be sent");
            headers.insert(
                name.parse::<hyper::header::HeaderName>().unwrap(),
                value.parse().unwrap(),
            );
        }
        let body = Full::new(Bytes::from(request.body.to_owned()));
        let response = within("an answer", sender.send_request(sent.body(body).unwrap())).await;
        let (head, body) = response.expect("an answer").into_parts();
        let body = within("its body", body.collect()).await.unwrap().to_bytes();
        connection.abort();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// A call that must succeed.
    pub(super) async fn done(&self, method: &str, path: &str, body: &str) -> Answer {
        let answer = self.call(&Request::new(method, path, body)).await;
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path} {body}: {}",
            answer.text
        );
        answer
    }

    /// Creates a proxy, answers where it listens.
    pub(super) async fn proxy(&self, name: &str, listen: &str, upstream: &str) -> String {
        let body = serde_json::json!({ "name": name, "listen": listen, "upstream": upstream });
        let answer = self.done("POST", "/proxies", &body.to_string()).await;
        answer.json()["listen"].as_str().unwrap().to_owned()
    }

    /// The next line of its output of which something holds.
    pub(super) async fn line(&mut self, holds: impl Fn(&str) -> bool) -> String {
        within("a line of output", async {
            loop {
                let line = self.output.next_line().await.unwrap();
                let line = line.expect("more output");
                self.seen.push_str(&line);
                self.seen.push('\n');
                if holds(&line) {
                    return line;
                }
            }
        })
        .await
    }

    /// All that it wrote, once ended.
    pub(super) async fn output(mut self) -> String {
        self.process.start_kill().unwrap();
        let mut rest = self.output.into_inner();
        within("the end", rest.read_to_string(&mut self.seen))
            .await
            .unwrap();
        self.seen
    }
}

/// What is sent.
pub(super) struct Request<'a> {
    method: &'a str,
    path: &'a str,
    body: &'a str,
    header: Option<(&'a str, &'a str)>,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: &'a str, path: &'a str, body: &'a str) -> Self {
        Self {
            method,
            path,
            body,
            header: None,
        }
    }

    pub(super) fn with(self, name: &'a str, value: &'a str) -> Self {
        Self {
            header: Some((name, value)),
            ..self
        }
    }
}

/// What comes back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: hyper::HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("a header of text"))
    }
}

/// Holds a claim against each server on this machine.
pub(super) async fn on_each(claim: impl AsyncFn(Server)) {
    on_each_with(&[], claim).await;
}

/// As [`on_each`], started with these flags.
pub(super) async fn on_each_with(arguments: &[&str], claim: impl AsyncFn(Server)) {
    for kind in [Kind::Chaos, Kind::Toxiproxy] {
        if let Some(server) = Server::start(kind, arguments).await {
            claim(server).await;
        }
    }
}

/// A port below those that the system hands out, so that nobody else gets it; servers of Toxiproxy cannot
/// be told to choose one and say which.
fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = std::process::id().wrapping_mul(97) % u32::from(PORTS);
    let offset = u16::try_from(offset).expect("below PORTS");
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (offset + next % PORTS) % PORTS;
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
