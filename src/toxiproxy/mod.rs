//! A Toxiproxy-compatible fault-injecting TCP proxy: the engine, its HTTP API and an async client.
//!
//! ```text
//! caller ── listener ─▶ connection ── request chain ──▶ upstream
//!                            ◀────── response chain ───┘
//!            api ── changes ─▶ proxy (set of toxics, generation) ── wakes ─▶ its connections
//! ```
//!
//! One task carries a connection. Each direction is a chain of small state machines
//! (`toxics/`, one file each) that never wait, so a set of toxics is changed between two steps,
//! for both directions at once, and no call of the API ever waits for a peer.
//!
//! This module knows nothing of scenarios or runs: it is a server and a client, and the rest of the
//! crate uses them over HTTP only. Read next: [`wire`] (the shapes), [`server`] (how it starts),
//! [`client`], then `engine/connection.rs` and `engine/chain.rs` for the data plane.

mod api;
pub mod client;
mod clock;
mod engine;
pub mod log;
mod requests;
pub mod server;
pub(crate) mod toxics;
pub mod wire;

pub use client::{Client, ClientError};
pub use server::{Server, ServerError, ServerOptions, serve};

/// What `GET /version` answers; the suffix tells a client that the extensions are there.
pub const VERSION: &str = "2.12.0-chaos";
