//! The toxics of one proxy as a value: changed as a whole, shared by all its connections.

use std::sync::Arc;

use crate::toxiproxy::toxics::{Attributes, Counters, Kind, Role, Shared};
use crate::toxiproxy::wire::{self, Stream};

/// One toxic as it is set now. A changed toxic is a new value with the same `id`.
#[derive(Clone)]
pub(crate) struct ToxicSpec {
    /// Which toxic this is, through all its changes.
    pub(crate) id: u64,
    /// Grows with every change of it.
    pub(crate) revision: u64,
    pub(crate) name: String,
    pub(crate) kind: &'static Kind,
    pub(crate) stream: Stream,
    /// The stream as it was sent, which answers echo.
    pub(crate) stream_text: String,
    pub(crate) toxicity: f32,
    pub(crate) attributes: Attributes,
    pub(crate) counters: Arc<Counters>,
    /// Kept through all its changes.
    pub(crate) shared: Arc<Shared>,
}

impl ToxicSpec {
    /// As answers show it.
    pub(crate) fn to_wire(&self) -> wire::Toxic {
        wire::Toxic {
            attributes: self.attributes.to_json(),
            name: self.name.clone(),
            kind: self.kind.name.to_owned(),
            stream: self.stream_text.clone(),
            toxicity: self.toxicity,
        }
    }
}

#[cfg(test)]
impl ToxicSpec {
    /// A toxic named as its type, with attributes as clients send them.
    pub(crate) fn of(id: u64, kind: &str, stream: Stream, attributes: &str) -> Self {
        let name = kind.to_owned();
        let kind = crate::toxiproxy::toxics::kind(kind).unwrap();
        let mut values = Attributes::new(kind);
        let given = serde_json::from_str(attributes).unwrap();
        values.merge(&given).unwrap();
        Self {
            id,
            revision: 0,
            name,
            kind,
            stream,
            stream_text: stream.as_str().to_owned(),
            toxicity: 1.0,
            attributes: values,
            counters: Arc::default(),
            shared: Arc::default(),
        }
    }
}

/// All toxics of a proxy, in order of creation.
#[derive(Clone, Default)]
pub(crate) struct ToxicSet {
    /// Grows by one with every change.
    pub(crate) generation: u64,
    pub(crate) toxics: Vec<Arc<ToxicSpec>>,
}

impl ToxicSet {
    /// The toxics of one direction, in chain order.
    pub(crate) fn on(&self, stream: Stream) -> impl Iterator<Item = &Arc<ToxicSpec>> {
        self.toxics
            .iter()
            .filter(move |toxic| toxic.stream == stream)
    }

    /// The toxics with a stage in the chain of this direction, in chain order.
    pub(crate) fn staged(&self, stream: Stream) -> impl Iterator<Item = &Arc<ToxicSpec>> {
        self.on(stream).filter(|toxic| toxic.kind.role.has_stage())
    }

    /// Whether bytes pass untouched: no chain has a stage.
    pub(crate) fn spares_bytes(&self) -> bool {
        !self.toxics.iter().any(|toxic| toxic.kind.role.has_stage())
    }

    /// The toxics of a role, whatever their direction, in order of creation.
    pub(crate) fn of_role(&self, role: Role) -> impl Iterator<Item = &Arc<ToxicSpec>> {
        self.toxics
            .iter()
            .filter(move |toxic| toxic.kind.role == role)
    }

    /// The order of answers: upstream first, then downstream.
    pub(crate) fn listed(&self) -> impl Iterator<Item = &Arc<ToxicSpec>> {
        self.on(Stream::Upstream).chain(self.on(Stream::Downstream))
    }

    /// As answers show it.
    pub(crate) fn to_wire(&self) -> Vec<wire::Toxic> {
        self.listed().map(|spec| spec.to_wire()).collect()
    }

    /// Finds a toxic by name.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<ToxicSpec>> {
        self.toxics.iter().find(|toxic| toxic.name == name)
    }
}
