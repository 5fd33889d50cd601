//! The tables of `orders`, and what each is for. The kit adds its own (outbox, inbox, ledger).
//!
//! - `events` is the truth: one row per fact, `(aggregate_id, version)` unique, so that two writers cannot both
//!   append version n. `owes` is by how much the fact changes what the customer owes.
//! - `placements` makes `POST /orders` repeatable: one order per user and `Idempotency-Key`.
//! - `saga`, `saga_log` and `workers` are the saga's memory; there is none anywhere else.
//! - `order_view`, `projected` and `projection_offset` belong to the projection and can be built again from `events`.
//!   `projected` is an append-only list without a unique key, so that an event applied twice would show.
//! - `customers`, `carts` and `prices` are replicas of what other services said last.

/// All of them, each repeatable.
pub(super) const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE,
        aggregate_id TEXT NOT NULL, version BIGINT NOT NULL, type TEXT NOT NULL,
        owes BIGINT NOT NULL, data TEXT NOT NULL, meta TEXT NOT NULL, at BIGINT NOT NULL,
        mono_ns BIGINT NOT NULL, UNIQUE (aggregate_id, version))",
    "CREATE TABLE IF NOT EXISTS placements (
        user_id TEXT NOT NULL, key TEXT NOT NULL, request_hash TEXT NOT NULL,
        order_id TEXT NOT NULL UNIQUE, PRIMARY KEY (user_id, key))",
    "CREATE TABLE IF NOT EXISTS saga (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL, plan TEXT NOT NULL, step TEXT NOT NULL,
        deadline BIGINT NOT NULL, next_at BIGINT NOT NULL, attempts BIGINT NOT NULL,
        owner TEXT NOT NULL, epoch BIGINT NOT NULL, stuck BIGINT NOT NULL,
        traceparent TEXT NOT NULL, correlation_id TEXT NOT NULL,
        created_at BIGINT NOT NULL, ended_at BIGINT)",
    "CREATE INDEX IF NOT EXISTS saga_due ON saga (state, next_at)",
    "CREATE INDEX IF NOT EXISTS saga_deadline ON saga (state, deadline)",
    "CREATE TABLE IF NOT EXISTS saga_log (
        saga_id TEXT NOT NULL, seq BIGINT NOT NULL, step TEXT NOT NULL, phase TEXT NOT NULL,
        attempt BIGINT NOT NULL, key TEXT NOT NULL, error TEXT, at BIGINT NOT NULL,
        mono_ns BIGINT NOT NULL, epoch BIGINT NOT NULL, incarnation TEXT NOT NULL,
        PRIMARY KEY (saga_id, seq))",
    "CREATE TABLE IF NOT EXISTS workers (
        name TEXT PRIMARY KEY, incarnation TEXT NOT NULL, beat BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS order_view (
        order_id TEXT PRIMARY KEY, user_id TEXT NOT NULL, state TEXT NOT NULL,
        total_cents BIGINT, items TEXT NOT NULL, reason TEXT, version BIGINT NOT NULL,
        placed_at BIGINT NOT NULL, updated_at BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS order_view_user ON order_view (user_id, order_id)",
    "CREATE TABLE IF NOT EXISTS projected (
        n INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, type TEXT NOT NULL,
        aggregate_id TEXT NOT NULL, version BIGINT NOT NULL, at BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS projection_offset (
        name TEXT PRIMARY KEY, position BIGINT NOT NULL, rebuilds BIGINT NOT NULL)",
    "INSERT INTO projection_offset (name, position, rebuilds) VALUES ('order_view', 0, 0)
        ON CONFLICT DO NOTHING",
    "CREATE TABLE IF NOT EXISTS customers (
        user_id TEXT PRIMARY KEY, email TEXT NOT NULL, name TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS carts (
        user_id TEXT PRIMARY KEY, items TEXT NOT NULL, created_at BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS prices (
        sku TEXT PRIMARY KEY, price_cents BIGINT NOT NULL, at BIGINT NOT NULL)",
];
