//! Proxies on and off: ports, restarts, dead callees, ends.

use std::io::ErrorKind;
use std::net::SocketAddr;

use chaos_harness::toxiproxy::wire::{Proxy, ProxyStats, ProxyUpdate, Stream, Toxic, WhenDown};
use chaos_harness::toxiproxy::{Client, Server, ServerError, ServerOptions};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

use super::{Link, address, read_end, read_exact, start, toxic, within};

fn enabled(enabled: bool) -> ProxyUpdate {
    ProxyUpdate {
        enabled: Some(enabled),
        ..ProxyUpdate::default()
    }
}

async fn connect_error(listen: impl tokio::net::ToSocketAddrs) -> Option<ErrorKind> {
    TcpStream::connect(listen)
        .await
        .err()
        .map(|error| error.kind())
}

#[tokio::test]
async fn disabled_proxy_cuts_and_refuses_and_comes_back_on_its_port() {
    let link = Link::new().await;
    let client = &link.running.client;
    let (mut caller, mut callee) = link.connect().await;
    link.set(&[toxic("noop", Stream::Upstream)]).await;
    let shown = client.update("link", &enabled(false)).await.unwrap();
    assert_eq!(shown.listen, link.listen.to_string());
    assert_eq!(
        connect_error(link.listen).await,
        Some(ErrorKind::ConnectionRefused)
    );
    assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
    assert_eq!(read_end(&mut callee).await, (Vec::new(), None));
    let shown = client.update("link", &enabled(true)).await.unwrap();
    assert_eq!(
        (shown.listen, shown.toxics.len()),
        (link.listen.to_string(), 1)
    );
    let (mut caller, mut callee) = link.connect().await;
    caller.write_all(b"back").await.unwrap();
    assert_eq!(read_exact(&mut callee, 4).await, "back");
}

#[tokio::test]
async fn dead_callee_refuses_and_live_connections_are_left_to_it() {
    let link = Link::with(|proxy| {
        proxy.when_down = WhenDown::Refuse;
        proxy.upstream_up = Some(false);
    })
    .await;
    let client = &link.running.client;
    assert_eq!(
        connect_error(link.listen).await,
        Some(ErrorKind::ConnectionRefused)
    );
    assert!(!link.stats().await.listening);
    let taken = tokio::net::TcpSocket::new_v4()
        .unwrap()
        .bind(link.listen)
        .unwrap_err();
    assert_eq!(
        taken.kind(),
        ErrorKind::AddrInUse,
        "the port is kept meanwhile"
    );

    let shown = client.set_upstream_up("link", true).await.unwrap();
    assert_eq!(
        (shown.enabled, shown.listen),
        (true, link.listen.to_string())
    );
    let (mut caller, mut callee) = link.connect().await;
    client.set_upstream_up("link", false).await.unwrap();
    assert_eq!(
        connect_error(link.listen).await,
        Some(ErrorKind::ConnectionRefused)
    );
    callee.write_all(b"still here").await.unwrap();
    assert_eq!(read_exact(&mut caller, 10).await, "still here");
    client.set_upstream_up("link", true).await.unwrap();
    link.connect().await;
}

#[tokio::test]
async fn what_a_call_says_of_a_callee_counts_more_than_what_is_found() {
    let link = Link::with(|proxy| proxy.when_down = WhenDown::Refuse).await;
    let client = &link.running.client;
    within("the callee to be tried", link.upstream.accept())
        .await
        .unwrap();
    assert_eq!(client.proxy("link").await.unwrap().upstream_up, None);
    client.set_upstream_up("link", false).await.unwrap();
    link.stats_when("the proxy to close", |stats| !stats.listening)
        .await;
    assert_eq!(
        connect_error(link.listen).await,
        Some(ErrorKind::ConnectionRefused)
    );
    assert_eq!(client.proxy("link").await.unwrap().upstream_up, Some(false));
}

#[tokio::test]
async fn callee_that_goes_and_comes_back_is_followed() {
    // Bound all the time, so that nobody else gets the port.
    let bound = |to: SocketAddr| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(to).unwrap();
        socket
    };
    let place = bound("127.0.0.1:0".parse().unwrap());
    let upstream = place.local_addr().unwrap();
    let callee = bound(upstream).listen(64).unwrap();
    let running = start().await;
    let mut proxy = Proxy::new("link", "127.0.0.1:0", upstream.to_string());
    proxy.when_down = WhenDown::Refuse;
    let listen = running.client.create(&proxy).await.unwrap().listen;
    let follows = async |refused: Option<ErrorKind>| {
        within("the proxy to follow its upstream", async {
            while connect_error(&listen).await != refused {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    follows(None).await;
    drop(callee);
    follows(Some(ErrorKind::ConnectionRefused)).await;
    let _back = bound(upstream).listen(64).unwrap();
    follows(None).await;
}

#[tokio::test]
async fn moving_drops_connections_and_standing_still_does_not() {
    let link = Link::new().await;
    let client = &link.running.client;
    let (mut caller, mut callee) = link.connect().await;
    client.update("link", &enabled(true)).await.unwrap();
    let same = ProxyUpdate {
        listen: Some(link.listen.to_string()),
        ..ProxyUpdate::default()
    };
    client.update("link", &same).await.unwrap();
    caller.write_all(b"on").await.unwrap();
    assert_eq!(read_exact(&mut callee, 2).await, "on");
    let elsewhere = ProxyUpdate {
        listen: Some("localhost:0".to_owned()),
        ..ProxyUpdate::default()
    };
    let shown = client.update("link", &elsewhere).await.unwrap();
    assert_ne!(shown.listen, link.listen.to_string());
    assert!(shown.listen.starts_with("127.0.0.1:"), "{}", shown.listen);
    assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
}

#[tokio::test]
async fn failed_move_leaves_the_proxy_disabled_with_the_new_address() {
    let link = Link::new().await;
    let client = &link.running.client;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = address(&taken).to_string();
    let to = ProxyUpdate {
        listen: Some(listen.clone()),
        ..ProxyUpdate::default()
    };
    let refused = client.update("link", &to).await.unwrap_err();
    assert_eq!(refused.status(), Some(500));
    assert!(refused.to_string().ends_with(&format!(
        "listen tcp {listen}: bind: address already in use"
    )));
    let shown = client.proxy("link").await.unwrap();
    assert_eq!((shown.enabled, shown.listen), (false, listen));
}

#[tokio::test]
async fn what_waits_in_a_proxy_is_dropped_when_it_is_switched_off() {
    let link = Link::new().await;
    let (mut caller, mut callee) = link.connect().await;
    let held = toxic("stall", Stream::Downstream);
    link.set(std::slice::from_ref(&held)).await;
    callee.write_all(b"late").await.unwrap();
    let is_held = |stats: &ProxyStats| stats.toxics[&held.name].held_bytes == 4;
    link.stats_when("the bytes to be held", is_held).await;
    let client = &link.running.client;
    client.update("link", &enabled(false)).await.unwrap();
    assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
}

#[tokio::test]
async fn proxy_that_is_there_already_gets_the_toxics_it_is_populated_with() {
    let link = Link::new().await;
    let client = &link.running.client;
    let (mut caller, mut callee) = link.connect().await;
    let mut asked = client.proxy("link").await.unwrap();
    let named = |toxics: &[Toxic]| toxics.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    for names in [vec!["a", "b"], vec!["c"]] {
        let new = |name: &&str| Toxic::new(*name, "noop", Stream::Upstream);
        asked.toxics = names.iter().map(new).collect();
        let shown = client.populate(std::slice::from_ref(&asked)).await.unwrap();
        assert_eq!(named(&shown[0].toxics), names);
    }
    asked.toxics.clear();
    let shown = client.populate(&[asked]).await.unwrap();
    assert_eq!(named(&shown[0].toxics), ["c"], "it brought none");
    caller.write_all(b"on").await.unwrap();
    assert_eq!(read_exact(&mut callee, 2).await, "on");
}

#[tokio::test]
async fn reset_enables_and_removes_toxics_and_keeps_connections() {
    let link = Link::new().await;
    let client = &link.running.client;
    client
        .create(&Proxy {
            enabled: false,
            ..Proxy::new("off", "127.0.0.1:0", "x:1")
        })
        .await
        .unwrap();
    let (mut caller, mut callee) = link.connect().await;
    link.set(&[toxic("stall", Stream::Upstream)]).await;
    caller.write_all(b"kept").await.unwrap();
    client.reset().await.unwrap();
    assert_eq!(read_exact(&mut callee, 4).await, "kept");
    let proxies = client.proxies().await.unwrap();
    assert!(
        proxies
            .values()
            .all(|proxy| proxy.enabled && proxy.toxics.is_empty())
    );
}

#[tokio::test]
async fn reset_goes_by_name_up_to_the_first_that_cannot_listen() {
    let running = start().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = address(&taken).to_string();
    for (name, listen) in [("a", "127.0.0.1:0"), ("b", &*taken), ("c", "127.0.0.1:0")] {
        let mut proxy = Proxy::new(name, listen, "x:1");
        proxy.enabled = false;
        running.client.create(&proxy).await.unwrap();
    }
    let refused = running.client.reset().await.unwrap_err();
    assert_eq!(refused.status(), Some(500));
    let proxies = running.client.proxies().await.unwrap();
    let enabled: Vec<bool> = proxies.values().map(|proxy| proxy.enabled).collect();
    assert_eq!(enabled, [true, false, false]);
}

#[tokio::test]
async fn taken_api_port_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ServerOptions {
        host: "127.0.0.1".to_owned(),
        port: address(&taken).port(),
        ..ServerOptions::default()
    };
    assert!(matches!(
        Server::bind(options).await,
        Err(ServerError::Bind { .. })
    ));
}

#[tokio::test]
async fn ended_server_leaves_no_port_and_no_connection() {
    let options = ServerOptions {
        host: "127.0.0.1".to_owned(),
        port: 0,
        ..ServerOptions::default()
    };
    let server = Server::bind(options).await.unwrap();
    let client = Client::new(&format!("http://{}", server.address())).unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let task = tokio::spawn(server.run_until(async {
        // Dropped or sent, it is the end.
        let _ = ended.await;
    }));
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::new("link", "127.0.0.1:0", address(&upstream).to_string());
    let listen = client.create(&proxy).await.unwrap().listen;
    let mut caller = TcpStream::connect(&listen).await.unwrap();
    let _callee = within("the dial", upstream.accept()).await.unwrap();
    end.send(()).unwrap();
    within("the server to end", task).await.unwrap();
    assert_eq!(
        connect_error(&listen).await,
        Some(ErrorKind::ConnectionRefused)
    );
    assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
}

#[tokio::test]
async fn black_holed_callee_stalls_neither_calls_nor_other_callers() {
    let running = start().await;
    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(1).unwrap();
    let mut waiting = Vec::new();
    // Fills the backlog: the first connect that is not answered shows that it is full.
    let pause = std::time::Duration::from_millis(300);
    while let Ok(connected) = tokio::time::timeout(pause, TcpStream::connect(address(&full))).await
    {
        waiting.push(connected.unwrap());
    }
    let proxy = Proxy::new("hole", "127.0.0.1:0", address(&full).to_string());
    let listen = running.client.create(&proxy).await.unwrap().listen;
    let mut callers = Vec::new();
    for _ in 0..3 {
        callers.push(TcpStream::connect(&listen).await.unwrap());
    }
    within("all to be accepted", async {
        while running.client.stats().await.unwrap().proxies["hole"]
            .connections
            .accepted
            < 3
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    running.client.delete("hole").await.unwrap();
    for mut caller in callers {
        assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
    }
}
