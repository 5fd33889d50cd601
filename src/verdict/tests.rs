//! Every property: it passes, each reason to be inconclusive, each way to fail.

mod algebra;
mod links;
mod operations;
mod records;
