//! What must hold: the closed set of properties with every parameter resolved.
//!
//! What each means exactly is said in `verdict/`, one file per kind of property.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SourceRef;
use super::names::*;
use super::quantity::{duration_serde, optional_duration_serde};
use super::system::BreakerPlan;

/// A declared property.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PropertyPlan {
    /// Its name.
    pub name: PropertyName,
    /// Where it was declared: the failing line that a verdict points at.
    pub source: SourceRef,
    /// What must hold.
    pub property: Property,
    /// What the plan expects it to rest on.
    pub expected: Expected,
}

/// What a plan says about a property before the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Expected {
    /// How many operations, calls or events the property should see; 0 where that is not counted.
    pub n: u64,
    /// How many it needs to mean anything.
    pub n_min: u64,
    /// The arithmetic in words: "800 operations; the smallest share they can show is 0.13%".
    pub arithmetic: String,
}

/// The part of the run that a property looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// While any of these faults is on, and for some time after each.
    During {
        /// The faults.
        faults: Vec<FaultName>,
        /// For how long after each fault's end.
        #[serde(with = "duration_serde")]
        and_after: Duration,
    },
    /// From a fault's end to the end of the load.
    After {
        /// The fault.
        fault: FaultName,
    },
    /// The baseline.
    Baseline,
    /// From the end of the last fault to the end of the load.
    Recovery,
    /// From the start of the baseline to the end of the load.
    Whole,
}

/// The closed set of properties.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Property {
    /// Share of operations whose effect is unknown.
    Errors(Errors),
    /// Percentiles from the intended start.
    Latency(Latency),
    /// Share of the offered operations that were done or accepted.
    Goodput(Goodput),
    /// No operation lasts longer than a limit.
    Hangs(Hangs),
    /// A breaker opens, limits its probes, closes.
    Breaker(Breaker),
    /// Retries stay in budget.
    Retries(Retries),
    /// Sagas end, one way or the other.
    Sagas(Sagas),
    /// No event is lost, made up or applied twice.
    Events(Events),
    /// Two ledgers agree.
    Conserved(Conserved),
    /// Views equal their source in the end.
    CatchesUp(CatchesUp),
    /// Goodput and latency come back.
    Recovers(Recovers),
    /// No service ends unless the run ended it.
    StaysUp,
}

impl Property {
    /// The name that the scenario file uses.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Errors(_) => "errors",
            Self::Latency(_) => "latency",
            Self::Goodput(_) => "goodput",
            Self::Hangs(_) => "hangs",
            Self::Breaker(_) => "breaker",
            Self::Retries(_) => "retries",
            Self::Sagas(_) => "sagas",
            Self::Events(_) => "events",
            Self::Conserved(_) => "conserved",
            Self::CatchesUp(_) => "catches-up",
            Self::Recovers(_) => "recovers",
            Self::StaysUp => "stays-up",
        }
    }
}

/// `errors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Errors {
    /// The operation.
    pub operation: OperationName,
    /// When.
    pub window: Window,
    /// The largest allowed share of unknown operations; 0 is a count of zero.
    pub at_most: f64,
    /// Whether unsettled operations count as errors.
    pub unsettled: bool,
    /// The largest allowed share of merely accepted ones.
    pub accepted_at_most: Option<f64>,
}

/// `latency`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Latency {
    /// The operation.
    pub operation: OperationName,
    /// When.
    pub window: Window,
    /// Quantile (0.99) and limit, rising.
    pub limits: Vec<QuantileLimit>,
    /// Only operations that were done; else done, accepted and unknown.
    pub of_done: bool,
}

/// A limit on a percentile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct QuantileLimit {
    /// 0.99 for p99; 1.0 for max.
    pub quantile: f64,
    /// The limit.
    #[serde(with = "duration_serde")]
    pub limit: Duration,
}

/// `goodput`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Goodput {
    /// The operation.
    pub operation: OperationName,
    /// When.
    pub window: Window,
    /// The smallest allowed share.
    pub at_least: f64,
    /// Of what.
    pub of: GoodputOf,
}

/// What goodput is a share of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoodputOf {
    /// Operations that were due in the window.
    Offered,
    /// The rate of the baseline.
    Baseline,
}

/// `hangs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hangs {
    /// The operation; none is every one.
    pub operation: Option<OperationName>,
    /// When.
    pub window: Window,
    /// No operation lasts longer than this, from its intended start.
    #[serde(with = "duration_serde")]
    pub longer_than: Duration,
}

/// `breaker`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Breaker {
    /// The link it guards.
    pub link: LinkName,
    /// Which half of its work is judged.
    pub when: BreakerWhen,
    /// How it is set.
    pub breaker: BreakerPlan,
    /// Where its caller says what its state is; none if the system has no such source.
    pub transitions: Vec<SourceName>,
}

/// Which half of a breaker's work is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerWhen {
    /// `during`: opens, half-open, not spurious, claimed = real.
    During {
        /// The fault.
        fault: FaultName,
        /// From the fault's confirmed start.
        #[serde(with = "duration_serde")]
        opens_within: Duration,
        /// The smallest share of demand it must keep off the link once open.
        blocks_at_least: f64,
    },
    /// `after`: closes, not stuck.
    After {
        /// The fault.
        fault: FaultName,
        /// From the fault's confirmed end.
        #[serde(with = "duration_serde")]
        closes_within: Duration,
    },
}

/// `retries`. Only the limits named apply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Retries {
    /// The link.
    pub link: LinkName,
    /// When.
    pub window: Window,
    /// Attempts / distinct keys over the window.
    pub amplification_at_most: Option<f64>,
    /// The same as a peak over windows of a second.
    pub peak_at_most: Option<f64>,
    /// Attempts of one key within one request (re-drives are told apart by `deadline`).
    pub attempts_at_most: Option<u32>,
    /// How long attempts of one key belong to one request: the caller's deadline.
    #[serde(with = "duration_serde")]
    pub deadline: Duration,
    /// The shortest pause before a re-drive. With it, pauses and not `deadline` tell re-drives from
    /// retries, and no retry may come after `deadline`.
    #[serde(default, with = "optional_duration_serde")]
    pub redrives_after: Option<Duration>,
    /// Whether gaps must be jittered, and retries not come in step.
    pub jitter: bool,
    /// Whether the gaps of one request must not shrink.
    #[serde(default)]
    pub backoff: bool,
}

/// `sagas`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sagas {
    /// The saga type.
    pub saga: SagaName,
    /// The source of saga records.
    pub evidence: SourceName,
    /// Every saga must be final this long after the end of the load.
    #[serde(with = "duration_serde")]
    pub within: Duration,
    /// The operation whose outcomes must agree with the sagas, joined by its captured or sent key.
    pub operation: Option<OperationName>,
    /// At least this many sagas whose log holds rows of two epochs.
    pub resumed_at_least: u64,
    /// At least this many sagas that were compensated.
    #[serde(default)]
    pub undone_at_least: u64,
}

/// `events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Events {
    /// What was committed.
    pub committed: SourceName,
    /// What may have been committed.
    pub unknown: Option<SourceName>,
    /// Largest number of lost events.
    pub lost: u64,
    /// Largest number of effects of events that never were.
    pub phantom: u64,
    /// Largest number of events applied more than once.
    pub applied_twice: u64,
    /// Largest number of dead letters.
    pub dead_letters: u64,
    /// The source of dead letters, if any.
    pub dead_letter_evidence: Option<SourceName>,
    /// Who must see the events, and where that shows.
    pub consumers: BTreeMap<ConsumerName, ConsumerEvidence>,
}

/// Where a consumer's work shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConsumerEvidence {
    /// Topic patterns of the events it must see (from the system file).
    pub patterns: Vec<String>,
    /// The source of its effects.
    pub effects: SourceName,
    /// The source of what it was handed, if any.
    pub deliveries: Option<SourceName>,
}

/// `conserved`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Conserved {
    /// One ledger.
    pub left: SourceName,
    /// The other.
    pub right: SourceName,
    /// What the running sum of a key may never fall below, in either ledger.
    #[serde(default)]
    pub never_below: Option<i64>,
}

/// `catches-up`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CatchesUp {
    /// The versions of the view.
    pub view: SourceName,
    /// The versions of what it is a view of.
    pub source: SourceName,
    /// The fault after which it must catch up; none is the end of the load.
    pub after: Option<FaultName>,
    /// Within how long.
    #[serde(with = "duration_serde")]
    pub within: Duration,
}

/// `recovers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recovers {
    /// The operation.
    pub operation: OperationName,
    /// The fault.
    pub after: FaultName,
    /// Goodput as a share of the baseline's.
    pub goodput: f64,
    /// Quantile of the latency that is compared.
    pub quantile: f64,
    /// That percentile as a share of the baseline's (1.5 for `150%`); at least +50 ms.
    pub latency: f64,
    /// By when, from the fault's confirmed end.
    #[serde(with = "duration_serde")]
    pub within: Duration,
    /// For how long it must hold.
    #[serde(with = "duration_serde")]
    pub hold: Duration,
}
