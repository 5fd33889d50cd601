//! `toxiproxy_rust` against the server at `TOXIPROXY_URL`: every call that it has.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use toxiproxy_rust::client::Client;
use toxiproxy_rust::proxy::{Proxy, ProxyPack};

fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            std::thread::spawn(move || std::io::copy(&mut socket.try_clone().unwrap(), &mut socket));
        }
    });
    address
}

/// How long a round trip takes.
fn round_trip(proxy: &Proxy) -> std::io::Result<Duration> {
    let begun = Instant::now();
    let mut socket = TcpStream::connect(&proxy.proxy_pack.listen)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.write_all(b"ping")?;
    socket.read_exact(&mut [0; 4])?;
    Ok(begun.elapsed())
}

fn main() {
    let url = std::env::var("TOXIPROXY_URL").unwrap();
    let client = Client::new(url.strip_prefix("http://").unwrap());
    assert!(client.is_running());
    assert!(client.version().unwrap().contains("2.12.0"));
    let pack = ProxyPack::new("rust".into(), "localhost:0".into(), echo());
    let proxies = client.populate(vec![pack]).unwrap();
    assert_eq!(proxies.len(), 1);
    assert_eq!(client.all().unwrap().len(), 1);
    let proxy = client.find_and_reset_proxy("rust").unwrap();
    assert!(client.find_proxy("none").is_err());

    let down = || "downstream".to_owned();
    let slow = |proxy: &Proxy| assert!(round_trip(proxy).unwrap() >= Duration::from_millis(295));
    proxy.with_latency(down(), 300, 0, 1.0).apply(|| slow(&proxy)).unwrap();
    assert!(proxy.toxics().unwrap().is_empty());
    let carries = || assert!(round_trip(&proxy).is_ok());
    proxy
        .with_slicer(down(), 2, 1, 0, 1.0)
        .with_bandwidth(down(), 1000, 1.0)
        .with_slow_close(down(), 1, 1.0)
        .apply(carries)
        .unwrap();
    let ended = || assert_eq!(round_trip(&proxy).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    proxy.with_timeout(down(), 1, 1.0).apply(ended).unwrap();
    proxy.with_limit_data(down(), 3, 1.0).apply(ended).unwrap();
    let refused = || assert_eq!(round_trip(&proxy).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    proxy.with_down(refused).unwrap();
    round_trip(&proxy).unwrap();

    proxy.with_timeout(down(), 0, 1.0);
    assert_eq!(proxy.toxics().unwrap()[0].name, "timeout_downstream");
    proxy.delete_all_toxics().unwrap();
    proxy.disable().unwrap();
    client.reset().unwrap();
    round_trip(&proxy).unwrap();
    proxy.enable().unwrap();
    proxy.delete().unwrap();
    assert!(client.all().unwrap().is_empty());
}
