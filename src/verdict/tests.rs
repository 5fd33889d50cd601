//! Every property: it passes, each reason to be inconclusive, each way to fail.

mod algebra;
mod claims;
mod conserved;
mod events;
mod faults;
mod generator;
mod links;
mod operations;
mod records;
mod retries;
