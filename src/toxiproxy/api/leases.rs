//! Leases, for servers that several people share: toxics that are set under a lease go when it ends, so a
//! killed test leaves nothing behind.
//!
//! A lease is made and renewed by `PUT /lease/{id}`; calls that set toxics name it in a header.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::toxiproxy::engine::{Proxy, Refusal, locked};

/// Shortest life: renewals must survive a pause of whoever makes them.
pub(super) const SHORTEST: Duration = Duration::from_secs(15);

/// Longest life.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Leases at once.
const MAX: usize = 1024;

/// All leases of a server.
pub(crate) struct Leases {
    shortest: Duration,
    leases: Mutex<BTreeMap<String, Lease>>,
}

struct Lease {
    ends: Instant,
    owned: Vec<Owned>,
}

/// One toxic, whatever becomes of its name.
struct Owned {
    proxy: Weak<Proxy>,
    toxic: u64,
}

/// Answer of `PUT /lease/{id}`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    id: String,
    ttl_seconds: u64,
}

impl Leases {
    /// None yet.
    pub(super) fn new(shortest: Duration) -> Self {
        Self {
            shortest,
            leases: Mutex::default(),
        }
    }

    /// Makes or renews a lease.
    pub(super) fn renew(self: &Arc<Self>, id: &str, life: Duration) -> Result<Shown, Refusal> {
        if life < self.shortest || life > LONGEST {
            let (least, most) = (self.shortest.as_secs(), LONGEST.as_secs());
            let why = format!("ttl_seconds must be from {least} to {most}");
            return Err(Refusal::Body(why));
        }
        let mut leases = locked(&self.leases);
        let ends = Instant::now() + life;
        if let Some(lease) = leases.get_mut(id) {
            lease.ends = ends;
        } else if leases.len() >= MAX {
            return Err(Refusal::TooManyLeases);
        } else {
            let owned = Vec::new();
            leases.insert(id.to_owned(), Lease { ends, owned });
            tokio::spawn(Arc::clone(self).watch(id.to_owned()));
        }
        Ok(Shown {
            id: id.to_owned(),
            ttl_seconds: life.as_secs(),
        })
    }

    /// Whether a lease is there to set toxics under.
    pub(super) fn check(&self, id: &str) -> Result<(), Refusal> {
        match locked(&self.leases).contains_key(id) {
            true => Ok(()),
            false => Err(Refusal::LeaseNotFound),
        }
    }

    /// Puts toxics of a proxy under a lease. If it has ended meanwhile, they go at once.
    pub(super) fn own(&self, id: &str, proxy: &Arc<Proxy>, names: &[String]) {
        let set = proxy.toxics.current();
        let specs = names.iter().filter_map(|name| set.find(name));
        let owned = specs.map(|spec| Owned {
            proxy: Arc::downgrade(proxy),
            toxic: spec.id,
        });
        match locked(&self.leases).get_mut(id) {
            Some(lease) => lease.owned.extend(owned),
            None => remove(owned.collect()),
        }
    }

    /// Ends a lease now.
    pub(super) fn end(&self, id: &str) -> Result<(), Refusal> {
        let lease = locked(&self.leases).remove(id);
        remove(lease.ok_or(Refusal::LeaseNotFound)?.owned);
        Ok(())
    }

    async fn watch(self: Arc<Self>, id: String) {
        while let Some(ends) = self.ends(&id) {
            if ends <= Instant::now() {
                tracing::warn!(lease = id, "Lease ended, its toxics are removed");
                // Another lease of the name made just now loses nothing: it owns nothing yet.
                let _ = self.end(&id);
                return;
            }
            sleep_until(ends).await;
        }
    }

    fn ends(&self, id: &str) -> Option<Instant> {
        locked(&self.leases).get(id).map(|lease| lease.ends)
    }
}

fn remove(owned: Vec<Owned>) {
    for Owned { proxy, toxic } in owned {
        if let Some(proxy) = proxy.upgrade() {
            proxy.remove_toxic_by_id(toxic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toxiproxy::engine::Engine;
    use crate::toxiproxy::wire::{self, Stream, Toxic};

    async fn proxy() -> Arc<Proxy> {
        let engine = Engine::new(0);
        let mut asked = wire::Proxy::new("a", "x:1", "u:2");
        asked.enabled = false;
        asked.toxics = vec![Toxic::new("kept", "noop", Stream::Upstream)];
        engine.create(&asked).await.unwrap();
        engine.find("a").unwrap()
    }

    fn add(proxy: &Arc<Proxy>, name: &str) {
        let toxic = Toxic::new(name, "noop", Stream::Upstream);
        proxy.add_toxic(&toxic).unwrap();
    }

    fn names(proxy: &Proxy) -> Vec<String> {
        let toxics = proxy.to_wire().toxics.into_iter();
        toxics.map(|toxic| toxic.name).collect()
    }

    #[tokio::test]
    async fn toxics_go_with_their_lease_and_others_stay() {
        let (leases, proxy) = (Arc::new(Leases::new(Duration::ZERO)), proxy().await);
        leases.renew("mine", Duration::from_millis(5)).unwrap();
        add(&proxy, "leased");
        leases.own("mine", &proxy, &["leased".to_owned()]);
        let gone = async {
            while leases.check("mine").is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .expect("the lease ends");
        assert_eq!(names(&proxy), ["kept"]);
    }

    #[tokio::test]
    async fn toxic_of_the_same_name_set_by_somebody_else_stays() {
        let (leases, proxy) = (Arc::new(Leases::new(SHORTEST)), proxy().await);
        leases.renew("mine", SHORTEST).unwrap();
        add(&proxy, "t");
        leases.own("mine", &proxy, &["t".to_owned()]);
        proxy.remove_toxic("t").unwrap();
        add(&proxy, "t");
        leases.end("mine").unwrap();
        assert_eq!(names(&proxy), ["kept", "t"]);
    }

    #[tokio::test]
    async fn toxics_under_a_lease_that_has_ended_go_at_once() {
        let (leases, proxy) = (Leases::new(SHORTEST), proxy().await);
        add(&proxy, "late");
        leases.own("ended", &proxy, &["late".to_owned()]);
        assert_eq!(names(&proxy), ["kept"]);
    }

    #[tokio::test]
    async fn lives_are_bounded() {
        let leases = Arc::new(Leases::new(SHORTEST));
        for seconds in [0, 14, 24 * 3600 + 1] {
            let life = Duration::from_secs(seconds);
            assert!(leases.renew("a", life).is_err(), "{seconds}");
        }
        assert_eq!(leases.end("a"), Err(Refusal::LeaseNotFound));
    }
}
