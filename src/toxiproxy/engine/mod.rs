//! The proxies of one server and everything that can be done to them.
//!
//! It knows no HTTP: the API decodes, calls a method here, and shows what it returns. Nothing here waits
//! for a peer; the only wait is for a name server, bounded, before any lock is taken.
//!
//! Whatever binds or frees a port holds the lock of all proxies for that moment, so what listens is what is
//! in the map, and of two changes one sees all of the other.

mod address;
mod alarm;
mod chain;
mod connection;
mod door;
mod draws;
mod error;
mod express;
mod gate;
mod lookups;
mod pipes;
mod proxy;
mod pump;
mod set;
mod stats;
#[cfg(test)]
mod tests;
mod toxic_changes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use address::Resolved;
pub(crate) use door::bind;
pub(crate) use draws::Draws;
pub(crate) use error::Refusal;
pub(crate) use proxy::Proxy;
pub(crate) use set::ToxicSpec;
pub(crate) use stats::Stats;

use self::alarm::Alarm;
use self::lookups::Lookups;
use self::pipes::Pipes;
use self::proxy::{Place, Settings};
use super::clock;
use super::requests::RequestLog;
use super::wire::{self, AllStats, ProxyUpdate, RequestRows};

/// Locks; a thread that panicked meanwhile left the value whole, since every change is one assignment.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all connections of a server share.
#[derive(Default)]
pub(crate) struct Means {
    pub(crate) pipes: Arc<Pipes>,
    pub(crate) alarm: Alarm,
    pub(crate) lookups: Lookups,
}

/// A proxy that a call made, or found as it was to be.
pub(crate) struct Created {
    pub(crate) proxy: Arc<Proxy>,
    /// The toxics that it got by this call.
    pub(crate) toxics: Vec<Arc<ToxicSpec>>,
}

/// All proxies of a server.
pub(crate) struct Engine {
    seed: u64,
    proxies: Mutex<BTreeMap<String, Arc<Proxy>>>,
    log: Arc<RequestLog>,
    means: Arc<Means>,
}

impl Engine {
    /// No proxies. The seed decides every draw.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            proxies: Mutex::default(),
            log: Arc::default(),
            means: Arc::default(),
        }
    }

    /// Reads an address to listen on; the error is Go's text.
    pub(crate) async fn resolve(&self, text: &str) -> Result<Resolved, String> {
        address::resolve(text, &self.means.lookups).await
    }

    /// Finds a proxy.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Proxy>, Refusal> {
        locked(&self.proxies)
            .get(name)
            .cloned()
            .ok_or(Refusal::ProxyNotFound)
    }

    /// All proxies by name.
    pub(crate) fn list(&self) -> BTreeMap<String, wire::Proxy> {
        self.all()
            .into_iter()
            .map(|proxy| (proxy.settings.name.to_string(), proxy.to_wire()))
            .collect()
    }

    /// All proxies, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Proxy>> {
        locked(&self.proxies).values().cloned().collect()
    }

    /// Creates a proxy, its toxics included.
    pub(crate) async fn create(&self, asked: &wire::Proxy) -> Result<Created, Refusal> {
        if asked.name.is_empty() {
            return Err(Refusal::MissingField("name".to_owned()));
        }
        if asked.upstream.is_empty() {
            return Err(Refusal::MissingField("upstream".to_owned()));
        }
        if self.find(&asked.name).is_ok() {
            return Err(Refusal::ProxyExists);
        }
        let created = self.make(asked)?;
        let resolved = self.resolve_to_listen(asked.enabled, &asked.listen).await?;
        let mut proxies = locked(&self.proxies);
        if proxies.contains_key(&asked.name) {
            return Err(Refusal::ProxyExists);
        }
        if let Some(address) = resolved {
            created.proxy.start(&address).map_err(Refusal::Listen)?;
        }
        proxies.insert(asked.name.clone(), Arc::clone(&created.proxy));
        Ok(created)
    }

    fn make(&self, asked: &wire::Proxy) -> Result<Created, Refusal> {
        let settings = Settings {
            name: asked.name.as_str().into(),
            protocol: asked.protocol,
            correlate: asked.correlate.clone(),
            when_down: asked.when_down,
        };
        let place = Place {
            listen: asked.listen.clone(),
            upstream: asked.upstream.clone(),
            enabled: asked.enabled,
            upstream_up: asked.upstream_up,
        };
        let proxy = Proxy::new(
            settings,
            &place,
            self.seed,
            Arc::clone(&self.log),
            Arc::clone(&self.means),
        );
        let toxics = match asked.toxics.is_empty() {
            true => Vec::new(),
            false => proxy.set_toxics(&asked.toxics)?.toxics,
        };
        let proxy = Arc::new(proxy);
        proxy.follow_upstream_itself();
        Ok(Created { proxy, toxics })
    }

    /// Changes where a proxy listens and leads, or switches it on or off.
    pub(crate) async fn update(
        &self,
        name: &str,
        asked: ProxyUpdate,
    ) -> Result<wire::Proxy, Refusal> {
        loop {
            let before = self.find(name)?.place();
            let listen = asked.listen.as_ref().unwrap_or(&before.listen);
            let resolved = self.resolve(listen).await.map_err(Refusal::Listen)?;
            let proxies = locked(&self.proxies);
            let proxy = proxies.get(name).ok_or(Refusal::ProxyNotFound)?;
            let now = proxy.place();
            if asked.listen.is_none() && now.listen != before.listen {
                // Another change came first: that is not the address any more.
                continue;
            }
            let to = Place {
                listen: listen.clone(),
                upstream: asked.upstream.unwrap_or(now.upstream),
                enabled: asked.enabled.unwrap_or(now.enabled),
                upstream_up: asked.upstream_up.or(now.upstream_up),
            };
            proxy.move_to(&to, &resolved).map_err(Refusal::Listen)?;
            return Ok(proxy.to_wire());
        }
    }

    /// Deletes a proxy and closes its connections.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Refusal> {
        let mut proxies = locked(&self.proxies);
        let proxy = proxies.remove(name).ok_or(Refusal::ProxyNotFound)?;
        proxy.stop();
        Ok(())
    }

    /// Creates or replaces proxies, one after another. Answers what was done before the first refusal.
    /// Nothing is done when one lacks a field.
    pub(crate) async fn populate(
        &self,
        asked: &[wire::Proxy],
    ) -> Result<Vec<Created>, (Vec<Created>, Refusal)> {
        for (place, proxy) in asked.iter().enumerate() {
            let lacks =
                |field: &str| Refusal::MissingField(format!("{field} at proxy {}", place + 1));
            if proxy.name.is_empty() {
                return Err((Vec::new(), lacks("name")));
            }
            if proxy.upstream.is_empty() {
                return Err((Vec::new(), lacks("upstream")));
            }
            if let Err(refusal) = self.make(proxy) {
                return Err((Vec::new(), refusal));
            }
        }
        let mut done = Vec::new();
        for proxy in asked {
            match self.create_or_replace(proxy).await {
                Ok(created) => done.push(created),
                Err(refusal) => return Err((done, refusal)),
            }
        }
        Ok(done)
    }

    /// A proxy at the same place is left untouched, but for the toxics that are asked for; another of
    /// the name is replaced.
    async fn create_or_replace(&self, asked: &wire::Proxy) -> Result<Created, Refusal> {
        let resolved = self.resolve(&asked.listen).await;
        let mut proxies = locked(&self.proxies);
        if let Some(existing) = proxies.get(&asked.name) {
            let resolved = resolved.clone().map_err(Refusal::Listen)?;
            let place = existing.place();
            if place.listen == resolved.text
                && place.upstream == asked.upstream
                && existing.settings.agrees(asked)
            {
                let toxics = match asked.toxics.is_empty() {
                    true => Vec::new(),
                    false => existing.set_toxics(&asked.toxics)?.toxics,
                };
                let proxy = Arc::clone(existing);
                return Ok(Created { proxy, toxics });
            }
            existing.stop();
        }
        let created = self.make(asked)?;
        if asked.enabled {
            let address =
                resolved.map_err(|error| Refusal::Listen(format!("listen tcp: {error}")))?;
            created.proxy.start(&address).map_err(Refusal::Listen)?;
        }
        proxies.insert(asked.name.clone(), Arc::clone(&created.proxy));
        Ok(created)
    }

    /// Enables every proxy and removes all toxics; stops at the first that cannot listen.
    pub(crate) async fn reset(&self) -> Result<(), Refusal> {
        for proxy in self.all() {
            self.enable(&proxy).await?;
            proxy.remove_toxics();
        }
        Ok(())
    }

    /// Enables a proxy, unless it was removed meanwhile.
    async fn enable(&self, proxy: &Arc<Proxy>) -> Result<(), Refusal> {
        loop {
            let before = proxy.place();
            let resolved = self
                .resolve_to_listen(!before.enabled, &before.listen)
                .await?;
            let proxies = locked(&self.proxies);
            let current = proxies.get(&*proxy.settings.name);
            let is_there = current.is_some_and(|current| Arc::ptr_eq(current, proxy));
            let now = proxy.place();
            return match resolved.filter(|_| is_there && !now.enabled) {
                Some(_) if now.listen != before.listen => continue,
                Some(address) => proxy.start(&address).map_err(Refusal::Listen),
                None => Ok(()),
            };
        }
    }

    /// Where a proxy that is to listen listens; `None` for one that is not.
    async fn resolve_to_listen(
        &self,
        enabled: bool,
        listen: &str,
    ) -> Result<Option<Resolved>, Refusal> {
        if !enabled {
            return Ok(None);
        }
        let resolved = self.resolve(listen).await;
        resolved
            .map(Some)
            .map_err(|error| Refusal::Listen(format!("listen tcp: {error}")))
    }

    /// Closes everything.
    pub(crate) fn stop(&self) {
        let proxies = std::mem::take(&mut *locked(&self.proxies));
        proxies.values().for_each(|proxy| proxy.stop());
    }

    /// Live statistics of all proxies.
    pub(crate) fn stats(&self) -> AllStats {
        let stats = |proxy: Arc<Proxy>| (proxy.settings.name.to_string(), proxy.stats());
        AllStats {
            at: clock::now(),
            proxies: self.all().into_iter().map(stats).collect(),
        }
    }

    /// Logged requests after a position, of one proxy or of all; `flush` adds those still open first.
    pub(crate) fn requests(
        &self,
        proxy: Option<&Proxy>,
        after: u64,
        limit: Option<usize>,
        flush: bool,
    ) -> RequestRows {
        match proxy {
            Some(proxy) if flush => proxy.flush_requests(),
            None if flush => self.all().iter().for_each(|proxy| proxy.flush_requests()),
            _ => {}
        }
        self.log
            .after(after, limit, proxy.map(|proxy| &*proxy.settings.name))
    }
}
