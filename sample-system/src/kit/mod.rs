//! What every service of the shop is made of: one module per thing, no business rules.
//!
//! In the order in which a request meets them: `service` (ports, background work, end) → `http` (ids,
//! deadline, bulkheads) → `idempotency` → `store` → `edge` (with `breaker`) → `outbox` → `bus` →
//! `consumer`. Beside them: `config`, `context`, `event`, `error`, `health`, `evidence`, `ring`,
//! `telemetry`, `clock`, `shutdown`, `killpoint`.

pub mod breaker;
pub mod bus;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod context;
pub mod edge;
pub mod error;
pub mod event;
pub mod evidence;
#[cfg(test)]
pub(crate) mod fake_bus;
pub mod health;
pub mod http;
pub mod idempotency;
pub mod killpoint;
pub mod outbox;
pub mod ring;
mod routes;
pub mod service;
pub mod shutdown;
pub mod store;
pub mod telemetry;
