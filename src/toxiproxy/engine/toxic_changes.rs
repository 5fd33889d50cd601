//! What can be done to the toxics of a proxy. Each call makes one new set, with the next generation.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::Refusal;
use super::proxy::{Makers, Proxy, Settings};
use super::set::{ToxicSet, ToxicSpec};
use crate::toxiproxy::toxics::{self, Attributes, Role};
use crate::toxiproxy::wire::{self, Protocol, Stream};

impl Settings {
    /// Whether what never changes is what is asked.
    pub(crate) fn agrees(&self, asked: &wire::Proxy) -> bool {
        self.protocol == asked.protocol
            && self.correlate == asked.correlate
            && self.when_down == asked.when_down
    }
}

impl Proxy {
    /// Adds a toxic at the end of its direction's chain.
    pub(crate) fn add_toxic(&self, asked: &wire::Toxic) -> Result<Arc<ToxicSpec>, Refusal> {
        self.change_toxics(|set, makers| {
            let taken = set.toxics.iter().map(|spec| spec.name.clone()).collect();
            let spec = Arc::new(make(asked, self.settings.protocol, &taken, makers)?);
            set.toxics.push(Arc::clone(&spec));
            Ok(spec)
        })
    }

    /// Merges attributes and sets the toxicity. When an attribute is refused, the others are kept.
    pub(crate) fn update_toxic(
        &self,
        name: &str,
        attributes: &Map<String, Value>,
        toxicity: Option<f32>,
    ) -> Result<wire::Toxic, Refusal> {
        self.change_toxics(|set, _| {
            let slot = set.toxics.iter_mut().find(|spec| spec.name == name);
            let slot = slot.ok_or(Refusal::ToxicNotFound)?;
            let mut spec = ToxicSpec::clone(slot);
            let merged = merge_all(&mut spec.attributes, attributes);
            spec.revision += 1;
            if merged.is_ok() {
                spec.toxicity = toxicity.unwrap_or(spec.toxicity);
            }
            let shown = spec.to_wire();
            *slot = Arc::new(spec);
            Ok(merged.map(|()| shown).map_err(Refusal::Body))
        })?
    }

    /// Removes a toxic.
    pub(crate) fn remove_toxic(&self, name: &str) -> Result<(), Refusal> {
        self.change_toxics(|set, _| {
            let place = set.toxics.iter().position(|spec| spec.name == name);
            set.toxics.remove(place.ok_or(Refusal::ToxicNotFound)?);
            Ok(())
        })
    }

    /// Removes the toxic of this id, if it is still there.
    pub(crate) fn remove_toxic_by_id(&self, id: u64) {
        let removed: Result<(), ()> = self.change_toxics(|set, _| {
            let place = set.toxics.iter().position(|spec| spec.id == id);
            set.toxics.remove(place.ok_or(())?);
            Ok(())
        });
        // An error is a toxic that went before.
        let _ = removed;
    }

    /// Removes all toxics, if there are any.
    pub(crate) fn remove_toxics(&self) {
        let removed: Result<(), ()> = self.change_toxics(|set, _| {
            if set.toxics.is_empty() {
                return Err(());
            }
            set.toxics.clear();
            Ok(())
        });
        // An error is an empty set, which needs no new generation.
        let _ = removed;
    }

    /// Replaces all toxics at once. One of the same name, type and stream stays the same toxic: its state
    /// on live connections is kept. Answers the new set.
    pub(crate) fn set_toxics(&self, asked: &[wire::Toxic]) -> Result<ToxicSet, Refusal> {
        self.change_toxics(|set, makers| {
            let mut taken = BTreeSet::new();
            let mut specs = Vec::new();
            for toxic in asked {
                let spec = make(toxic, self.settings.protocol, &taken, makers)?;
                taken.insert(spec.name.clone());
                specs.push(Arc::new(continued(spec, set)));
            }
            set.toxics = specs;
            Ok(set.clone())
        })
    }
}

/// Merges as Go decodes: the rest of what is given is taken also when a part is wrong; the first error is told.
fn merge_all(into: &mut Attributes, given: &Map<String, Value>) -> Result<(), String> {
    let pairs = given.clone().into_iter();
    pairs
        .map(|pair| into.merge(&Map::from_iter([pair])))
        .fold(Ok(()), Result::and)
}

/// Checks in the order of Toxiproxy: stream, type, name, attributes.
fn make(
    asked: &wire::Toxic,
    protocol: Protocol,
    taken: &BTreeSet<String>,
    makers: &mut Makers,
) -> Result<ToxicSpec, Refusal> {
    let stream = Stream::parse(&asked.stream).ok_or(Refusal::Stream)?;
    let kind = toxics::kind(&asked.kind).ok_or(Refusal::ToxicType)?;
    let name = match asked.name.as_str() {
        "" => format!("{}_{}", asked.kind, asked.stream),
        name => name.to_owned(),
    };
    if taken.contains(&name) {
        return Err(Refusal::ToxicExists);
    }
    if kind.role == Role::Requests && protocol != Protocol::Http {
        let why = format!("`{}` needs a proxy with \"protocol\": \"http\"", kind.name);
        return Err(Refusal::Body(why));
    }
    let mut attributes = Attributes::new(kind);
    attributes.merge(&asked.attributes).map_err(Refusal::Body)?;
    Ok(ToxicSpec {
        id: makers.next_id(),
        revision: 0,
        kind,
        stream,
        stream_text: asked.stream.clone(),
        toxicity: asked.toxicity,
        attributes,
        counters: makers.counters(&name),
        shared: Arc::default(),
        name,
    })
}

/// The toxic of the present set that this one continues, changed; else this one.
fn continued(spec: ToxicSpec, set: &ToxicSet) -> ToxicSpec {
    match set.find(&spec.name) {
        Some(old) if old.kind.name == spec.kind.name && old.stream == spec.stream => {
            let same = old.attributes == spec.attributes && old.toxicity == spec.toxicity;
            ToxicSpec {
                id: old.id,
                revision: old.revision + u64::from(!same),
                shared: Arc::clone(&old.shared),
                ..spec
            }
        }
        _ => spec,
    }
}
