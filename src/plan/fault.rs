//! What is broken, where, from when to when. The schedule is a value of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SourceRef;
use super::names::*;
use super::quantity::{duration_serde, duration_text, optional_duration_serde, share_text};

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
        /// How much it varies.
        #[serde(with = "duration_serde")]
        jitter: Duration,
        /// In which way.
        distribution: Distribution,
    },
    /// Bytes are held and delivered when lifted.
    Stall,
    /// Bytes are dropped, and no close is heard of; connections are closed when lifted.
    Blackhole,
    /// Bytes per second, per connection.
    Bandwidth {
        /// Bytes per second, in whole thousands.
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
    /// New connections are opened late.
    SlowOpen {
        /// How late.
        #[serde(with = "duration_serde")]
        delay: Duration,
    },
    /// A connection is closed after a while.
    LimitTime {
        /// How long after it began, or after the fault began.
        #[serde(with = "duration_serde")]
        after: Duration,
    },
    /// One bit in about so many bytes is flipped.
    Corrupt {
        /// Bytes.
        every: u64,
    },
    /// Segments are lost and sent again.
    Loss {
        /// Share of segments.
        share: f64,
        /// How long until one is sent again.
        #[serde(with = "duration_serde")]
        timeout: Duration,
    },
    /// Single requests fail, wait, or lose their answer.
    Http(HttpFault),
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

/// The toxics of a Toxiproxy 2.12, and their attributes.
const TOXIPROXY_TYPES: [(&str, &[&str]); 8] = [
    ("latency", &["latency", "jitter"]),
    ("bandwidth", &["rate"]),
    ("slow_close", &["delay"]),
    ("timeout", &["timeout"]),
    ("reset_peer", &["timeout"]),
    ("slicer", &["average_size", "size_variation", "delay"]),
    ("limit_data", &["bytes"]),
    ("noop", &[]),
];

impl LinkEffect {
    /// What a Toxiproxy 2.12 cannot do of it, with what to use instead.
    pub fn beyond_toxiproxy(&self) -> Option<(String, &'static str)> {
        match self {
            Self::Latency { distribution, .. } => (*distribution != Distribution::Uniform)
                .then(|| ("a `distribution`".into(), "let delays vary evenly")),
            Self::Stall
            | Self::Blackhole
            | Self::Bandwidth { .. }
            | Self::SlowClose { .. }
            | Self::ResetPeer { .. }
            | Self::Slicer { .. }
            | Self::LimitData { .. }
            | Self::Down { how: Down::Refuse } => None,
            Self::Reset => Some(("`reset`".into(), "use `down` for a moment")),
            Self::SlowOpen { .. }
            | Self::LimitTime { .. }
            | Self::Corrupt { .. }
            | Self::Loss { .. }
            | Self::Http(_) => Some((
                format!("`{}`", self.name()),
                "choose a fault that every Toxiproxy has",
            )),
            Self::Down { how: Down::Reset } => Some((
                "`down: { how: reset }`".into(),
                "let it refuse: `inject: down`",
            )),
            Self::Toxic {
                kind, attributes, ..
            } => {
                let Some((_, known)) = TOXIPROXY_TYPES.iter().find(|it| it.0 == kind) else {
                    return Some((format!("the toxic `{kind}`"), "choose a type that it has"));
                };
                // It reads them in any case.
                let unknown =
                    |name: &&String| !known.iter().any(|known| known.eq_ignore_ascii_case(name));
                let name = attributes.keys().find(unknown)?;
                let what = format!("`{name}` of the toxic `{kind}`");
                Some((what, "leave it out, it would be skipped without a word"))
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
            Self::SlowOpen { .. } => "slow-open",
            Self::LimitTime { .. } => "limit-time",
            Self::Corrupt { .. } => "corrupt",
            Self::Loss { .. } => "loss",
            Self::Http(_) => "http",
            Self::Down { .. } => "down",
            Self::Toxic { .. } => "toxic",
        }
    }

    /// Whether requests come to their ordinary end in spite of it, so that callers who do not lose
    /// their patience know nothing of it.
    pub fn leaves_requests_whole(&self) -> bool {
        match self {
            Self::Bandwidth { .. } | Self::SlowClose { .. } | Self::Slicer { .. } => true,
            Self::Toxic { kind, .. } => {
                matches!(
                    kind.as_str(),
                    "bandwidth" | "slow_close" | "slicer" | "noop"
                )
            }
            _ => false,
        }
    }

    /// Whether it acts on whole connections or requests, and so has no direction.
    pub fn is_undirected(&self) -> bool {
        matches!(
            self,
            Self::Reset
                | Self::Down { .. }
                | Self::SlowOpen { .. }
                | Self::LimitTime { .. }
                | Self::Http(_)
        )
    }
}

/// How delays vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Within the jitter, either way.
    #[default]
    Uniform,
    /// The jitter is the standard deviation.
    Normal,
    /// The latency is the least; the jitter scales a long tail.
    Pareto,
}

impl Distribution {
    /// The name that the scenario file uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Normal => "normal",
            Self::Pareto => "pareto",
        }
    }
}

/// What happens to which requests of a link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HttpFault {
    /// What happens.
    pub effect: HttpEffect,
    /// How long the request waits before.
    #[serde(with = "duration_serde")]
    pub delay: Duration,
    /// `POST`; `*` stands for any text, here and below.
    pub method: Option<String>,
    /// `/charges/*`, without the query.
    pub path: Option<String>,
    /// Fields of the head.
    pub header: BTreeMap<String, String>,
    /// Share of the requests that match.
    pub share: f64,
    /// Only so many of them.
    pub first: Option<u32>,
    /// Only every so-manieth.
    pub every: Option<u32>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpEffect {
    /// It only waits.
    Delay,
    /// It is answered by the proxy.
    Status {
        /// 200 to 599.
        status: u16,
        /// May be empty.
        body: String,
    },
    /// The connection is reset before the callee sees it.
    Abort,
    /// The connection is reset after the callee has answered it.
    DropResponse,
    /// The answer gets another body.
    Body {
        /// This one.
        body: String,
    },
}

impl HttpFault {
    /// What it does in a few words: `answered 503 (the first 2)`.
    pub fn words(&self) -> String {
        let mut words = match &self.effect {
            HttpEffect::Delay => "requests".to_owned(),
            HttpEffect::Status { status, .. } => format!("requests answered {status}"),
            HttpEffect::Abort => "requests aborted".to_owned(),
            HttpEffect::DropResponse => "answers lost after the effect".to_owned(),
            HttpEffect::Body { .. } => "answers with another body".to_owned(),
        };
        if !self.delay.is_zero() {
            words += &format!(" {} late", duration_text(self.delay));
        }
        let target = [&self.method, &self.path].map(|text| text.as_deref().unwrap_or_default());
        let which = [
            target.join(" ").trim().to_owned(),
            self.first
                .map_or(String::new(), |n| format!("the first {n}")),
            self.every.map_or(String::new(), |n| format!("every {n}.")),
            match self.share {
                1.0 => String::new(),
                share => share_text(share),
            },
        ];
        let which: Vec<String> = which.into_iter().filter(|text| !text.is_empty()).collect();
        if !which.is_empty() {
            words += &format!(" ({})", which.join(", "));
        }
        words
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

    /// The services whose processes it acts on.
    pub fn services(&self) -> &[ServiceName] {
        match self {
            Self::Link { .. } => &[],
            Self::Process { services, .. } => services,
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
