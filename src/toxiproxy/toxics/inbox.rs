//! What travels down a chain, and the queue before each stage.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::toxiproxy::clock::Nanos;

/// One thing under way from a source to its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// Bytes.
    Data(Piece),
    /// The end; nothing follows it.
    End(Ending),
}

/// How a direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The source closed its side: the destination sees the same, the other direction lives on.
    Finished,
    /// The source was reset: so is the destination.
    PeerReset,
    /// A toxic closes the whole connection.
    Close,
    /// A toxic resets the whole connection, behind the bytes that are under way.
    Reset,
}

/// Some bytes that arrived together, and to what they belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The bytes.
    pub(crate) data: Bytes,
    /// When they arrived at the stage before which they wait: when they were read, or when the stage
    /// before was to release them.
    pub(crate) at: Nanos,
    /// Number of the request on this connection; 0 when they belong to none that is known.
    pub(crate) request: u64,
    /// Their place in the message.
    pub(crate) part: Part,
}

/// Where in a message some bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Not known to be a message.
    Opaque,
    /// An informational answer, `100 Continue` and its like, before the real one.
    Interim,
    /// A message, and more of it follows.
    Inside,
    /// The last bytes of a message.
    Last,
}

impl Piece {
    /// Cuts off the first `length` bytes; the end of the message stays with the rest.
    pub(crate) fn split_to(&mut self, length: usize) -> Piece {
        let part = if self.part == Part::Last {
            Part::Inside
        } else {
            self.part
        };
        Piece {
            data: self.data.split_to(length),
            part,
            ..*self
        }
    }
}

/// A queue of items that knows its weight.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    items: VecDeque<Item>,
    weight: usize,
}

impl Inbox {
    /// What the bookkeeping of one item is counted as, so that tiny pieces are bounded too.
    const OVERHEAD: usize = 64;

    /// Its bytes and its bookkeeping.
    pub(crate) fn weigh(item: &Item) -> usize {
        match item {
            Item::Data(piece) => piece.data.len() + Self::OVERHEAD,
            Item::End(_) => Self::OVERHEAD,
        }
    }

    /// Adds an item behind all others.
    pub(crate) fn push(&mut self, item: Item) {
        self.weight += Self::weigh(&item);
        self.items.push_back(item);
    }

    /// Takes the oldest item.
    pub(crate) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.weight -= Self::weigh(&item);
        Some(item)
    }

    /// The oldest item.
    pub(crate) fn front(&self) -> Option<&Item> {
        self.items.front()
    }

    /// Cuts the first `length` bytes off the oldest item, which must be data; all of it if it has no more.
    pub(crate) fn take_front(&mut self, length: usize) -> Option<Piece> {
        match self.items.front_mut() {
            Some(Item::Data(piece)) if length < piece.data.len() => {
                let head = piece.split_to(length);
                self.weight -= head.data.len();
                Some(head)
            }
            Some(Item::Data(_)) => match self.pop() {
                Some(Item::Data(piece)) => Some(piece),
                _ => None,
            },
            _ => None,
        }
    }

    /// Drops the first `length` bytes of the oldest item because they were written.
    pub(crate) fn advance_front(&mut self, length: usize) {
        drop(self.take_front(length));
    }

    /// Moves everything of `other` behind what is here.
    pub(crate) fn append(&mut self, other: &mut Inbox) {
        self.weight += other.weight;
        other.weight = 0;
        self.items.append(&mut other.items);
    }

    /// The items behind the first `skipped`.
    pub(crate) fn iter_from(&self, skipped: usize) -> impl Iterator<Item = &Item> {
        self.items.iter().skip(skipped)
    }

    /// Whether nothing waits here.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Number of items.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes that wait here, bookkeeping included.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.weight = 0;
    }
}
