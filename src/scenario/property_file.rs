//! Properties as the scenario file writes them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::text::{Map, OneOrMany, Share, Spanned, Text, Time, Unsupported};

/// The closed set of properties.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExpectFile {
    /// The share of operations of which nobody knows what became of them stays below a limit.
    Errors(ErrorsFile),
    /// Percentiles, measured from when an operation was due, stay below limits.
    Latency(LatencyFile),
    /// Enough of the offered operations are done or accepted.
    Goodput(GoodputFile),
    /// No operation lasts longer than a limit.
    Hangs(HangsFile),
    /// A breaker opens and limits its probes (`during`), or closes again (`after`).
    Breaker(BreakerExpectFile),
    /// Retries stay in budget.
    Retries(RetriesFile),
    /// Every saga ends, completed or undone.
    Sagas(SagasFile),
    /// No event is lost, made up or applied twice.
    Events(EventsFile),
    /// Two ledgers agree, key by key.
    Conserved(ConservedFile),
    /// A view equals its source again.
    CatchesUp(CatchesUpFile),
    /// Goodput and latency come back to the baseline's.
    Recovers(RecoversFile),
    /// No service ends unless the run ended it. Always judged; may be named to be seen.
    StaysUp,
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    Unaffected(Unsupported),
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    Sheds(Unsupported),
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    ShutsDown(Unsupported),
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    Traced(Unsupported),
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    Metric(Unsupported),
}

/// A part of the run, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InFile {
    /// The baseline.
    Baseline,
    /// From the end of the last fault to the end of the load.
    Recovery,
    /// From the start of the baseline to the end of the load.
    Whole,
}

/// The window of a property: one of `during` (with `and-after`), `after`, `in`.
#[derive(Clone, Debug, Default)]
pub struct WindowFile {
    /// While any of these faults is on.
    pub during: Option<OneOrMany>,
    /// And for this long after each.
    pub and_after: Option<Time>,
    /// From this fault's end to the end of the load.
    pub after: Option<Text>,
    /// A part of the run.
    pub within: Option<InFile>,
}

macro_rules! windowed {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $name {
            /// While this fault (or any of these) is on.
            #[serde(default)]
            pub during: Option<OneOrMany>,
            /// And for this long after each.
            #[serde(default)]
            pub and_after: Option<Time>,
            /// From this fault's end to the end of the load.
            #[serde(default)]
            pub after: Option<Text>,
            /// A part of the run.
            #[serde(default, rename = "in")]
            pub part: Option<InFile>,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Its window.
            #[must_use]
            pub fn window(&self) -> WindowFile {
                WindowFile {
                    during: self.during.clone(),
                    and_after: self.and_after.clone(),
                    after: self.after.clone(),
                    within: self.part,
                }
            }
        }
    )*};
}

windowed! {
    /// `errors`.
    ErrorsFile {
        /// The step of a journey.
        operation: Text,
        /// The largest allowed share of unknown outcomes; `0%` is a count of zero.
        at_most: Share,
        /// Whether unsettled operations count as well.
        #[serde(default)]
        unsettled: bool,
        /// A limit for merely accepted ones.
        #[serde(default)]
        accepted: Option<AcceptedFile>,
    }

    /// `latency`.
    LatencyFile {
        /// The step of a journey.
        operation: Text,
        /// The median.
        #[serde(default)]
        p50: Option<Time>,
        /// The 90th percentile.
        #[serde(default)]
        p90: Option<Time>,
        /// The 95th percentile.
        #[serde(default)]
        p95: Option<Time>,
        /// The 99th percentile.
        #[serde(default)]
        p99: Option<Time>,
        /// The 99.9th percentile.
        #[serde(default)]
        p999: Option<Time>,
        /// The slowest.
        #[serde(default)]
        max: Option<Time>,
        /// `done`: only operations that were done; default: done, accepted and unknown.
        #[serde(default)]
        of: Option<LatencyOfFile>,
    }

    /// `goodput`.
    GoodputFile {
        /// The step of a journey.
        operation: Text,
        /// The smallest allowed share.
        at_least: Share,
        /// Of what is offered (default) or of the baseline.
        #[serde(default)]
        of: Option<GoodputOfFile>,
    }

    /// `hangs`.
    HangsFile {
        /// The step of a journey; default: every one.
        #[serde(default)]
        operation: Option<Text>,
        /// No operation lasts longer than this, from when it was due.
        longer_than: Time,
    }

    /// `retries`: only the limits named apply.
    RetriesFile {
        /// The link.
        link: Text,
        /// Attempts per distinct key over the window.
        #[serde(default)]
        amplification: Option<AtMostFile>,
        /// The same in the worst second.
        #[serde(default)]
        peak: Option<AtMostFile>,
        /// Attempts of one key within one request.
        #[serde(default)]
        attempts: Option<AtMostFile>,
        /// How long attempts of one key belong to one request: the caller's deadline. Default: the
        /// load's time-out. Later attempts are re-drives, unless `redrives-after` says otherwise.
        #[serde(default)]
        deadline: Option<Time>,
        /// How long at least a re-drive waits after the attempt before it. Attempts with shorter
        /// pauses are one request, and none of them may start after `deadline`.
        #[serde(default)]
        redrives_after: Option<Time>,
        /// Whether the gaps must be jittered: they differ, and requests that failed together do not
        /// come back within the same 100 ms.
        #[serde(default)]
        jitter: bool,
        /// Whether the gaps between attempts of one request must not shrink.
        #[serde(default)]
        backoff: bool,
    }
}

/// An upper limit, a plain number.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AtMostFile {
    /// The limit.
    pub at_most: Spanned<f64>,
}

/// A limit for merely accepted operations.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AcceptedFile {
    /// The largest allowed share.
    pub at_most: Share,
}

/// Whose latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LatencyOfFile {
    /// Operations that were done.
    Done,
    /// Done, accepted and unknown.
    All,
}

/// What goodput is a share of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GoodputOfFile {
    /// What was due in the window.
    Offered,
    /// The rate of the baseline.
    Baseline,
}

/// `breaker`: `during` with `opens-within` and `blocks-at-least`, or `after` with `closes-within`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BreakerExpectFile {
    /// The link it guards; the system file says how it is set.
    pub link: Text,
    /// The fault during which it must open.
    #[serde(default)]
    pub during: Option<Text>,
    /// From the fault's start.
    #[serde(default)]
    pub opens_within: Option<Time>,
    /// The share of demand that it must keep off the link once open; default 90%.
    #[serde(default)]
    pub blocks_at_least: Option<Share>,
    /// The fault after which it must close.
    #[serde(default)]
    pub after: Option<Text>,
    /// From the fault's end.
    #[serde(default)]
    pub closes_within: Option<Time>,
}

/// `sagas`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SagasFile {
    /// The saga type; default: the only one.
    #[serde(default)]
    pub saga: Option<Text>,
    /// The evidence; default: the only source of saga records.
    #[serde(default)]
    pub evidence: Option<Text>,
    /// Every saga is final this long after the end of the load.
    pub within: Time,
    /// The operation that starts a saga, whose outcomes must agree with it; default: none compared
    /// unless only one operation can be meant.
    #[serde(default)]
    pub operation: Option<Text>,
    /// At least so many sagas were taken over by a later incarnation.
    #[serde(default)]
    pub resumed: Option<AtLeastFile>,
    /// At least so many sagas were compensated: without them nothing is known of their undoing.
    #[serde(default)]
    pub undone: Option<AtLeastFile>,
}

/// A lower limit, a whole number.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AtLeastFile {
    /// The limit.
    pub at_least: u64,
}

/// `events`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EventsFile {
    /// The source of what was committed.
    pub committed: Text,
    /// The source of what may have been committed.
    #[serde(default)]
    pub unknown: Option<Text>,
    /// Largest number of lost events; default 0.
    #[serde(default)]
    pub lost: u64,
    /// Largest number of effects of events that never were; default 0.
    #[serde(default)]
    pub phantom: u64,
    /// Largest number of events applied more than once; default 0.
    #[serde(default)]
    pub applied_twice: u64,
    /// Largest number of dead letters; default 0.
    #[serde(default)]
    pub dead_letters: u64,
    /// The source of dead letters; default: the only one.
    #[serde(default)]
    pub dead_letter_evidence: Option<Text>,
    /// Who must see the events, and where that shows.
    pub consumers: Map<ConsumerEvidenceFile>,
}

/// Where a consumer's work shows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConsumerEvidenceFile {
    /// The source of its effects.
    pub effects: Text,
    /// The source of what it was handed.
    #[serde(default)]
    pub deliveries: Option<Text>,
}

/// `conserved`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConservedFile {
    /// One source of entries.
    pub left: Text,
    /// The other.
    pub right: Text,
    /// What the running sum of a key may never fall below, in either ledger: `0`. Where a key has
    /// several rows with negative ones among them, `select:` must yield their order: `seq` or a time.
    #[serde(default)]
    pub never_below: Option<i64>,
}

/// `catches-up`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CatchesUpFile {
    /// The versions of the view.
    pub view: Text,
    /// The versions of what it is a view of.
    pub source: Text,
    /// The fault after which it must catch up; default: the end of the load.
    #[serde(default)]
    pub after: Option<Text>,
    /// Within how long.
    pub within: Time,
}

/// `recovers`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RecoversFile {
    /// The step of a journey.
    pub operation: Text,
    /// The fault.
    pub after: Text,
    /// Goodput as a share of the baseline's; default 95%.
    #[serde(default)]
    pub goodput: Option<Share>,
    /// The median as a share of the baseline's; at least +50 ms.
    #[serde(default)]
    pub p50: Option<Share>,
    /// The 90th percentile as a share of the baseline's; at least +50 ms.
    #[serde(default)]
    pub p90: Option<Share>,
    /// The 99th percentile as a share of the baseline's; at least +50 ms.
    #[serde(default)]
    pub p99: Option<Share>,
    /// By when, from the fault's end.
    pub within: Time,
    /// For how long it must hold; default 5s.
    #[serde(default)]
    pub hold: Option<Time>,
}
