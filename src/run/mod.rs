//! Making a plan happen: all effects of a run.
