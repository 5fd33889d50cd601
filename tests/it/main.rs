//! Integration tests of the harness: one binary, one module per part, each test a claim.
//!
//! Wait for conditions with `support::eventually`, never for time; loopback and free ports only.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where, and ends"
)]

mod cli;
mod diagnostics;
mod docs;
mod honesty;
mod keeper;
mod load;
mod outage;
mod plan;
mod report;
mod results;
mod run;
mod scene;
mod shutdown;
mod support;
mod through_toxiproxy;
mod tidy;
mod toxiproxy;
