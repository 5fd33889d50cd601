//! A run through somebody's Toxiproxy: only what such a server can do, only the run's own proxies,
//! none of them left. `TOXIPROXY_SERVER` names a real server's binary; without it, ours stands in.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use chaos_harness::plan::{self, BuildOptions};
use chaos_harness::scenario::{self, LoadOptions};
use chaos_harness::toxiproxy::client::Client;
use chaos_harness::toxiproxy::wire::{Proxy, Stream, Toxic};
use rustix::process::Signal;

use crate::scene::{PAIR, Scene, send};
use crate::support::{SOON, chaos, eventually, until_some};

const SCENARIO: &str = "
load: { journeys: { call: 1 }, arrivals: 50/s, timeout: 1s }
phases: { warm-up: 500ms, baseline: 1500ms, recovery: 1500ms }
faults: { slow: { at: 0s, for: 2s, link: caller -> callee, inject: { latency: 200ms } } }
expect: { judged: { errors: { operation: call, during: slow, at-most: 10% } } }
";

/// A server that outlives the run, with a proxy and a toxic of somebody else's.
struct Shared {
    server: Child,
    url: String,
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Shared {
    #[expect(clippy::disallowed_methods, reason = "the server of the test")]
    fn start() -> Shared {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = free.local_addr().expect("bound").port().to_string();
        drop(free);
        let mut command = match std::env::var_os("TOXIPROXY_SERVER") {
            Some(real) => Command::new(real),
            None => {
                let mut own = Command::new(chaos());
                own.arg("proxy");
                own
            }
        };
        let flags = match std::env::var_os("TOXIPROXY_SERVER") {
            Some(_) => ["-host", "127.0.0.1", "-port", &port],
            None => ["--host", "127.0.0.1", "--port", &port],
        };
        let command = command.args(flags).stdin(Stdio::null());
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        let server = quiet.spawn().expect("started");
        let url = format!("http://127.0.0.1:{port}");
        let shared = Shared {
            server,
            client: Client::new(&url).expect("a client"),
            url,
            runtime: tokio::runtime::Runtime::new().expect("a runtime"),
        };
        shared.add_somebody_elses();
        shared
    }

    fn add_somebody_elses(&self) {
        until_some("the server", SOON, || {
            self.runtime.block_on(self.client.version()).ok()
        });
        let proxy = Proxy::new("theirs", "127.0.0.1:0", "127.0.0.1:1");
        let toxic = Toxic::new("slow", "latency", Stream::Upstream).with("latency", 5);
        let done = self.runtime.block_on(async {
            self.client.create(&proxy).await?;
            self.client.add_toxic("theirs", &toxic).await
        });
        done.expect("created");
    }

    /// Only what was there before is there, as it was.
    #[track_caller]
    fn assert_as_before(&self) {
        let proxies = self.runtime.block_on(self.client.proxies());
        let proxies = proxies.expect("an answer");
        assert_eq!(proxies.keys().collect::<Vec<_>>(), ["theirs"]);
        assert!(proxies["theirs"].enabled);
        assert_eq!(proxies["theirs"].toxics.len(), 1);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn what_nobody_counts_is_inconclusive_and_nothing_stays_on_the_server() {
    let shared = Shared::start();
    let scene = Scene::new(PAIR, SCENARIO);
    let done = scene.start_with(&["--toxiproxy", &shared.url]).end();
    done.ends(3, &["INCONCLUSIVE  judged"]);
    let verdict = done.verdict("judged");
    let told = |field: &str| verdict[field].as_str().unwrap_or_default().to_owned();
    assert!(
        told("why").contains("nobody tells what crossed `caller -> callee`"),
        "{verdict}"
    );
    assert!(told("help").contains("add `call` records"), "{verdict}");
    shared.assert_as_before();
}

#[test]
fn fault_beyond_a_toxiproxy_is_refused_before_anything_starts() {
    let scenario = SCENARIO.replace("{ latency: 200ms }", "{ down: { how: reset } }");
    let scene = Scene::new(PAIR, &scenario);
    let done = scene.start_with(&["--toxiproxy", "127.0.0.1:1"]).end();
    done.ends(2, &["scenario::beyond-toxiproxy", "how: reset", "refuse"]);
    assert!(done.run.is_none(), "nothing was started");
}

#[test]
fn attribute_that_a_toxiproxy_would_skip_is_refused() {
    let toxic = "{ toxic: { type: latency, attributes: { latency: 200, distribution: normal } } }";
    let scenario = SCENARIO.replace("{ latency: 200ms }", toxic);
    let done = Scene::new(PAIR, &scenario)
        .start_with(&["--toxiproxy", "127.0.0.1:1"])
        .end();
    done.ends(
        2,
        &["scenario::beyond-toxiproxy", "`distribution` of the toxic"],
    );
}

#[test]
fn plan_says_which_faults_no_caller_would_notice() {
    let slicer = "{ slicer: { average-size: 10B, delay: 1ms } }";
    let scenario = SCENARIO.replace("{ latency: 200ms }", slicer);
    let scene = Scene::new(PAIR, &scenario);
    let loaded = scenario::load(&scene.path("scenario.yaml"), &LoadOptions::default());
    let options = BuildOptions {
        toxiproxy: Some("http://127.0.0.1:1".into()),
        environment: [("FIXTURE".into(), "fixture".into())].into(),
        ..BuildOptions::default()
    };
    let plan = plan::build(&loaded.expect("a sound file"), &options).expect("a sound plan");
    let told = plan.uncounted().join("\n");
    assert!(
        told.contains("`slicer` shows in no `call` record"),
        "{told}"
    );
}

#[test]
fn server_that_does_not_answer_is_named_with_what_to_do() {
    let done = Scene::new(PAIR, SCENARIO)
        .start_with(&["--toxiproxy", "127.0.0.1:1"])
        .end();
    done.ends(
        4,
        &["reach the Toxiproxy at http://127.0.0.1:1", "start it"],
    );
}

#[test]
fn server_that_hangs_is_remembered_until_what_was_left_there_is_gone() {
    let shared = Shared::start();
    let server = i32::try_from(shared.server.id()).expect("a pid");
    let scene = Scene::new(PAIR, SCENARIO);
    let running = scene.start_with(&["--toxiproxy", &shared.url]);
    running.await_event("fault-applied", "slow");
    send(server, Signal::STOP);
    running.signal(Signal::INT);
    let done = running.end();
    assert!(done.text.contains("left behind"), "{}", done.text);
    let lock = done.folder().join("run.lock");
    assert!(lock.exists(), "the next start must find it");
    let told = scene.chaos(&["clean"]).end();
    told.ends(4, &["left in spite of all", "proxies `chaos-"]);
    send(server, Signal::CONT);
    scene.chaos(&["clean"]).end().ends(0, &["cleared"]);
    assert!(!lock.exists());
    shared.assert_as_before();
}

#[test]
fn proxy_that_somebody_changed_during_boot_ends_the_run() {
    let shared = Shared::start();
    let go = tempfile::NamedTempFile::new().expect("a file");
    let ready = format!("{{ command: [test, \"!\", -e, {}] }}", go.path().display());
    let scene = Scene::new(&PAIR.replace("{ tcp: http }", &ready), SCENARIO);
    let running = scene.start_with(&["--toxiproxy", &shared.url]);
    running.await_event("link-created", "caller -> spare");
    shared.runtime.block_on(async {
        let proxies = shared.client.proxies().await.expect("an answer");
        let of_run = proxies.keys().find(|name| name.starts_with("chaos-"));
        let toxic = Toxic::new("stray", "noop", Stream::Upstream);
        let added = shared.client.add_toxic(of_run.expect("there"), &toxic);
        added.await.expect("added");
    });
    drop(go);
    let done = running.end();
    done.ends(
        4,
        &["it has toxic `stray`", "see who else uses this Toxiproxy"],
    );
    shared.assert_as_before();
}

#[test]
fn killed_run_leaves_nothing_on_the_server() {
    let shared = Shared::start();
    let scene = Scene::new(PAIR, SCENARIO);
    let running = scene.start_with(&["--toxiproxy", &shared.url]);
    running.await_event("fault-applied", "slow");
    running.signal(Signal::KILL);
    let done = running.end();
    let lock = done.folder().join("run.lock");
    eventually("the keeper's clean-up", SOON, || !lock.exists());
    shared.assert_as_before();
}
