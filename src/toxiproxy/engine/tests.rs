//! Calls that overlap: what listens is what is in the map, and no change undoes another.

use super::*;

async fn engine(listen: &str, enabled: bool) -> (Engine, Arc<Proxy>) {
    let engine = Engine::new(0);
    let mut asked = wire::Proxy::new("a", listen, "u:1");
    asked.enabled = enabled;
    engine.create(&asked).await.unwrap();
    let proxy = engine.find("a").unwrap();
    (engine, proxy)
}

/// A change that has to ask for an address: other calls go ahead meanwhile.
fn slow_move() -> ProxyUpdate {
    ProxyUpdate {
        listen: Some("localhost:0".to_owned()),
        ..ProxyUpdate::default()
    }
}

#[tokio::test]
async fn removed_proxy_is_not_brought_back_by_a_change_under_way() {
    let (engine, proxy) = engine("127.0.0.1:0", true).await;
    let (updated, removed) = tokio::join!(engine.update("a", slow_move()), async {
        engine.remove("a")
    });
    assert_eq!((updated, removed), (Err(Refusal::ProxyNotFound), Ok(())));
    assert!(!proxy.place().enabled);
}

#[tokio::test]
async fn removed_proxy_is_not_brought_back_by_a_reset() {
    let (engine, proxy) = engine("localhost:0", false).await;
    let (reset, removed) = tokio::join!(engine.reset(), async { engine.remove("a") });
    assert_eq!((reset, removed), (Ok(()), Ok(())));
    assert!(!proxy.place().enabled);
}

#[tokio::test]
async fn replaced_proxy_is_not_brought_back_by_a_change_under_way() {
    let (engine, proxy) = engine("127.0.0.1:0", true).await;
    let other = [wire::Proxy::new("a", "127.0.0.1:0", "other:1")];
    let (updated, populated) =
        tokio::join!(engine.update("a", slow_move()), engine.populate(&other));
    assert!(populated.is_ok());
    assert_eq!(updated.unwrap().upstream, "other:1");
    assert!(!proxy.place().enabled);
}

#[tokio::test]
async fn change_under_way_keeps_what_another_has_changed() {
    let (engine, proxy) = engine("127.0.0.1:0", true).await;
    let off = ProxyUpdate {
        enabled: Some(false),
        upstream: Some("v:2".to_owned()),
        ..ProxyUpdate::default()
    };
    let (moved, changed) = tokio::join!(engine.update("a", slow_move()), engine.update("a", off));
    assert_eq!((moved.is_ok(), changed.is_ok()), (true, true));
    let place = proxy.place();
    assert_eq!((place.enabled, &*place.upstream), (false, "v:2"));
}

#[tokio::test]
async fn proxy_that_is_enabled_while_it_moves_listens_where_it_went() {
    let (engine, proxy) = engine("localhost:0", false).await;
    let on = ProxyUpdate {
        enabled: Some(true),
        ..ProxyUpdate::default()
    };
    let elsewhere = ProxyUpdate {
        listen: Some("127.0.0.2:0".to_owned()),
        ..ProxyUpdate::default()
    };
    let (enabled, moved) = tokio::join!(engine.update("a", on), engine.update("a", elsewhere));
    assert_eq!((enabled.is_ok(), moved.is_ok()), (true, true));
    let place = proxy.place();
    assert!(
        place.enabled && place.listen.starts_with("127.0.0.2:"),
        "{place:?}"
    );
}
