//! What is measured: a way to the upstream, and the process that it costs.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use chaos_harness::toxiproxy::Client;
use chaos_harness::toxiproxy::wire::{Proxy, Stream, Toxic};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// Where callers connect.
    pub(crate) address: SocketAddr,
    process: Option<Process>,
}

/// A proxy server, ended with this value.
struct Process {
    child: Child,
    client: Client,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const REAL: &str = "real Toxiproxy";

/// The proxy of every server.
const PROXY: &str = "bench";

impl Subject {
    /// Direct first, then ours, then the real one if there is one.
    pub(crate) async fn all(upstream: SocketAddr) -> Vec<Self> {
        let mut all = vec![Self {
            name: "direct",
            address: upstream,
            process: None,
        }];
        let ours = env!("CARGO_BIN_EXE_chaos");
        let noops = [Stream::Upstream, Stream::Downstream]
            .map(|stream| Toxic::new(format!("noop-{}", stream.as_str()), "noop", stream));
        all.push(
            Self::start(
                "ours, in the kernel",
                &[ours, "proxy", "--port"],
                upstream,
                &[],
            )
            .await,
        );
        all.push(
            Self::start(
                "ours, in user space",
                &[ours, "proxy", "--port"],
                upstream,
                &noops,
            )
            .await,
        );
        if let Some(real) = real_server() {
            let command = [real.as_str(), "-host", "127.0.0.1", "-port"];
            all.push(Self::start(REAL, &command, upstream, &[]).await);
        }
        all
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the benchmark is the proxy's parent"
    )]
    async fn start(
        name: &'static str,
        command: &[&str],
        upstream: SocketAddr,
        toxics: &[Toxic],
    ) -> Self {
        let port = free_port().await;
        let child = std::process::Command::new(command[0])
            .args(&command[1..])
            .arg(port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the proxy can be started");
        let client = Client::new(&format!("http://127.0.0.1:{port}")).expect("a client");
        let process = Process { child, client };
        answering(&process.client).await;
        let proxy = Proxy::new(PROXY, "127.0.0.1:0", upstream.to_string());
        let created = process.client.create(&proxy).await;
        let created = created.expect("a proxy can be created");
        let subject = Self {
            name,
            address: created.listen.parse().expect("an address"),
            process: Some(process),
        };
        for toxic in toxics {
            subject.add(toxic).await;
        }
        subject
    }

    /// Puts a toxic on it; nothing without a proxy.
    pub(crate) async fn add(&self, toxic: &Toxic) {
        if let Some(Process { client, .. }) = &self.process {
            let added = client.add_toxic(PROXY, toxic).await;
            added.expect("a toxic can be added");
        }
    }

    /// Takes it off again.
    pub(crate) async fn remove(&self, toxic: &Toxic) {
        if let Some(Process { client, .. }) = &self.process {
            let removed = client.remove_toxic(PROXY, &toxic.name).await;
            removed.expect("a toxic can be removed");
        }
    }

    /// Whether it is the real server.
    pub(crate) fn is_real(&self) -> bool {
        self.name == REAL
    }

    /// Whether it has a process of its own.
    pub(crate) fn is_proxy(&self) -> bool {
        self.process.is_some()
    }

    /// CPU that its process used so far, user and system, s.
    pub(crate) fn cpu_s(&self) -> f64 {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let stat = self.proc_file("stat");
        // Fields are counted from behind the name, which may hold anything.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |place: usize| {
            let text = after_name.split_whitespace().nth(place);
            text.and_then(|text| text.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        (field(11) + field(12)) / ticks
    }

    /// Its resident memory, MB.
    pub(crate) fn memory_mb(&self) -> f64 {
        let status = self.proc_file("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        kilobytes.unwrap_or(0.0) * 1024.0 / 1e6
    }

    fn proc_file(&self, name: &str) -> String {
        let Some(Process { child, .. }) = &self.process else {
            return String::new();
        };
        std::fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap_or_default()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark has no command line of its own"
)]
fn real_server() -> Option<String> {
    std::env::var("TOXIPROXY_SERVER").ok()
}

async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let address = listener.and_then(|listener| listener.local_addr());
    address.expect("loopback has a free port").port()
}

async fn answering(client: &Client) {
    let asking = async {
        while client.version().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(ANSWERS_WITHIN, asking)
        .await
        .expect("the proxy answers");
}

/// Raises the limit as far as it goes, for this process and its children; what it then is.
pub(crate) fn allow_many_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it is not allowed, fewer connections are measured, and the output says how many.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
