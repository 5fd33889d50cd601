//! Our own client against both servers.

use chaos_harness::toxiproxy::ClientError;
use chaos_harness::toxiproxy::wire::{Proxy, ProxyUpdate, Stream, Toxic};

use super::super::NEVER_MS;
use super::{Kind, on_each};

fn latency(name: &str, latency: i64) -> Toxic {
    Toxic::new(name, "latency", Stream::Downstream).with("latency", latency)
}

#[tokio::test]
async fn client_reads_what_both_servers_say() {
    on_each(async |server| {
        let client = server.client();
        assert!(client.version().await.unwrap().starts_with("2.12.0"));
        let ours = server.kind == Kind::Chaos;
        assert_eq!(client.is_embedded().await.unwrap(), ours);
        let slash = Proxy::new("a b/c", "127.0.0.1:0", "u");
        assert!(client.create(&slash).await.unwrap().enabled);
        let proxy = Proxy::new("a b", "127.0.0.1:0", "u");
        client.populate(std::slice::from_ref(&proxy)).await.unwrap();
        let off = ProxyUpdate {
            enabled: Some(false),
            ..ProxyUpdate::default()
        };
        assert!(!client.update("a b", &off).await.unwrap().enabled);
        let added = client.add_toxic("a b", &latency("t", 5)).await.unwrap();
        assert_eq!(added.attributes["jitter"], 0);
        let updated = client.update_toxic("a b", &latency("t", 6)).await.unwrap();
        assert_eq!(client.toxics("a b").await.unwrap(), [updated]);
        client.remove_toxic("a b", "t").await.unwrap();
        client.reset().await.unwrap();
        assert!(client.proxy("a b").await.unwrap().enabled);
        client.delete("a b").await.unwrap();
        let gone = client.proxy("a b").await.unwrap_err();
        assert_eq!(gone.status(), Some(404));
        assert_eq!(client.proxies().await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn client_reaches_a_set_of_toxics_on_both_servers() {
    on_each(async |server| {
        let client = server.client();
        server.proxy("a", "127.0.0.1:0", "u").await;
        let timeout = Toxic::new("gone", "timeout", Stream::Upstream);
        for set in [
            vec![latency("one", 5).with("jitter", 3), timeout],
            vec![latency("one", 6), latency("two", NEVER_MS)],
            vec![Toxic::new("one", "noop", Stream::Upstream)],
            vec![],
        ] {
            let generation = client.set_toxics("a", &set).await.unwrap();
            assert_eq!(generation.is_some(), server.kind == Kind::Chaos);
            let names: Vec<String> = client
                .toxics("a")
                .await
                .unwrap()
                .into_iter()
                .map(|t| t.name)
                .collect();
            assert_eq!(names.len(), set.len(), "{names:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn client_sends_a_real_server_nothing_that_ends_it_and_nothing_that_it_lacks() {
    on_each(async |server| {
        let client = server.client();
        server.proxy("a", "127.0.0.1:0", "u").await;
        let deadly = Toxic::new("deadly", "slicer", Stream::Upstream);
        let ours = Toxic::new("ours", "stall", Stream::Upstream);
        let added = client.add_toxic("a", &deadly).await;
        let set = client.set_toxics("a", &[latency("t", 1), ours]).await;
        if server.kind == Kind::Chaos {
            added.unwrap();
            set.unwrap();
            return;
        }
        assert!(matches!(added, Err(ClientError::Deadly { .. })));
        assert!(matches!(set, Err(ClientError::NeedsExtension { .. })));
        assert_eq!(client.toxics("a").await.unwrap(), [], "nothing was changed");
    })
    .await;
}
