//! The whole shop in one process: nine services on free ports, each with its own database in a temporary folder.
//!
//! `boot.rs` starts and stops it; the other files say what must hold.

mod boot;
mod ordering;
mod outage;
