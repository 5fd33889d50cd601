//! Leases, for servers that several people share: toxics that are set under a lease go when it ends, so a
//! killed test leaves nothing behind.
//!
//! A lease is made and renewed by `PUT /lease/{id}`; calls that set toxics name it in a header.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

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
    /// Ends it in time; replaced with every renewal, gone with the lease.
    _watch: AbortOnDropHandle<()>,
}

/// One toxic, whatever becomes of its name.
struct Owned {
    proxy: Weak<Proxy>,
    toxic: u64,
}

impl Owned {
    /// Whether the toxic is still there to be removed.
    fn is_there(&self) -> bool {
        let proxy = self.proxy.upgrade();
        let set = proxy.map(|proxy| proxy.toxics.current());
        set.is_some_and(|set| set.toxics.iter().any(|spec| spec.id == self.toxic))
    }

    fn is(&self, proxy: &Arc<Proxy>, toxic: u64) -> bool {
        self.toxic == toxic && std::ptr::eq(self.proxy.as_ptr(), Arc::as_ptr(proxy))
    }
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
        if leases.len() >= MAX && !leases.contains_key(id) {
            return Err(Refusal::TooManyLeases);
        }
        let ends = Instant::now() + life;
        let before = leases.remove(id);
        let lease = Lease {
            ends,
            owned: before.map(|lease| lease.owned).unwrap_or_default(),
            _watch: AbortOnDropHandle::new(tokio::spawn(
                Arc::clone(self).watch(id.to_owned(), ends),
            )),
        };
        leases.insert(id.to_owned(), lease);
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
    pub(super) fn own(&self, id: &str, proxy: &Arc<Proxy>, toxics: impl Iterator<Item = u64>) {
        let owned = toxics.map(|toxic| Owned {
            proxy: Arc::downgrade(proxy),
            toxic,
        });
        match locked(&self.leases).get_mut(id) {
            Some(lease) => {
                let owned: Vec<Owned> = owned.collect();
                let again = |old: &Owned| owned.iter().any(|new| old.is(proxy, new.toxic));
                lease.owned.retain(|old| old.is_there() && !again(old));
                lease.owned.extend(owned);
            }
            None => remove(owned.collect()),
        }
    }

    /// Ends a lease now.
    pub(super) fn end(&self, id: &str) -> Result<(), Refusal> {
        let lease = locked(&self.leases).remove(id);
        remove(lease.ok_or(Refusal::LeaseNotFound)?.owned);
        Ok(())
    }

    async fn watch(self: Arc<Self>, id: String, ends: Instant) {
        sleep_until(ends).await;
        self.expire(&id, ends);
    }

    /// Ends a lease if it ends by this time: it may have been renewed just now.
    fn expire(&self, id: &str, now: Instant) {
        let ended = {
            let mut leases = locked(&self.leases);
            let ends = leases.get(id).is_some_and(|lease| lease.ends <= now);
            ends.then(|| leases.remove(id)).flatten()
        };
        if let Some(lease) = ended {
            tracing::warn!(lease = id, "Lease ended, its toxics are removed");
            remove(lease.owned);
        }
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

    /// Adds a toxic and puts it under a lease.
    fn add(leases: &Leases, lease: &str, proxy: &Arc<Proxy>, name: &str) {
        let toxic = Toxic::new(name, "noop", Stream::Upstream);
        let toxic = proxy.add_toxic(&toxic).unwrap();
        leases.own(lease, proxy, [toxic.id].into_iter());
    }

    async fn gone(leases: &Leases, id: &str) {
        let gone = async {
            while leases.check(id).is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .expect("the lease ends");
    }

    fn names(proxy: &Proxy) -> Vec<String> {
        let toxics = proxy.to_wire().toxics.into_iter();
        toxics.map(|toxic| toxic.name).collect()
    }

    #[tokio::test]
    async fn toxics_go_with_their_lease_and_others_stay() {
        let (leases, proxy) = (Arc::new(Leases::new(Duration::ZERO)), proxy().await);
        leases.renew("mine", Duration::from_millis(5)).unwrap();
        add(&leases, "mine", &proxy, "leased");
        gone(&leases, "mine").await;
        assert_eq!(names(&proxy), ["kept"]);
    }

    #[tokio::test]
    async fn renewal_may_be_shorter_too() {
        let leases = Arc::new(Leases::new(Duration::ZERO));
        leases.renew("mine", LONGEST).unwrap();
        leases.renew("mine", Duration::from_millis(5)).unwrap();
        gone(&leases, "mine").await;
    }

    #[tokio::test]
    async fn renewal_that_comes_with_the_end_counts() {
        let (leases, proxy) = (Arc::new(Leases::new(SHORTEST)), proxy().await);
        leases.renew("mine", SHORTEST).unwrap();
        add(&leases, "mine", &proxy, "leased");
        let ends = locked(&leases.leases)["mine"].ends;
        leases.renew("mine", LONGEST).unwrap();
        leases.expire("mine", ends);
        assert_eq!(names(&proxy), ["kept", "leased"]);
        leases.expire("mine", ends + LONGEST);
        assert_eq!(names(&proxy), ["kept"]);
    }

    #[tokio::test]
    async fn lease_remembers_only_toxics_that_are_there_and_each_once() {
        let (leases, proxy) = (Arc::new(Leases::new(SHORTEST)), proxy().await);
        leases.renew("mine", SHORTEST).unwrap();
        for _ in 0..3 {
            add(&leases, "mine", &proxy, "t");
            proxy.remove_toxic("t").unwrap();
        }
        let same = [Toxic::new("same", "noop", Stream::Upstream)];
        for _ in 0..3 {
            let set = proxy.set_toxics(&same).unwrap();
            leases.own("mine", &proxy, set.toxics.iter().map(|spec| spec.id));
        }
        assert_eq!(locked(&leases.leases)["mine"].owned.len(), 1);
        leases.end("mine").unwrap();
        assert!(names(&proxy).is_empty());
    }

    #[tokio::test]
    async fn leases_beyond_the_limit_are_refused_and_renewals_are_not() {
        let leases = Arc::new(Leases::new(SHORTEST));
        for number in 0..MAX {
            leases.renew(&number.to_string(), SHORTEST).unwrap();
        }
        assert_eq!(leases.renew("more", SHORTEST), Err(Refusal::TooManyLeases));
        leases.renew("0", SHORTEST).unwrap();
        leases.end("1").unwrap();
        leases.renew("more", SHORTEST).unwrap();
    }

    #[tokio::test]
    async fn lease_that_is_gone_is_watched_no_more() {
        let leases = Arc::new(Leases::new(SHORTEST));
        for _ in 0..3 {
            leases.renew("mine", SHORTEST).unwrap();
            leases.renew("mine", LONGEST).unwrap();
            leases.end("mine").unwrap();
        }
        let unwatched = async {
            while Arc::strong_count(&leases) > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), unwatched)
            .await
            .expect("no task is left");
    }

    #[tokio::test]
    async fn toxic_of_the_same_name_set_by_somebody_else_stays() {
        let (leases, proxy) = (Arc::new(Leases::new(SHORTEST)), proxy().await);
        leases.renew("mine", SHORTEST).unwrap();
        add(&leases, "mine", &proxy, "t");
        proxy.remove_toxic("t").unwrap();
        let other = Toxic::new("t", "noop", Stream::Upstream);
        proxy.add_toxic(&other).unwrap();
        leases.end("mine").unwrap();
        assert_eq!(names(&proxy), ["kept", "t"]);
    }

    #[tokio::test]
    async fn toxics_under_a_lease_that_has_ended_go_at_once() {
        let (leases, proxy) = (Leases::new(SHORTEST), proxy().await);
        add(&leases, "ended", &proxy, "late");
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
