//! Was it good? A pure function from a plan and its evidence to verdicts.
//!
//! `judge` never sees a running system, so a stored run is judged again by the same code. A
//! checker that panics is `Inconclusive`, never a pass.
//!
//! A pass needs proof that the property was put to the test; a definite violation fails whatever
//! else is missing. One file per kind of property says what it means exactly; [`case`] holds the
//! algebra, [`context`] the windows and preconditions, [`bite`] and [`demand`] what a fault did and
//! what should have arrived on a link, [`witness`] who tells what did.

mod bite;
mod breaker;
mod case;
mod catches_up;
mod clock;
mod conserved;
mod context;
mod demand;
mod errors;
mod events;
mod goodput;
mod hangs;
mod latency;
mod recovers;
mod retries;
mod sagas;
mod stats;
mod stays_up;
#[cfg(test)]
mod testing;
mod text;
mod witness;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use crate::evidence::{Evidence, StopReason};
use crate::plan::{Plan, Property, PropertyName, PropertyPlan, SourceRef};

use case::{Case, Gap};
use context::Context;

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

/// Judges every property of a plan by the evidence of its run.
///
/// Never fails: what cannot be judged is `Inconclusive` and says why.
pub fn judge(plan: &Plan, evidence: &Evidence) -> Verdicts {
    let (ended, ended_why) = context::ended(evidence);
    let context = catch_unwind(AssertUnwindSafe(|| Context::new(plan, evidence)));
    let judged = |property: &PropertyPlan| match &context {
        Ok(context) => judge_one(context, property, ended, ended_why.as_deref()),
        Err(panic) => crashed(&panic_text(panic.as_ref())).close(property),
    };
    Verdicts {
        ended,
        verdicts: plan.properties.iter().map(judged).collect(),
        ended_why: ended_why.clone(),
    }
}

fn judge_one(
    context: &Context<'_>,
    property: &PropertyPlan,
    ended: StopReason,
    why: Option<&str>,
) -> Verdict {
    let mut case = guarded(|| check(context, &property.property));
    // A service that ended by itself is a failure even of a run that could not go on without it.
    let own_failure = ended == StopReason::Failed && matches!(property.property, Property::StaysUp);
    if ended != StopReason::Finished {
        let gap = Gap::new(
            match why {
                Some(why) => format!("the run did not come to its end: {why}"),
                None => "the run did not come to its end".into(),
            },
            "run it again and let it finish",
        );
        if own_failure {
            case.missing(gap);
        } else {
            case.blocked_first(gap);
        }
    }
    case.close(property)
}

/// A checker that panics is inconclusive, never a pass.
fn guarded(check: impl FnOnce() -> Case) -> Case {
    let judged = catch_unwind(AssertUnwindSafe(check));
    judged.unwrap_or_else(|panic| crashed(&panic_text(panic.as_ref())))
}

fn check(context: &Context<'_>, property: &Property) -> Case {
    match property {
        Property::Errors(it) => errors::check(context, it),
        Property::Latency(it) => latency::check(context, it),
        Property::Goodput(it) => goodput::check(context, it),
        Property::Hangs(it) => hangs::check(context, it),
        Property::Breaker(it) => breaker::check(context, it),
        Property::Retries(it) => retries::check(context, it),
        Property::Sagas(it) => sagas::check(context, it),
        Property::Events(it) => events::check(context, it),
        Property::Conserved(it) => conserved::check(context, it),
        Property::CatchesUp(it) => catches_up::check(context, it),
        Property::Recovers(it) => recovers::check(context, it),
        Property::StaysUp => stays_up::check(context),
    }
}

/// What a property of operations failed under: the links and services of its window's faults.
fn blame_faults(context: &Context<'_>, case: &mut Case, window: &crate::plan::Window) {
    for fault in context.faults_of(window) {
        for target in fault.effect.targets() {
            case.blame(target);
        }
    }
}

fn crashed(why: &str) -> Case {
    let mut case = Case::default();
    case.blocked(Gap::new(
        format!("its checker crashed: {why}"),
        "keep the run folder and report a bug in `chaos`",
    ));
    case
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
