//! The small parent of all child processes of a run, so that nothing outlives it.
//!
//! `chaos keeper` is a process of its own: it starts the children, reports how they end, adopts
//! what they leave behind, and kills everything the moment its channel ends, however the other
//! side came to vanish. A parent-death signal alone would not do: it follows the *thread* that
//! spawned, is cleared by a change of user and misses grandchildren.
//!
//! Two halves that share only the messages in [`protocol`]:
//!
//! * the process ([`serve`]): single-threaded, std and system calls; no tokio, no HTTP, no YAML;
//! * the client ([`Keeper`]): what the coordinator holds; async.
//!
//! It knows nothing of scenarios or services; it never finds a process by name. Every child
//! carries `CHAOS_RUN=<run id>`, by which [`sweep`] finds strays when the keeper itself was
//! killed. Read next: [`protocol`], then `server.rs`.

mod channel;
mod client;
mod processes;
pub mod protocol;
mod server;
mod spawn;
mod system;

pub use client::{Keeper, KeeperError, KeeperOptions, Stopped};
pub use processes::{Swept, listening_on, sweep};
pub use protocol::{Change, ChangeKind, End, ProcessId, Signal, SpawnSpec, Spawned, Stdin};
pub use server::{ServeError, ServeOptions, serve};

/// The environment variable that every process of a run carries.
pub const RUN_VARIABLE: &str = "CHAOS_RUN";
