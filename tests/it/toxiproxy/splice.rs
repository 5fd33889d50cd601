//! The way inside the kernel: taken when nobody looks at the bytes, left for toxics, invisible otherwise.

use chaos_harness::toxiproxy::wire::{Protocol, ProxyStats, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Link, NEVER_MS, read_end, toxic, within};

/// Well beyond what is carried in user space first, and no multiple of any buffer.
const LENGTH: usize = 3_000_001;

fn payload(from: usize, length: usize) -> Vec<u8> {
    (from..from + length)
        .map(|place| (place % 251) as u8)
        .collect()
}

/// Sends bytes that continue at `from` and reads them at the other end.
async fn carry(sender: &mut TcpStream, receiver: &mut TcpStream, from: usize, length: usize) {
    let sent = payload(from, length);
    let mut received = vec![0; length];
    let (written, read) = within("the bytes", async {
        tokio::join!(sender.write_all(&sent), receiver.read_exact(&mut received))
    })
    .await;
    written.unwrap();
    read.unwrap();
    assert!(received == sent, "bytes from {from}");
}

fn sum(stats: &ProxyStats) -> u64 {
    stats.bytes.downstream_sent
}

#[tokio::test]
async fn plain_bytes_go_inside_the_kernel_after_a_while_and_are_counted() {
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    carry(&mut callee, &mut caller, 0, 1000).await;
    assert_eq!(link.stats().await.bytes.spliced, 0);
    carry(&mut callee, &mut caller, 1000, LENGTH).await;
    let stats = link.stats_when("all is counted", |stats| sum(stats) == LENGTH as u64 + 1000);
    let bytes = stats.await.bytes;
    assert_eq!(bytes.downstream_received, bytes.downstream_sent);
    assert!(bytes.spliced > LENGTH as u64 / 2, "{bytes:?}");
    carry(&mut caller, &mut callee, 0, 1000).await;
    drop(callee);
    assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
}

#[tokio::test]
async fn few_bytes_at_a_time_stay_in_user_space_however_many_they_become() {
    const MESSAGE: usize = 4096;
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    for from in (0..LENGTH / 4).step_by(MESSAGE) {
        carry(&mut callee, &mut caller, from, MESSAGE).await;
    }
    assert_eq!(link.stats().await.bytes.spliced, 0);
}

#[tokio::test]
async fn reset_of_a_spliced_connection_arrives_as_a_reset() {
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    carry(&mut callee, &mut caller, 0, LENGTH).await;
    callee.set_zero_linger().unwrap();
    drop(callee);
    let (bytes, error) = read_end(&mut caller).await;
    assert!(bytes.is_empty());
    assert_eq!(error, Some(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn toxic_on_a_spliced_connection_acts_at_once_and_loses_nothing() {
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    carry(&mut callee, &mut caller, 0, LENGTH).await;
    link.set(&[toxic("stall", Stream::Downstream)]).await;
    let before = link.stats().await.bytes.spliced;
    callee.write_all(&payload(LENGTH, 1000)).await.unwrap();
    link.stats_when("the bytes are held", |stats| {
        stats.toxics["stall-downstream"].held_bytes == 1000
    })
    .await;
    link.set(&[]).await;
    let mut held = vec![0; 1000];
    within("the held bytes", caller.read_exact(&mut held))
        .await
        .unwrap();
    assert_eq!(held, payload(LENGTH, 1000));
    carry(&mut callee, &mut caller, 0, LENGTH).await;
    let after = link.stats().await.bytes.spliced;
    assert_eq!(after, before, "it does not go over again");
}

#[tokio::test]
async fn reset_reaches_a_connection_whose_caller_does_not_read() {
    let link = Link::new().await;
    let (caller, mut callee) = link.connect().await;
    link.set(&[toxic("noop", Stream::Downstream)]).await;
    // Made before, since it takes long: the server runs on this thread too.
    let bytes = payload(0, 12 * LENGTH);
    let sender = tokio::spawn(async move { callee.write_all(&bytes).await });
    let stuck = |stats: &ProxyStats| stats.bytes.downstream_received > sum(stats);
    link.stats_when("bytes to be stuck", stuck).await;
    link.set(&[toxic("reset", Stream::Downstream)]).await;
    let sent = within("the callee to hear of it", sender).await.unwrap();
    assert!(sent.is_err(), "{sent:?}");
    drop(caller);
}

#[tokio::test]
async fn bytes_in_the_pipe_arrive_before_what_a_toxic_lets_through() {
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    carry(&mut callee, &mut caller, 0, LENGTH).await;
    // The caller does not read, so the pipe fills up and stays full.
    let bytes = payload(0, 6 * LENGTH);
    let sender = tokio::spawn(async move {
        callee.write_all(&bytes).await.unwrap();
    });
    let stuck = |stats: &ProxyStats| stats.bytes.downstream_received > sum(stats);
    link.stats_when("the pipe to hold bytes", stuck).await;
    link.set(&[toxic("slicer", Stream::Downstream).with("average_size", 9000)])
        .await;
    let mut received = vec![0; 6 * LENGTH];
    within("all bytes", caller.read_exact(&mut received))
        .await
        .unwrap();
    assert!(received == payload(0, 6 * LENGTH));
    within("the sender", sender).await.unwrap();
}

#[tokio::test]
async fn logged_and_touched_links_stay_in_user_space() {
    let logged = Link::with(|proxy| proxy.protocol = Protocol::Http).await;
    let touched = Link::new().await;
    touched
        .set(&[toxic("slow_close", Stream::Upstream).with("delay", NEVER_MS)])
        .await;
    for link in [logged, touched] {
        let (mut caller, mut callee) = link.connect().await;
        carry(&mut callee, &mut caller, 0, LENGTH).await;
        assert_eq!(link.stats().await.bytes.spliced, 0);
    }
}

#[tokio::test]
async fn more_connections_than_pipes_all_carry() {
    let link = Link::new().await;
    let mut pairs = Vec::new();
    for _ in 0..80 {
        pairs.push(link.connect().await);
    }
    let tasks: Vec<_> = pairs
        .into_iter()
        .map(|(mut caller, mut callee)| {
            tokio::spawn(async move { carry(&mut callee, &mut caller, 0, LENGTH).await })
        })
        .collect();
    for task in tasks {
        within("a connection", task).await.unwrap();
    }
    assert!(link.stats().await.bytes.spliced > 0);
}
