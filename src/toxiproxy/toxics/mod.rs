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
mod corrupt;
mod http;
mod inbox;
mod latency;
mod limit_data;
mod limit_time;
mod loss;
mod noop;
mod reset;
mod reset_peer;
mod shared;
mod slicer;
mod slow_close;
mod slow_open;
mod stall;
mod tally;
mod timeout;

#[cfg(test)]
pub(crate) mod bench;

pub(crate) use attributes::{Attributes, Extra};
pub(crate) use http::{Effect, Rule};
pub(crate) use inbox::{Ending, Inbox, Item, Part, Piece};
pub(crate) use shared::Shared;
pub(crate) use tally::{Counters, Tally};

use super::clock::Nanos;
use super::engine::Draws;

/// All types of toxics, by name as clients send it.
pub(crate) const KINDS: [&Kind; 15] = [
    &bandwidth::KIND,
    &corrupt::KIND,
    &http::KIND,
    &latency::KIND,
    &limit_data::KIND,
    &limit_time::KIND,
    &loss::KIND,
    &noop::KIND,
    &reset::KIND,
    &reset_peer::KIND,
    &slicer::KIND,
    &slow_close::KIND,
    &slow_open::KIND,
    &stall::KIND,
    &timeout::KIND,
];

/// A type of toxic.
pub(crate) struct Kind {
    /// `type` in JSON.
    pub(crate) name: &'static str,
    /// Its attributes that are whole numbers, in the order they are listed.
    pub(crate) attributes: &'static [&'static str],
    /// Its other attributes, which Toxiproxy does not know: shown only when they are set.
    pub(crate) extras: &'static [Extra],
    /// Starts it on one direction of one connection. Never called where the role has no stage.
    pub(crate) stage: fn(&Attributes) -> Box<dyn Stage>,
    /// Bytes its inbox takes before the source is no longer read.
    pub(crate) room: usize,
    /// What it works on.
    pub(crate) role: Role,
}

/// What a toxic works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The bytes of one direction, by its stage.
    Bytes,
    /// All of a connection: a new one is never dialled, only listened to for a moment, so that a request
    /// is counted, and reset; the stage resets the live ones.
    Reset,
    /// A new connection before it is dialled. It has no stage.
    Opening,
    /// HTTP requests and their answers, where they enter (`engine/gate.rs`). It has no stage.
    Requests,
}

impl Role {
    /// Whether its stage belongs into the chain of its direction.
    pub(crate) fn has_stage(self) -> bool {
        matches!(self, Self::Bytes | Self::Reset)
    }
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

    /// Says what happens now instead of [`Self::step`] while no bytes can be passed on: the next stage has
    /// no room, or the end has passed already. A stage that ends connections by time does so here too; it
    /// passes nothing on but an end.
    fn step_without_room(&mut self, _: &mut Inbox, _: &mut Scene<'_>) -> Step {
        Step::Idle
    }

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
    /// What the toxic has in common with itself on other connections.
    pub(crate) shared: &'a Shared,
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
    /// Close the connection now: nothing that is under way behind this stage is waited for.
    Close,
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
