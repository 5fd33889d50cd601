//! What is broken, where, from when to when. The schedule is a value of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SourceRef;
use super::names::*;
use super::quantity::{duration_serde, optional_duration_serde};

/// One fault with its place on the time line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FaultPlan {
    /// Its name.
    pub name: FaultName,
    /// Where it was declared.
    pub source: SourceRef,
    /// When it starts, from T0, the seeded spread included.
    #[serde(with = "duration_serde")]
    pub start: Duration,
    /// How long it lasts; none for faults that are over when they are done (kill, restart, reset).
    #[serde(with = "optional_duration_serde")]
    pub lasts: Option<Duration>,
    /// What it does, and to what.
    pub effect: FaultEffect,
}

impl FaultPlan {
    /// When it is planned to end, from T0: for instantaneous ones, when what was taken down is
    /// started again.
    pub fn end(&self) -> Duration {
        let own = match &self.effect {
            FaultEffect::Process {
                effect: ProcessEffect::Kill { down_for },
                ..
            }
            | FaultEffect::Process {
                effect: ProcessEffect::Restart { down_for, .. },
                ..
            } => *down_for,
            _ => Duration::ZERO,
        };
        self.start + self.lasts.unwrap_or(own)
    }
}

/// What a fault acts on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultEffect {
    /// Links, by their proxies.
    Link {
        /// The links.
        links: Vec<LinkName>,
        /// Which way, from the caller's point of view.
        direction: Direction,
        /// What happens there.
        effect: LinkEffect,
    },
    /// Processes, by the keeper.
    Process {
        /// The services.
        services: Vec<ServiceName>,
        /// What happens to them.
        effect: ProcessEffect,
    },
}

/// Which way, from the caller's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Caller → callee (Toxiproxy's upstream).
    Request,
    /// Callee → caller (Toxiproxy's downstream).
    Response,
    /// Both.
    Both,
}

/// What happens to a link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkEffect {
    /// Every chunk is delayed from its arrival.
    Latency {
        /// The delay.
        #[serde(with = "duration_serde")]
        latency: Duration,
        /// Uniform, either way.
        #[serde(with = "duration_serde")]
        jitter: Duration,
    },
    /// Bytes are held and delivered when lifted.
    Stall,
    /// Bytes are dropped; connections are closed when lifted.
    Blackhole,
    /// Bytes per second, per connection.
    Bandwidth {
        /// Bytes per second.
        bytes_per_s: u64,
    },
    /// A close is passed on late.
    SlowClose {
        /// How late.
        #[serde(with = "duration_serde")]
        delay: Duration,
    },
    /// A connection is reset some time after its first chunk.
    ResetPeer {
        /// How long after.
        #[serde(with = "duration_serde")]
        after: Duration,
    },
    /// Data arrives in small pieces.
    Slicer {
        /// Average size of a piece, in bytes.
        average_size: u64,
        /// How much sizes vary, in bytes.
        size_variation: u64,
        /// Pause after each piece.
        #[serde(with = "duration_serde")]
        delay: Duration,
    },
    /// A connection is closed after this many bytes.
    LimitData {
        /// Bytes.
        bytes: u64,
    },
    /// All live connections are reset at once.
    Reset,
    /// Nothing gets through.
    Down {
        /// How connections are turned away.
        how: Down,
    },
    /// A toxic in Toxiproxy's own words and units.
    Toxic {
        /// Its type.
        kind: String,
        /// Its attributes.
        attributes: BTreeMap<String, serde_json::Value>,
        /// Share of connections it acts on.
        toxicity: f64,
    },
}

/// The toxics of a Toxiproxy 2.12.
const TOXIPROXY_TYPES: [&str; 8] = [
    "latency",
    "bandwidth",
    "slow_close",
    "timeout",
    "reset_peer",
    "slicer",
    "limit_data",
    "noop",
];

impl LinkEffect {
    /// What a Toxiproxy 2.12 cannot do of it, with what to use instead.
    pub fn beyond_toxiproxy(&self) -> Option<(String, &'static str)> {
        match self {
            Self::Latency { .. }
            | Self::Stall
            | Self::Blackhole
            | Self::Bandwidth { .. }
            | Self::SlowClose { .. }
            | Self::ResetPeer { .. }
            | Self::Slicer { .. }
            | Self::LimitData { .. }
            | Self::Down { how: Down::Refuse } => None,
            Self::Reset => Some(("`reset`".into(), "use `down` for a moment")),
            Self::Down { how: Down::Reset } => Some((
                "`down: { how: reset }`".into(),
                "let it refuse: `inject: down`",
            )),
            Self::Toxic { kind, .. } => {
                let known = TOXIPROXY_TYPES.contains(&kind.as_str());
                let what = || format!("the toxic `{kind}`");
                (!known).then(|| (what(), "choose a type that it has"))
            }
        }
    }

    /// The name that the scenario file uses, for messages and reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Stall => "stall",
            Self::Blackhole => "blackhole",
            Self::Bandwidth { .. } => "bandwidth",
            Self::SlowClose { .. } => "slow-close",
            Self::ResetPeer { .. } => "reset-peer",
            Self::Slicer { .. } => "slicer",
            Self::LimitData { .. } => "limit-data",
            Self::Reset => "reset",
            Self::Down { .. } => "down",
            Self::Toxic { .. } => "toxic",
        }
    }
}

/// How a link that is down turns connections away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Down {
    /// The port is closed, live connections are cut. Attempts cannot be counted.
    Refuse,
    /// Connections are accepted, their request is counted, then they are reset.
    Reset,
}

/// What happens to a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessEffect {
    /// SIGKILL, then started again.
    Kill {
        /// For how long it stays down.
        #[serde(with = "duration_serde")]
        down_for: Duration,
    },
    /// Its stop signal, started again when the fault ends.
    Stop,
    /// SIGSTOP, SIGCONT when the fault ends.
    Pause,
    /// A signal, its grace, then started again.
    Restart {
        /// `TERM`, `INT`, `HUP`, `KILL`.
        signal: String,
        /// For how long it stays down.
        #[serde(with = "duration_serde")]
        down_for: Duration,
    },
}

impl ProcessEffect {
    /// The name that the scenario file uses.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Restart { .. } => "restart",
        }
    }
}

impl FaultEffect {
    /// The name that the scenario file uses.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Link { effect, .. } => effect.name(),
            Self::Process { effect, .. } => effect.name(),
        }
    }

    /// What it acts on, as people read it: `payments -> psp`, `orders`.
    pub fn targets(&self) -> Vec<String> {
        match self {
            Self::Link { links, .. } => links.iter().map(ToString::to_string).collect(),
            Self::Process { services, .. } => services.iter().map(ToString::to_string).collect(),
        }
    }
}
