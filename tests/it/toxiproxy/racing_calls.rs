//! Many calls at once about the same proxies: whatever wins, what listens is what the server shows.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use chaos_harness::toxiproxy::Client;
use chaos_harness::toxiproxy::wire::{Proxy, ProxyUpdate};
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::robustness::standalone;
use super::within;

/// Callers at once.
const CALLERS: u64 = 8;

/// Calls of each.
const CALLS: usize = 100;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// One call. What it answers depends on the others, so only the end is looked at.
async fn call(client: &Client, rng: &mut ChaCha8Rng) {
    let name = NAMES.choose(rng).copied().unwrap_or_default();
    // A name has to be looked up, which is when others go ahead.
    let listen = ["localhost:0", "127.0.0.1:0"][rng.random_range(0..2)];
    let upstream = ["127.0.0.1:1", "127.0.0.1:2"][rng.random_range(0..2)];
    let mut update = ProxyUpdate {
        enabled: rng.random_bool(0.5).then(|| rng.random_bool(0.7)),
        ..ProxyUpdate::default()
    };
    if rng.random_bool(0.5) {
        update.listen = Some(listen.to_owned());
    }
    let proxy = Proxy::new(name, listen, upstream);
    let _ = match rng.random_range(0..10) {
        0 | 1 => client.create(&proxy).await.map(drop),
        2 | 3 => client.delete(name).await,
        4 => client.populate(&[proxy]).await.map(drop),
        5 => client.reset().await,
        _ => client.update(name, &update).await.map(drop),
    };
}

/// The ports that a process listens on: proc(5), `/proc/net/tcp`.
fn listening(pid: u32) -> BTreeSet<u16> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let own: BTreeSet<String> = links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let tables: Vec<String> = tables.into_iter().filter_map(Result::ok).collect();
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields.get(3) == Some(&"0A") && own.contains(*fields.get(9)?);
            let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
            listens.then_some(port)
        })
        .collect()
}

/// The ports of the proxies that a server shows as enabled.
async fn shown(client: &Client) -> BTreeSet<u16> {
    let proxies = client.proxies().await.unwrap();
    let enabled = proxies.values().filter(|proxy| proxy.enabled);
    enabled
        .map(|proxy| proxy.listen.parse::<SocketAddr>().unwrap().port())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_are_the_proxies_after_many_calls_at_once() {
    let server = standalone();
    let pid = server.child.id();
    let api = listening(pid);
    assert_eq!(api.len(), 1, "only the API");
    let callers: Vec<_> = (0..CALLERS)
        .map(|seed| {
            let client = Client::new(&server.api).unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    call(&client, &mut rng).await;
                }
            })
        })
        .collect();
    for caller in callers {
        within("a caller", caller).await.unwrap();
    }
    let client = Client::new(&server.api).unwrap();
    let ports = shown(&client).await;
    assert_eq!(listening(pid), &api | &ports);
    for name in NAMES {
        // Those that are not there need not be deleted.
        let _ = client.delete(name).await;
    }
    assert_eq!(listening(pid), api);
}
