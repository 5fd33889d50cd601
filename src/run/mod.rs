//! Making a plan happen: all effects of a run.

pub mod load_host;
