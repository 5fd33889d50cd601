//! A test bench for one stage: virtual time, no sockets.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Attributes, Counters, Ending, Inbox, Item, Part, Piece, Removal, Scene, Shared, Stage, Step,
    Tally,
};
use crate::toxiproxy::clock::{MILLISECOND, Nanos};
use crate::toxiproxy::engine::Draws;
use crate::toxiproxy::wire::ToxicStats;

/// One stage between an inbox and what it delivered. Times are in milliseconds.
pub(crate) struct Bench {
    stage: Box<dyn Stage>,
    attributes: Attributes,
    inbox: Inbox,
    draws: Draws,
    tally: Tally,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    delivered: usize,
}

impl Bench {
    pub(crate) fn new(kind: &str, attributes: &str) -> Self {
        Self::seeded(0, kind, attributes)
    }

    pub(crate) fn seeded(seed: u64, kind: &str, attributes: &str) -> Self {
        let kind = super::kind(kind).unwrap();
        let mut values = Attributes::new(kind);
        values
            .merge(&serde_json::from_str(attributes).unwrap())
            .unwrap();
        let counters = Arc::new(Counters::default());
        Self {
            stage: (kind.stage)(&values),
            attributes: values,
            inbox: Inbox::default(),
            draws: Draws::new(seed, "proxy", 1, "toxic"),
            tally: Tally::new(Arc::clone(&counters)),
            shared: Arc::default(),
            counters,
            delivered: 0,
        }
    }

    /// Another connection under the same toxic.
    pub(crate) fn sibling(&self, kind: &str) -> Self {
        let attributes = serde_json::Value::Object(self.attributes.to_json()).to_string();
        let mut bench = Self::new(kind, &attributes);
        bench.shared = Arc::clone(&self.shared);
        bench
    }

    pub(crate) fn send(&mut self, at_ms: u64, text: &str) {
        let data = Bytes::copy_from_slice(text.as_bytes());
        let at = at_ms * MILLISECOND;
        self.inbox.push(Item::Data(Piece {
            data,
            at,
            request: 0,
            part: Part::Opaque,
        }));
    }

    pub(crate) fn finish(&mut self) {
        self.inbox.push(Item::End(Ending::Finished));
    }

    pub(crate) fn update(&mut self, now_ms: u64, attributes: &str) {
        self.attributes
            .merge(&serde_json::from_str(attributes).unwrap())
            .unwrap();
        self.stage.update(&self.attributes, now_ms * MILLISECOND);
    }

    /// Everything that it passes by this time, as text; ends as `|FIN`, `|CLOSE`, `|RST`.
    pub(crate) fn run(&mut self, now_ms: u64) -> String {
        let mut text = String::new();
        while let Some(part) = self.step(now_ms * MILLISECOND) {
            text.push_str(&part);
            if part.starts_with('|') {
                break;
            }
        }
        text
    }

    /// The bytes that it passes by this time.
    pub(crate) fn run_bytes(&mut self, now_ms: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(Item::Data(piece)) = self.item(now_ms * MILLISECOND) {
            bytes.extend_from_slice(&piece.data);
        }
        bytes
    }

    /// Lengths of the pieces that it passes by this time.
    pub(crate) fn run_pieces(&mut self, now_ms: u64) -> Vec<usize> {
        std::iter::from_fn(|| self.step(now_ms * MILLISECOND))
            .map(|part| part.len())
            .collect()
    }

    /// When the chunk in front would be released, ns; it is then released.
    pub(crate) fn next_release(&mut self) -> Nanos {
        let mut scene = Scene {
            now: 0,
            draws: &mut self.draws,
            tally: &mut self.tally,
            shared: &self.shared,
        };
        match self.stage.step(&mut self.inbox, &mut scene) {
            Step::Until(time) => {
                self.step(time);
                time
            }
            _ => 0,
        }
    }

    pub(crate) fn delivered_or_waiting(&self) -> usize {
        self.delivered + self.inbox.len()
    }

    pub(crate) fn stats(&self) -> ToxicStats {
        self.counters.read()
    }

    /// What goes on when the toxic is removed.
    pub(crate) fn remove(mut self) -> String {
        match self.stage.removal() {
            Removal::Close => "|CLOSE".to_owned(),
            Removal::Reset => "|RST".to_owned(),
            Removal::Flush => std::iter::from_fn(|| self.inbox.pop()).map(show).collect(),
        }
    }

    fn step(&mut self, now: Nanos) -> Option<String> {
        self.item(now).map(show)
    }

    fn item(&mut self, now: Nanos) -> Option<Item> {
        let mut scene = Scene {
            now,
            draws: &mut self.draws,
            tally: &mut self.tally,
            shared: &self.shared,
        };
        match self.stage.step(&mut self.inbox, &mut scene) {
            Step::Idle | Step::Until(_) => None,
            Step::Close => {
                let waiting = self.inbox.iter_from(0);
                waiting.for_each(|item| self.tally.dropped(item));
                self.inbox.clear();
                self.tally.closed();
                Some(Item::End(Ending::Close))
            }
            Step::Reset => {
                self.tally.reset();
                Some(Item::End(Ending::Reset))
            }
            Step::Pass(item) => {
                if item == Item::End(Ending::Close) {
                    self.tally.closed();
                }
                self.delivered += 1;
                Some(item)
            }
        }
    }
}

/// Bytes as text; an end as `|FIN`, `|CLOSE`, `|RST`.
pub(crate) fn show(item: Item) -> String {
    match item {
        Item::Data(piece) => String::from_utf8(piece.data.to_vec()).unwrap(),
        Item::End(Ending::Finished) => "|FIN".to_owned(),
        Item::End(Ending::PeerReset | Ending::Reset) => "|RST".to_owned(),
        Item::End(Ending::Close) => "|CLOSE".to_owned(),
    }
}
