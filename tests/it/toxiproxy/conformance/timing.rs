//! What both servers do to connections over time: not before when, in which order, and not as late as an
//! implementation that got it wrong would need. How exact the delays are is for `benches/proxy` to say.

use std::io::ErrorKind;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::super::{NEVER_MS, address, read_end, read_exact, within};
use super::connections::{Link, wait_until_read};
use super::on_each;

/// A moment that something must not come before.
struct Since(Instant);

impl Since {
    fn now() -> Self {
        Self(Instant::now())
    }

    #[track_caller]
    fn not_before(&self, ms: u64) {
        let passed = self.0.elapsed();
        assert!(
            passed >= Duration::from_millis(ms),
            "after {passed:?}, not before {ms} ms"
        );
    }

    /// Such a time would be the sign of a wrong order of things, and not of a slow machine.
    #[track_caller]
    fn before(&self, ms: u64) {
        let passed = self.0.elapsed();
        assert!(
            passed < Duration::from_millis(ms),
            "only after {passed:?}, expected long before {ms} ms"
        );
    }
}

#[tokio::test]
async fn latency_delays_data_and_not_the_end() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        link.add("latency", json!({ "latency": 200 })).await;
        let sent = Since::now();
        callee.write_all(b"x").await.unwrap();
        assert_eq!(read_exact(&mut caller, 1).await, "x");
        sent.not_before(200);
        link.update(json!({ "latency": NEVER_MS })).await;
        drop(callee);
        assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
    })
    .await;
}

#[tokio::test]
async fn latency_counts_from_each_arrival_and_delays_chunks_side_by_side() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        link.add("latency", json!({ "latency": 2000 })).await;
        let sent = Since::now();
        for _ in 0..5 {
            callee.write_all(b"x").await.unwrap();
            wait_until_read(&callee).await;
        }
        assert_eq!(read_exact(&mut caller, 5).await, "xxxxx");
        sent.not_before(2000);
        sent.before(2 * 2000);
    })
    .await;
}

#[tokio::test]
async fn latencies_of_one_direction_add_up_and_a_negative_one_is_none() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        for name in ["one", "two"] {
            link.add_named(name, "latency", json!({ "latency": 150 }))
                .await;
        }
        link.add_named("three", "latency", json!({ "latency": -NEVER_MS }))
            .await;
        let sent = Since::now();
        callee.write_all(b"x").await.unwrap();
        assert_eq!(read_exact(&mut caller, 1).await, "x");
        sent.not_before(300);
    })
    .await;
}

#[tokio::test]
async fn changed_latency_lets_go_what_it_held_and_gives_the_rest_the_new_delay() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        link.add("latency", json!({ "latency": NEVER_MS })).await;
        for part in ["one ", "two"] {
            callee.write_all(part.as_bytes()).await.unwrap();
            wait_until_read(&callee).await;
        }
        link.update(json!({ "latency": NEVER_MS - 1 })).await;
        assert_eq!(read_exact(&mut caller, 4).await, "one ");
        link.update(json!({ "latency": 1 })).await;
        assert_eq!(read_exact(&mut caller, 3).await, "two");
    })
    .await;
}

#[tokio::test]
async fn bandwidth_is_in_thousands_of_bytes_and_trickles() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        link.add("bandwidth", json!({ "rate": 10 })).await;
        let sent = Since::now();
        callee.write_all(&[b'x'; 30_000]).await.unwrap();
        read_exact(&mut caller, 1000).await;
        // Large chunks are cut: else it would come with the rest of them.
        sent.before(3000);
        sent.not_before(90);
        read_exact(&mut caller, 4000).await;
        sent.not_before(480);
    })
    .await;
}

#[tokio::test]
async fn slow_close_is_late_with_the_end_and_nothing_else() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        link.add("slow_close", json!({ "delay": 300 })).await;
        let (mut caller, mut callee) = link.connect().await;
        let closed = Since::now();
        callee.write_all(b"last").await.unwrap();
        drop(callee);
        assert_eq!(read_exact(&mut caller, 4).await, "last");
        assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
        closed.not_before(300);
        // The other direction ends when it likes.
        link.update(json!({ "delay": NEVER_MS })).await;
        let (caller, mut callee) = link.connect().await;
        drop(caller);
        assert_eq!(read_end(&mut callee).await.0, b"");
    })
    .await;
}

#[tokio::test]
async fn removed_slow_close_closes_now() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        link.add("slow_close", json!({ "delay": NEVER_MS })).await;
        let (mut caller, mut callee) = link.connect().await;
        callee.write_all(b"last").await.unwrap();
        drop(callee);
        assert_eq!(read_exact(&mut caller, 4).await, "last");
        link.remove().await;
        assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
    })
    .await;
}

#[tokio::test]
async fn timeout_closes_an_idle_connection_and_starts_anew_with_what_it_drops() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        link.add("timeout", json!({ "timeout": 300 })).await;
        let started = Since::now();
        let (mut caller, mut callee) = link.dial().await;
        assert_eq!(read_end(&mut caller).await.0, b"");
        started.not_before(300);
        assert_eq!(read_end(&mut callee).await.0, b"");

        link.update(json!({ "timeout": 1000 })).await;
        let (mut caller, mut callee) = link.dial().await;
        let started = Since::now();
        tokio::time::sleep_until(started.0 + Duration::from_millis(400)).await;
        callee.write_all(b"dropped").await.unwrap();
        assert_eq!(read_end(&mut caller).await.0, b"");
        started.not_before(1400);
    })
    .await;
}

#[tokio::test]
async fn timeout_of_zero_closes_with_its_peers_only() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        link.add("timeout", json!({})).await;
        callee.write_all(b"lost").await.unwrap();
        wait_until_read(&callee).await;
        // The way there is open: only answers are swallowed.
        caller.write_all(b"asked").await.unwrap();
        assert_eq!(read_exact(&mut callee, 5).await, "asked");
        drop(callee);
        assert_eq!(read_end(&mut caller).await.0, b"");
    })
    .await;
}

#[tokio::test]
async fn reset_peer_waits_for_the_first_chunk_and_then_its_time() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        link.add("reset_peer", json!({ "timeout": 300 })).await;
        let (mut caller, mut callee) = link.dial().await;
        // The other way is not concerned, and nothing was said this way yet.
        caller.write_all(b"asked").await.unwrap();
        assert_eq!(read_exact(&mut callee, 5).await, "asked");
        let said = Since::now();
        callee.write_all(b"swallowed").await.unwrap();
        let reset = Some(ErrorKind::ConnectionReset);
        assert_eq!(read_end(&mut caller).await, (Vec::new(), reset));
        said.not_before(300);
    })
    .await;
}

#[tokio::test]
async fn slicer_waits_after_each_piece() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        let (mut caller, mut callee) = link.connect().await;
        // At least seven pieces of at most 15 bytes, 50 ms after each.
        let sizes = json!({ "average_size": 10, "size_variation": 5, "delay": 50_000 });
        link.add("slicer", sizes).await;
        let sent = Since::now();
        let text = "0123456789".repeat(10);
        callee.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(read_exact(&mut caller, 100).await, text);
        sent.not_before(6 * 50);
    })
    .await;
}

#[tokio::test]
async fn data_limit_hit_exactly_closes_counts_through_changes_and_waits_for_data() {
    on_each(async |server| {
        let link = Link::new(&server).await;
        link.add("limit_data", json!({ "bytes": 4 })).await;
        let (mut caller, mut callee) = link.dial().await;
        callee.write_all(b"0123").await.unwrap();
        assert_eq!(read_end(&mut caller).await.0, b"0123");
        assert_eq!(read_end(&mut callee).await.0, b"");

        let (mut caller, mut callee) = link.dial().await;
        callee.write_all(b"01").await.unwrap();
        assert_eq!(read_exact(&mut caller, 2).await, "01");
        link.update(json!({ "bytes": 3 })).await;
        callee.write_all(b"2345").await.unwrap();
        assert_eq!(read_end(&mut caller).await.0, b"2");

        link.update(json!({ "bytes": 0 })).await;
        let (mut caller, mut callee) = link.dial().await;
        caller.write_all(b"asked").await.unwrap();
        assert_eq!(read_exact(&mut callee, 5).await, "asked");
        callee.write_all(b"x").await.unwrap();
        assert_eq!(read_end(&mut caller).await.0, b"");
    })
    .await;
}

/// The server is frozen while the caller connects and speaks, so that its words are there when the dial fails.
#[tokio::test]
async fn caller_of_a_dead_callee_who_has_spoken_is_reset() {
    on_each(async |server| {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = address(&free).to_string();
        drop(free);
        let listen = server.proxy("a", "127.0.0.1:0", &upstream).await;
        let id = i32::try_from(server.process.id().unwrap()).unwrap();
        let server_process = Pid::from_raw(id).unwrap();
        kill_process(server_process, Signal::STOP).unwrap();
        within("the server to stand still", async {
            while !stands_still(id) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let mut caller = TcpStream::connect(&listen).await.unwrap();
        caller.write_all(b"words").await.unwrap();
        kill_process(server_process, Signal::CONT).unwrap();
        let reset = Some(ErrorKind::ConnectionReset);
        assert_eq!(read_end(&mut caller).await, (Vec::new(), reset));
    })
    .await;
}

/// Whether every thread of a process is stopped: proc(5), `/proc/PID/task/TID/stat`.
fn stands_still(process: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut states = threads.map(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat"));
        stat.is_ok_and(|stat| stat.contains(") T "))
    });
    states.all(|is_stopped| is_stopped)
}
