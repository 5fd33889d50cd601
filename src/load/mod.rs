//! The load worker: drives journeys at the planned rate and measures them from where they should
//! have started.
//!
//! An open model: tickets of a shared schedule are due whatever the system does, because a loop of
//! users slows down exactly when the system does and so hides the stall. It knows nothing of
//! faults or verdicts and never runs inside the coordinator.
//!
//! ```text
//! schedule ─ pacer ─ queue ─ users (hosted by goose) ─ notes ─ recorder ─ uplink
//!  when    hands out  bounded  walk journeys over HTTP  bounded  books    batches
//!       └────────── one thread ──────────┘                    └── another ──┘
//! ```
//!
//! Read next: [`wire`] (what it is told and what it tells), [`schedule`], `user.rs`, `recorder.rs`,
//! then `run/load_host.rs` (the coordinator's side).

mod attempt;
pub mod draw;
mod histograms;
pub mod hlog;
mod host;
mod http;
mod journeys;
mod pacer;
mod queue;
mod recorder;
pub mod render;
pub mod schedule;
mod shared;
mod signals;
#[cfg(test)]
pub(crate) mod testing;
mod uplink;
mod user;
pub mod wire;
pub mod worker;

pub use histograms::{DecodeError, Durations, MAX_US, decode, empty, encode, record};
