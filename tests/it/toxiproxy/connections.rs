//! What toxics do to live connections, in both directions, and what closing means.

use std::io::ErrorKind;

use chaos_harness::toxiproxy::wire::{Proxy, Stream};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{
    Link, NEVER_MS, address, echo, ends, read_end, read_exact, start, start_seeded, toxic, within,
};

const BOTH: [Stream; 2] = [Stream::Upstream, Stream::Downstream];

#[tokio::test]
async fn callee_may_answer_after_the_caller_said_its_last() {
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    caller.write_all(b"ask").await.unwrap();
    caller.shutdown().await.unwrap();
    assert_eq!(read_end(&mut callee).await, (b"ask".to_vec(), None));
    callee.write_all(b"answer").await.unwrap();
    drop(callee);
    assert_eq!(read_end(&mut caller).await, (b"answer".to_vec(), None));
}

#[tokio::test]
async fn reset_arrives_as_reset_and_close_as_close() {
    for stream in BOTH {
        let link = Link::new().await;
        let (sender, mut receiver) = ends(stream, link.connect().await);
        sender.set_zero_linger().unwrap();
        drop(sender);
        assert_eq!(
            read_end(&mut receiver).await.1,
            Some(ErrorKind::ConnectionReset),
            "{stream:?}"
        );

        let (sender, mut receiver) = ends(stream, link.connect().await);
        drop(sender);
        assert_eq!(read_end(&mut receiver).await.1, None, "{stream:?}");
    }
}

/// Sends byte after byte until the proxy must have met that nobody takes them any more.
async fn knock(link: &Link, stream: Stream, from: &mut TcpStream) {
    for count in 1..=4 {
        from.write_all(b"?").await.unwrap();
        link.stats_when("a byte to be read", |stats| match stream {
            Stream::Upstream => stats.bytes.upstream_received == count,
            Stream::Downstream => stats.bytes.downstream_received == count,
        })
        .await;
    }
}

#[tokio::test]
async fn bytes_of_a_peer_that_has_gone_arrive_although_it_takes_none() {
    for [stream, back] in [BOTH, [BOTH[1], BOTH[0]]] {
        for end in [None, Some(ErrorKind::ConnectionReset)] {
            let link = Link::new().await;
            let (mut sender, mut receiver) = ends(stream, link.connect().await);
            link.set(&[toxic("stall", stream)]).await;
            let name = toxic("stall", stream).name;
            sender.write_all(b"last words").await.unwrap();
            link.stats_when("the words", |stats| stats.toxics[&name].held_chunks == 1)
                .await;
            if end.is_some() {
                sender.set_zero_linger().unwrap();
            }
            drop(sender);
            link.stats_when("the end", |stats| stats.toxics[&name].held_chunks == 2)
                .await;
            knock(&link, back, &mut receiver).await;
            link.set(&[]).await;
            assert_eq!(read_end(&mut receiver).await, (b"last words".to_vec(), end));
            link.stats_when("the end", |stats| stats.connections.open == 0)
                .await;
        }
    }
}

#[tokio::test]
async fn reset_that_only_a_write_meets_arrives_behind_the_bytes() {
    const HELD: usize = 256 * 1024;
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    let stall = toxic("stall", Stream::Downstream);
    link.set(std::slice::from_ref(&stall)).await;
    let flood = tokio::spawn(async move {
        let block = vec![0; 64 * 1024];
        while callee.write_all(&block).await.is_ok() {}
    });
    link.stats_when("a full proxy", |stats| {
        stats.toxics[&stall.name].held_bytes as usize >= HELD
    })
    .await;
    // Ends the callee, whose bytes wait on both sides of it.
    flood.abort();
    assert!(flood.await.unwrap_err().is_cancelled());
    knock(&link, Stream::Upstream, &mut caller).await;
    link.set(&[]).await;
    let (bytes, end) = read_end(&mut caller).await;
    // A reset overtakes what the caller's side had no room for, as it does without a proxy.
    assert!(!bytes.is_empty());
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn what_waits_for_a_toxic_is_delivered_when_it_goes() {
    for stream in BOTH {
        for (kind, attribute, value) in [
            ("latency", "latency", NEVER_MS),
            ("stall", "", 0),
            ("bandwidth", "rate", 0),
        ] {
            let link = Link::new().await;
            let (mut sender, mut receiver) = ends(stream, link.connect().await);
            sender.write_all(b"before ").await.unwrap();
            assert_eq!(read_exact(&mut receiver, 7).await, "before ");
            link.set(&[toxic(kind, stream).with(attribute, value)])
                .await;
            sender.write_all(b"during").await.unwrap();
            let name = toxic(kind, stream).name;
            let waits = |bytes: u64| bytes == 6;
            link.stats_when("bytes to wait", |stats| {
                let toxic = &stats.toxics[&name];
                waits(toxic.delayed_bytes + toxic.held_bytes)
            })
            .await;
            link.set(&[]).await;
            assert_eq!(
                read_exact(&mut receiver, 6).await,
                "during",
                "{kind} {stream:?}"
            );
        }
    }
}

#[tokio::test]
async fn toxic_on_one_direction_leaves_the_other_alone() {
    for stream in BOTH {
        let link = Link::new().await;
        let (mut sender, mut receiver) = ends(stream, link.connect().await);
        link.set(&[toxic("stall", stream)]).await;
        receiver.write_all(b"back").await.unwrap();
        assert_eq!(read_exact(&mut sender, 4).await, "back");
    }
}

#[tokio::test]
async fn black_hole_swallows_and_its_removal_closes() {
    for stream in BOTH {
        let link = Link::new().await;
        let (mut sender, mut receiver) = ends(stream, link.connect().await);
        link.set(&[toxic("timeout", stream)]).await;
        sender.write_all(b"lost").await.unwrap();
        let name = toxic("timeout", stream).name;
        link.stats_when("a drop", |stats| stats.toxics[&name].dropped_bytes == 4)
            .await;
        link.set(&[]).await;
        assert_eq!(read_end(&mut receiver).await, (Vec::new(), None));
        assert_eq!(read_end(&mut sender).await, (Vec::new(), None));
        assert_eq!(link.stats().await.connections.cut, 1);
    }
}

#[tokio::test]
async fn timeout_closes_both_sides() {
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    link.set(&[toxic("timeout", Stream::Downstream).with("timeout", 1)])
        .await;
    assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
    assert_eq!(read_end(&mut callee).await, (Vec::new(), None));
}

#[tokio::test]
async fn limit_is_exact_and_then_both_sides_close() {
    for stream in BOTH {
        let link = Link::new().await;
        let (mut sender, mut receiver) = ends(stream, link.connect().await);
        link.set(&[toxic("limit_data", stream).with("bytes", 10)])
            .await;
        sender.write_all(b"0123456").await.unwrap();
        assert_eq!(read_exact(&mut receiver, 7).await, "0123456");
        sender.write_all(b"789").await.unwrap();
        assert_eq!(read_end(&mut receiver).await, (b"789".to_vec(), None));
        assert_eq!(read_end(&mut sender).await, (Vec::new(), None));
    }
}

#[tokio::test]
async fn slow_close_is_late_in_its_direction_only() {
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    let name = toxic("slow_close", Stream::Upstream).name;
    link.set(&[toxic("slow_close", Stream::Upstream).with("delay", NEVER_MS)])
        .await;
    caller.write_all(b"data").await.unwrap();
    caller.shutdown().await.unwrap();
    assert_eq!(read_exact(&mut callee, 4).await, "data");
    link.stats_when("the end to wait", |stats| {
        stats.toxics[&name].delayed_chunks == 1
    })
    .await;
    callee.write_all(b"answer").await.unwrap();
    callee.shutdown().await.unwrap();
    assert_eq!(read_end(&mut caller).await, (b"answer".to_vec(), None));
    link.set(&[]).await;
    assert_eq!(read_end(&mut callee).await, (Vec::new(), None));
}

#[tokio::test]
async fn reset_peer_resets_connections_that_are_older_than_it() {
    for stream in BOTH {
        let link = Link::new().await;
        let (mut sender, mut receiver) = ends(stream, link.connect().await);
        link.set(&[toxic("reset_peer", stream)]).await;
        sender.write_all(b"x").await.unwrap();
        assert_eq!(
            read_end(&mut receiver).await,
            (Vec::new(), Some(ErrorKind::ConnectionReset))
        );
        assert_eq!(
            read_end(&mut sender).await.1,
            Some(ErrorKind::ConnectionReset)
        );
    }
}

#[tokio::test]
async fn reset_peer_takes_an_end_for_a_word() {
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    link.set(&[toxic("reset_peer", Stream::Upstream)]).await;
    caller.shutdown().await.unwrap();
    for peer in [&mut caller, &mut callee] {
        assert_eq!(read_end(peer).await.1, Some(ErrorKind::ConnectionReset));
    }
}

#[tokio::test]
async fn connection_that_reset_peer_spared_or_let_go_of_ends_with_a_close() {
    let late = toxic("reset_peer", Stream::Upstream).with("timeout", NEVER_MS);
    let mut spares = late.clone();
    spares.toxicity = 0.0;
    for (during, after) in [(late, vec![]), (spares.clone(), vec![spares])] {
        let link = Link::new().await;
        link.set(&[during]).await;
        let (mut caller, mut callee) = link.connect().await;
        link.set(&after).await;
        caller.write_all(b"x").await.unwrap();
        assert_eq!(read_exact(&mut callee, 1).await, "x");
        callee.write_all(b"answer").await.unwrap();
        drop(callee);
        assert_eq!(read_end(&mut caller).await, (b"answer".to_vec(), None));
    }
}

#[tokio::test]
async fn reset_takes_live_and_new_connections_and_the_callee_hears_of_no_new_one() {
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    link.running
        .client
        .set_toxics("link", &[toxic("reset", Stream::Downstream)])
        .await
        .unwrap();
    assert_eq!(
        read_end(&mut caller).await.1,
        Some(ErrorKind::ConnectionReset)
    );
    assert_eq!(
        read_end(&mut callee).await.1,
        Some(ErrorKind::ConnectionReset)
    );
    let mut late = TcpStream::connect(link.listen).await.unwrap();
    assert_eq!(
        read_end(&mut late).await.1,
        Some(ErrorKind::ConnectionReset)
    );
    link.stats_when("two resets", |stats| {
        stats.toxics["reset-downstream"].reset == 2
    })
    .await;
    link.set(&[]).await;
    let (mut caller, mut callee) = link.connect().await;
    caller.write_all(b"again").await.unwrap();
    assert_eq!(read_exact(&mut callee, 5).await, "again");
}

#[tokio::test]
async fn set_of_toxics_is_one_generation_for_both_directions() {
    let link = Link::new().await;
    let (_caller, _callee) = link.connect().await;
    let before = link.stats().await.generation;
    link.set(&[
        toxic("stall", Stream::Upstream),
        toxic("stall", Stream::Downstream),
    ])
    .await;
    let stats = link.stats().await;
    assert_eq!(stats.generation, before + 1);
    assert_eq!((stats.current, stats.older, stats.confirmed), (1, 0, true));
    let connections = |name: &str| stats.toxics[name].connections;
    assert_eq!(
        (
            connections("stall-upstream"),
            connections("stall-downstream")
        ),
        (1, 1)
    );
}

/// A callee that sends until its connection ends, to a caller who does not read.
async fn flood(link: &Link, mut callee: TcpStream) -> JoinHandle<()> {
    let flood = tokio::spawn(async move {
        let block = vec![0; 1 << 20];
        while callee.write_all(&block).await.is_ok() {}
    });
    link.stats_when("the flood", |stats| {
        stats.bytes.downstream_received > 1 << 18
    })
    .await;
    flood
}

#[tokio::test]
async fn peer_that_never_reads_holds_up_no_call() {
    let link = Link::new().await;
    let (caller, callee) = link.connect().await;
    link.set(&[toxic("latency", Stream::Downstream).with("latency", 1)])
        .await;
    let flood = flood(&link, callee).await;
    link.set(&[]).await;
    link.running.client.proxies().await.unwrap();
    link.running.client.delete("link").await.unwrap();
    drop(caller);
    within("the flood to be cut", flood).await.unwrap();
}

#[tokio::test]
async fn time_limit_is_kept_for_a_peer_that_never_reads() {
    for (kind, attribute) in [
        ("limit_time", "time"),
        ("timeout", "timeout"),
        ("reset_peer", "timeout"),
    ] {
        let link = Link::new().await;
        let (_caller, callee) = link.connect().await;
        let flood = flood(&link, callee).await;
        let limit = toxic(kind, Stream::Downstream).with(attribute, 1);
        link.running
            .client
            .set_toxics("link", &[limit])
            .await
            .unwrap();
        within("the flood to be cut", flood).await.unwrap();
        link.stats_when("the end", |stats| stats.connections.open == 0)
            .await;
    }
}

#[tokio::test]
async fn attributes_that_kill_the_original_are_survived_under_traffic() {
    let running = start().await;
    let upstream = echo().await.to_string();
    let listen = running
        .client
        .create(&Proxy::new("link", "127.0.0.1:0", upstream))
        .await;
    let listen = listen.unwrap().listen;
    for (kind, attributes) in [
        ("slicer", vec![]),
        ("slicer", vec![("average_size", 10), ("size_variation", 50)]),
        ("bandwidth", vec![("rate", -1)]),
        ("latency", vec![("jitter", i64::MAX)]),
        ("timeout", vec![("timeout", i64::MAX)]),
        ("limit_data", vec![("bytes", i64::MIN)]),
        ("reset_peer", vec![("timeout", i64::MAX)]),
        ("slow_close", vec![("delay", i64::MAX)]),
    ] {
        let base = toxic(kind, Stream::Downstream);
        let deadly = attributes
            .into_iter()
            .fold(base, |toxic, (name, value)| toxic.with(name, value));
        let mut caller = TcpStream::connect(&listen).await.unwrap();
        running.client.add_toxic("link", &deadly).await.unwrap();
        caller.write_all(&[7; 100_000]).await.unwrap();
        running
            .client
            .remove_toxic("link", &deadly.name)
            .await
            .unwrap();
        drop(caller);
        let mut caller = TcpStream::connect(&listen).await.unwrap();
        caller.write_all(b"alive").await.unwrap();
        assert_eq!(read_exact(&mut caller, 5).await, "alive", "after {kind}");
    }
}

#[tokio::test]
async fn same_seed_hits_the_same_connections() {
    let pattern = async |seed| {
        let running = start_seeded(seed).await;
        let mut proxy = Proxy::new("link", "127.0.0.1:0", echo().await.to_string());
        let mut half = toxic("reset", Stream::Downstream);
        half.toxicity = 0.5;
        proxy.toxics.push(half);
        let listen = running
            .client
            .populate(&[proxy])
            .await
            .unwrap()
            .remove(0)
            .listen;
        let mut hits = Vec::new();
        for _ in 0..24 {
            let mut caller = TcpStream::connect(&listen).await.unwrap();
            // A reset may be there before the write.
            let _ = caller.write_all(b"x").await;
            let _ = caller.shutdown().await;
            hits.push(read_end(&mut caller).await.0.is_empty());
        }
        hits
    };
    let first = pattern(1).await;
    assert_eq!(first, pattern(1).await);
    assert_ne!(first, pattern(2).await);
    assert!(first.contains(&true) && first.contains(&false));
}

#[tokio::test]
async fn changing_toxics_draws_nothing_anew() {
    let link = Link::new().await;
    let mut half = toxic("stall", Stream::Upstream);
    half.toxicity = 0.5;
    let mut pairs = Vec::new();
    for _ in 0..16 {
        pairs.push(link.connect().await);
    }
    link.set(std::slice::from_ref(&half)).await;
    let before = link.stats().await.toxics[&half.name].clone();
    for name in ["one", "two"] {
        let other = chaos_harness::toxiproxy::wire::Toxic::new(name, "noop", Stream::Upstream);
        link.set(&[half.clone(), other]).await;
    }
    link.set(std::slice::from_ref(&half)).await;
    let client = &link.running.client;
    client.update_toxic("link", &half).await.unwrap();
    link.stats_when("the update to be confirmed", |stats| stats.confirmed)
        .await;
    let after = link.stats().await.toxics[&half.name].clone();
    assert_eq!(after, before, "acts on the same connections");
    assert!((1..16).contains(&before.connections));
}

#[tokio::test]
async fn callee_that_is_not_there_closes_the_caller() {
    let running = start().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = address(&free).to_string();
    drop(free);
    let proxy = running
        .client
        .create(&Proxy::new("link", "127.0.0.1:0", upstream))
        .await
        .unwrap();
    let mut caller = TcpStream::connect(&proxy.listen).await.unwrap();
    assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
    let stats = running.client.stats().await.unwrap();
    assert_eq!(stats.proxies["link"].connections.refused, 1);
}
