//! Making a plan happen: all effects of a run.

pub mod leftovers;
pub mod ports;
pub mod shutdown;
