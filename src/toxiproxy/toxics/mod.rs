//! The toxics: one file each, registered by one line in [`KINDS`].
//!
//! A toxic is a [`Kind`] (name, attributes) that makes a [`Stage`] for each connection and direction it
//! acts on. Stages form a chain (`engine/chain.rs`):
//!
//! ```text
//! source ─▶ inbox₀ ─ stage₀ ─▶ inbox₁ ─ stage₁ ─▶ … ─▶ out ─▶ destination
//! ```
//!
//! A stage looks at its inbox and says what is to happen now ([`Step`]). It never waits, never reads a
//! clock and never touches a socket, so it is tested without any of them. It keeps what it waits for *in*
//! the inbox: whoever removes the stage moves the inbox on, and nothing can be lost or reordered.
//!
//! To add one: a file with a `KIND`, a line in [`KINDS`], its test beside it.

mod attributes;
mod bandwidth;
mod inbox;
mod latency;
mod limit_data;
mod noop;
mod reset;
mod reset_peer;
mod slicer;
mod slow_close;
mod stall;
mod tally;
mod timeout;

#[cfg(test)]
pub(crate) mod bench;

pub(crate) use attributes::Attributes;
pub(crate) use inbox::{Ending, Inbox, Item, Part, Piece};
pub(crate) use tally::{Counters, Tally};

use super::clock::Nanos;
use super::engine::Draws;

/// All types of toxics, by name as clients send it.
const KINDS: [&Kind; 10] = [
    &bandwidth::KIND,
    &latency::KIND,
    &limit_data::KIND,
    &noop::KIND,
    &reset::KIND,
    &reset_peer::KIND,
    &slicer::KIND,
    &slow_close::KIND,
    &stall::KIND,
    &timeout::KIND,
];

/// A type of toxic.
pub(crate) struct Kind {
    /// `type` in JSON.
    pub(crate) name: &'static str,
    /// Its attributes, whole numbers all, in the order they are listed.
    pub(crate) attributes: &'static [&'static str],
    /// Starts it on one direction of one connection.
    pub(crate) stage: fn(&Attributes) -> Box<dyn Stage>,
    /// Bytes its inbox takes before the source is no longer read.
    pub(crate) room: usize,
    /// What a new connection does before it dials.
    pub(crate) opening: Opening,
}

/// What a toxic makes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Dials the upstream.
    Dial,
    /// Never dials: reads the first bytes, so that a request is counted, and resets.
    Reset,
}

/// Room of a stage that needs no more than a chunk or two.
pub(crate) const SMALL_ROOM: usize = 256 * 1024;

/// Finds a type of toxic; the name is case-sensitive, as in Toxiproxy.
pub(crate) fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.into_iter().find(|kind| kind.name == name)
}

/// A toxic at work on one direction of one connection.
pub(crate) trait Stage: Send {
    /// Says what happens now. It is called again until it no longer passes anything on, and then when
    /// something arrived or the time it named has come.
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step;

    /// Takes new attributes while running.
    fn update(&mut self, attributes: &Attributes, now: Nanos);

    /// What becomes of the connection when the toxic is removed.
    fn removal(&self) -> Removal {
        Removal::Flush
    }
}

/// What a stage may look at and count besides its inbox.
pub(crate) struct Scene<'a> {
    /// The present.
    pub(crate) now: Nanos,
    /// Its own source of randomness.
    pub(crate) draws: &'a mut Draws,
    /// Where it says what it did.
    pub(crate) tally: &'a mut Tally,
}

/// What a stage wants to happen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Hand this to the next stage, then ask again.
    Pass(Item),
    /// Nothing until something arrives or is changed.
    Idle,
    /// Nothing before this time, unless something arrives or is changed.
    Until(Nanos),
    /// Reset the connection at once, whatever is still under way.
    Reset,
}

/// What becomes of a connection when one of its toxics is removed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// What waited goes on at once, in order.
    Flush,
    /// Bytes are missing, so the connection is closed.
    Close,
    /// Bytes are missing and a reset was under way: it comes now.
    Reset,
}
