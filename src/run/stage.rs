//! What a run has started, and how it is taken down: keeper, proxy, services, worker.
//!
//! Filled step by step by `run::phases`; [`Stage::tear_down`] copes with every state in between.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::evidence::folder::RunFolder;
use crate::evidence::{Event, StopReason};
use crate::keeper::client::{Keeper, KeeperOptions};
use crate::keeper::protocol::{ProcessId, SpawnSpec, Stdin};
use crate::load::wire::Assignment;
use crate::plan::Plan;
use crate::plan::load::FeedPlan;
use crate::toxiproxy::client::Client;

use super::bindings::{Bindings, wanted_ports};
use super::collect::{self, Context};
use super::error::RunError;
use super::fleet::{Fleet, FleetParts};
use super::journal::Journal;
use super::links::Links;
use super::load_host::LoadHost;
use super::ports::Ports;
use super::shutdown::Shutdown;
use super::{Options, bind, own_executable};

/// How long the proxy may take to answer after its start.
const PROXY_WITHIN: Duration = Duration::from_secs(10);
/// How long the worker may take to be ready.
const WORKER_WITHIN: Duration = Duration::from_secs(30);
/// The load begins this long after it was asked for, so that the worker can get ready for T0.
const T0_LEAD: Duration = Duration::from_millis(100);
/// How long one step of teardown may take beside the services' grace.
const STEP_WITHIN: Duration = Duration::from_millis(700);
/// Ports beside those of links and services.
const PROXY_API: &str = "@proxy";

/// See the module.
pub(crate) struct Stage {
    plan: Arc<Plan>,
    journal: Arc<Journal>,
    keeper: Arc<Keeper>,
    ports: Ports,
    logs: PathBuf,
    fleet: Arc<Fleet>,
    host: Option<LoadHost>,
    watching_links: Option<(CancellationToken, JoinHandle<()>)>,
    pub(crate) client: reqwest::Client,
    pub(crate) bindings: Arc<Bindings>,
    pub(crate) links: Arc<Links>,
    pub(crate) context: Arc<Context>,
}
