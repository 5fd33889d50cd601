//! The small parent of all child processes of a run.
