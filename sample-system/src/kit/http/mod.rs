//! The server side of a service: what happens to every request before and after its handler.
//!
//! Never business rules. Next: `http::server` (listening and stopping), `http::bulkhead`.

pub(crate) mod arrivals;
mod bulkhead;
mod middleware;
pub(crate) mod server;

pub use bulkhead::{Bulkhead, Place};
pub(crate) use middleware::wrap;
pub(crate) use server::Drained;
