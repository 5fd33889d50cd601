//! Was it good? A pure function from a plan and its evidence to verdicts.
//!
//! `judge` never sees a running system, so a stored run is judged again by the same code. A
//! checker that panics is `Inconclusive`, never a pass.

use serde::{Deserialize, Serialize};

use crate::evidence::StopReason;
use crate::plan::{PropertyName, SourceRef};

/// How a property came out. The order is the order of composition: the worst wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It held, with proof that it was put to the test.
    Pass,
    /// The run does not prove it either way.
    Inconclusive,
    /// It was violated.
    Fail,
}

/// What was found about one property.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// The property.
    pub property: PropertyName,
    /// Its kind: `breaker`.
    pub kind: String,
    /// How it came out.
    pub status: Status,
    /// One sentence: value, limit, window, n, and why. No trailing dot.
    pub why: String,
    /// The measured value, with unit: "6.4%", "2.31s", "3 events".
    pub value: Option<String>,
    /// The limit, with unit.
    pub limit: Option<String>,
    /// How far the value is from the limit, with unit; a `-` in front when it is beyond.
    pub margin: Option<String>,
    /// The window it was judged in, ns on the run clock.
    pub window: Option<JudgedWindow>,
    /// How many operations, calls, sagas or events it rests on.
    pub n: u64,
    /// What `n` counts: `operations`.
    pub n_of: String,
    /// The links or services that are to blame: `payments -> psp`. Empty on a pass.
    pub blames: Vec<String>,
    /// One edit or command that would settle an inconclusive verdict, or help with a failure.
    pub help: Option<String>,
    /// Where the user's file declares it.
    pub source: SourceRef,
    /// What it rests on, item by item: at most [`FINDINGS_MAX`], the rest counted.
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub findings_more: u64,
}

/// Most findings that a verdict lists.
pub const FINDINGS_MAX: usize = 50;

/// The window of a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JudgedWindow {
    /// `during psp-silent`.
    pub name: String,
    /// ns on the run clock.
    pub from_ns: u64,
    /// ns on the run clock.
    pub to_ns: u64,
}

/// One piece of what a verdict rests on: an order, a saga, a transition, a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// How this one came out by itself.
    pub status: Status,
    /// When, if it has an instant; ns on the run clock.
    pub at_ns: Option<u64>,
    /// What it is about: an order id, a link, an event id.
    pub subject: String,
    /// What was seen, in a phrase.
    pub text: String,
}

/// All verdicts of a run: what `outcome.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdicts {
    /// How the run ended.
    pub ended: StopReason,
    /// Why it ended, when it did not come to its end.
    pub ended_why: Option<String>,
    /// The verdicts, in the order of the plan.
    pub verdicts: Vec<Verdict>,
}

impl Verdicts {
    /// The worst status; `Inconclusive` when the run did not come to its end or judged nothing.
    pub fn status(&self) -> Status {
        let floor = if self.ended == StopReason::Finished && !self.verdicts.is_empty() {
            Status::Pass
        } else {
            Status::Inconclusive
        };
        self.verdicts
            .iter()
            .map(|verdict| verdict.status)
            .fold(floor, Status::max)
    }
}
