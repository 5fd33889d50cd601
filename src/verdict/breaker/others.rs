//! *not spurious*, beyond its own link: while a breaker is open, whoever does not need its callee is
//! served as ever.
//!
//! Calls on the caller's other links may vanish for good reasons: an order that is refused at its
//! first step never comes to its second, and a caller may well look at its breakers before it begins
//! anything. So nothing is said about journeys that ever touched the judged link, by their traces.
//! What the other journeys make the caller call is learnt in the baseline, and from the opening to
//! the fault's end at most ε of it, and what chance adds (3 σ of either count), may be missing.
//!
//! Left alone: a link with declared `calls:` (they do not tell journeys apart), one that a fault
//! touches, or at either end of which one does, one on which more than ε of all calls failed
//! meanwhile (its own breaker may be right to open), and one that was called less and less in the
//! baseline already (a cache that fills). Where calls on the judged link cannot be told apart by
//! traces, nothing is said at all.

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence::{Call, CallEnd};
use crate::plan::{FaultEffect, JourneyName, LinkName, LinkPlan};

use super::super::Status;
use super::super::case::Case;
use super::super::context::Span;
use super::super::text;
use super::{EPSILON, Judge};

impl Judge<'_> {
    /// Journeys that never touch the judged link go on while its breaker is open.
    pub(super) fn others_go_on(&self, case: &mut Case, opened: u64) {
        let learn = self.context.baseline;
        let half = learn.from + learn.len() / 2;
        let Some(strangers) = self.strangers(learn) else {
            return;
        };
        let open = Span::new(opened, self.seen.on.to);
        let guarded = &self.property.link;
        let links = self.context.plan.system.links.iter();
        let others = links.filter(|link| link.name.from == guarded.from && link.name != *guarded);
        for link in others.filter(|link| self.is_sound(link)) {
            let name = &link.name;
            let stranger = |call: &Call| {
                let trace = call.trace.as_deref();
                trace.is_some_and(|trace| strangers.contains(trace))
            };
            let early = self
                .context
                .demand_among(name, Span::new(learn.from, half), stranger);
            let faded = early.suppression(Span::new(half, learn.to));
            if faded.is_none_or(|faded| faded > EPSILON) {
                continue;
            }
            let demand = self.context.demand_among(name, learn, stranger);
            let (learnt, wanted) = (demand.wanted(learn), demand.wanted(open));
            let least = self.demand_min();
            if !demand.learnt || learnt < least || wanted < least {
                continue;
            }
            let noise = 3.0 / learnt.sqrt() + 3.0 / wanted.sqrt();
            let blocked = demand.suppression(open).unwrap_or(0.0);
            if blocked > EPSILON + noise {
                let entered = demand.attempts(open);
                case.violated(format!(
                    "while the breaker of {guarded} was open, {} of the calls on {name} was blocked \
                     too ({entered} of {wanted:.0} wanted), by journeys that never use {guarded}",
                    text::share(blocked)
                ));
                case.blame(name.to_string());
                let text = format!("{} blocked with {guarded}", text::share(blocked));
                case.find(Status::Fail, Some(opened), name.to_string(), text);
            }
        }
    }

    /// The traces of journeys that never touch the judged link; none where traces cannot tell.
    fn strangers(&self, learn: Span) -> Option<BTreeSet<&str>> {
        let operations = &self.context.evidence.operations;
        let journeys: BTreeMap<&str, &JourneyName> = operations
            .iter()
            .map(|it| (it.trace.as_str(), &it.journey))
            .collect();
        let journey = |call: &&Call| journeys.get(call.trace.as_deref()?).copied();
        let usual = self.context.calls_in(&self.property.link, learn);
        let unknown = usual.iter().filter(|call| journey(call).is_none()).count();
        if unknown as f64 > EPSILON * usual.len() as f64 {
            return None;
        }
        let calls = self.context.calls(&self.property.link);
        let touching: BTreeSet<&JourneyName> = calls.iter().filter_map(journey).collect();
        let strange = journeys.iter().filter(|(_, it)| !touching.contains(*it));
        Some(strange.map(|(trace, _)| *trace).collect())
    }

    /// Whether nothing but the judged breaker can keep calls off a link.
    fn is_sound(&self, link: &LinkPlan) -> bool {
        let failed = |call: &&&Call| {
            call.end != CallEnd::Answered || call.status.is_some_and(|status| status >= 500)
        };
        let calls = self.context.calls_in(&link.name, self.seen.on);
        let failures = calls.iter().filter(failed).count();
        link.calls.is_empty()
            && !self.is_faulted(link)
            && failures as f64 <= EPSILON * calls.len() as f64
            && self.context.call_gaps(&link.name).is_empty()
    }

    fn is_faulted(&self, link: &LinkPlan) -> bool {
        let ends = |service: &str| service == link.name.from || service == link.service.as_str();
        let touches = |name: &LinkName| *name == link.name;
        self.context.plan.faults.iter().any(|it| match &it.effect {
            FaultEffect::Link { links, .. } => links.iter().any(touches),
            FaultEffect::Process { services, .. } => services.iter().any(|it| ends(it.as_str())),
        })
    }
}
