//! What went out over all edges of a service: the caller's own word on its calls, for whoever cannot
//! look into the links themselves.

use serde::Serialize;

use crate::kit::ring::Ring;

/// One try of one request.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptRow {
    /// `payments -> psp`.
    pub link: String,
    /// Method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// The idempotency key, if the request has one.
    pub key: Option<String>,
    /// The trace it belongs to.
    pub trace: String,
    /// When it went out, ns of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// When the head of the answer was there, same clock.
    pub first_byte: Option<u64>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// `answered`, `refused` (no connection), `closed-by-callee` (it broke off), `closed-by-caller`
    /// (time-out, or nobody waits any more).
    pub end: &'static str,
}

/// The ring that all edges of a service share.
pub type Attempts = Ring<AttemptRow>;
