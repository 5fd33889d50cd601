//! What a breaker claims about itself, held against the traffic.
//!
//! Per incarnation, claimed transitions must be a word of CLOSED → OPEN → HALF_OPEN → {CLOSED,
//! OPEN}; while it claims OPEN nothing may pass; it opens only on failures of its own callee. A gap
//! in a ring's sequence is lost evidence: nothing is concluded across it. Claims whose times come from
//! a wall clock are given as much more room as that clock may be off; one so close to the fault that
//! it may lie on either side of its start proves nothing.

use std::collections::BTreeMap;

use crate::evidence::{Call, CallEnd, Event, Transition};
use crate::plan::SourceName;
use crate::plan::property::Breaker;

use super::super::Status;
use super::super::case::{Case, Gap};
use super::super::context::{Context, FaultSeen, Span};
use super::super::demand::Demand;
use super::super::text;

/// Requests this close to a claimed change belong to either side, ns.
const EDGE_NS: u64 = 100_000_000;
/// How far back failures that explain an opening are looked for, ns.
const FAILURES_NS: u64 = 10_000_000_000;

/// Claimed transitions of the property's link, by incarnation, in sequence, each once.
fn claimed<'a>(
    context: &'a Context<'_>,
    property: &Breaker,
) -> BTreeMap<&'a str, BTreeMap<u64, &'a Transition>> {
    let mut claims: BTreeMap<&str, BTreeMap<u64, &Transition>> = BTreeMap::new();
    for it in &context.evidence.transitions {
        if property.transitions.contains(&it.source) && it.link == property.link {
            let ring = claims.entry(it.incarnation.as_str()).or_default();
            ring.insert(it.seq, it);
        }
    }
    claims
}

/// The most that a claim's time may be off the run clock, ns, and whose that is.
fn clock_error<'a>(context: &Context<'_>, property: &'a Breaker) -> (u64, Option<&'a SourceName>) {
    let sources = property.transitions.iter();
    let worst = sources.max_by_key(|source| context.clock_error(source));
    (worst.map_or(0, |source| context.clock_error(source)), worst)
}

/// Its sources, when there are any, were read without loss.
fn expect_sources(context: &Context<'_>, case: &mut Case, property: &Breaker) {
    let sources = property.transitions.iter();
    case.missing_all(sources.filter_map(|source| context.source_gap(source)));
}

/// Where a caller speaks about its breakers and traffic shows that this one moved, silence about
/// it is evidence that is missing.
pub(super) fn expect_some(context: &Context<'_>, case: &mut Case, property: &Breaker) {
    let Some(source) = property.transitions.first() else {
        return;
    };
    if claimed(context, property).is_empty() {
        case.missing(Gap::new(
            format!(
                "the traffic shows that the breaker of {} moved, and `{source}` says nothing of it",
                property.link
            ),
            format!(
                "make `select:` of `evidence: {source}` yield `link: {}`",
                property.link
            ),
        ));
    }
}

/// Whether the breaker was open at some time of a stretch by its own account.
pub(super) fn open_in(context: &Context<'_>, property: &Breaker, within: Span) -> bool {
    claimed(context, property).values().any(|ring| {
        let mut until = ring.values().skip(1).map(|next| next.at_ns);
        ring.values().any(|it| {
            let open = Span::new(it.at_ns, until.next().unwrap_or(u64::MAX));
            it.to == "OPEN" && open.overlaps(within)
        })
    })
}

/// No claimed opening in the baseline, and none later without failures of the callee.
pub(super) fn not_spurious(
    context: &Context<'_>,
    case: &mut Case,
    property: &Breaker,
    seen: &FaultSeen<'_>,
) {
    expect_sources(context, case, property);
    let claims = claimed(context, property);
    let (error, source) = clock_error(context, property);
    let baseline = context.baseline;
    let surely_before = Span::new(
        baseline.from + error,
        baseline.to.saturating_sub(error).max(baseline.from + error),
    );
    for it in claims.values().flat_map(BTreeMap::values) {
        case.find(
            Status::Pass,
            Some(it.at_ns),
            it.link.to_string(),
            format!("claims {} -> {}", it.from, it.to),
        );
        let opening = it.from == "CLOSED" && it.to == "OPEN";
        if !opening {
            continue;
        }
        if let Some(source) = source.filter(|_| it.at_ns.abs_diff(baseline.to) < error) {
            let what = format!("the breaker of {} opened as the fault began", property.link);
            case.missing(context.clock_gap(source, &what));
        } else if surely_before.holds(it.at_ns) {
            case.violated(format!(
                "the breaker of {} opened in the baseline, without any fault, at {}",
                property.link,
                text::after(it.at_ns, context.t0)
            ));
        } else if seen.on.holds(it.at_ns) && unexplained(context, property, it.at_ns, error) {
            case.violated(format!(
                "the breaker of {} opened at {} although its callee hardly failed",
                property.link,
                text::after(it.at_ns, seen.on.from)
            ));
        }
    }
}

/// Fewer than half the failures that the settings ask for, in all the time before.
fn unexplained(context: &Context<'_>, property: &Breaker, at: u64, error: u64) -> bool {
    let before = Span::new(at.saturating_sub(FAILURES_NS), at + EDGE_NS + error);
    let failed = |call: &&&Call| {
        call.end != CallEnd::Answered
            || call.status.is_some_and(|status| status >= 500)
            || call
                .first_byte_ns
                .is_none_or(|answered| answered + error > at)
    };
    let failures = context
        .calls_in(&property.link, before)
        .iter()
        .filter(failed)
        .count();
    let asked = property.breaker.threshold * f64::from(property.breaker.min_calls);
    (failures as f64) < asked / 2.0
}

/// Claimed transitions are in order, and what is claimed is what the traffic shows.
pub(super) fn agree(
    context: &Context<'_>,
    case: &mut Case,
    property: &Breaker,
    demand: &Demand,
    within: Span,
) {
    let (error, _) = clock_error(context, property);
    let claims = claimed(context, property);
    for (incarnation, ring) in &claims {
        let mut previous: Option<&Transition> = None;
        for it in ring.values() {
            let next_to = previous.filter(|before| before.seq + 1 == it.seq);
            if let Some(before) = next_to
                && within.holds(it.at_ns)
            {
                in_order(case, property, before, it, incarnation);
                if before.to == "OPEN" {
                    let open = Span::new(before.at_ns, it.at_ns);
                    nothing_passes(case, property, demand, open, error);
                }
            }
            previous = Some(it);
        }
        // What a process claimed after it was last read died with it.
        let last = previous.filter(|it| it.to == "OPEN");
        if let Some(last) = last.filter(|it| lived_on(context, property, &claims, it, within.to)) {
            let open = Span::new(last.at_ns.max(within.from), within.to);
            nothing_passes(case, property, demand, open, error);
        }
    }
}

/// Whether the process that made a claim was still there at an instant.
fn lived_on(
    context: &Context<'_>,
    property: &Breaker,
    claims: &BTreeMap<&str, BTreeMap<u64, &Transition>>,
    claim: &Transition,
    until: u64,
) -> bool {
    let since = Span::new(claim.at_ns, until);
    let exited = context.evidence.events.iter().any(|it| {
        since.holds(it.at_ns)
            && matches!(&it.event, Event::ServiceExited { service, .. }
                if service.as_str() == property.link.from)
    });
    let mut others = claims.values().flat_map(BTreeMap::values);
    let followed = others.any(|it| it.incarnation != claim.incarnation && since.holds(it.at_ns));
    !exited && !followed
}

fn in_order(
    case: &mut Case,
    property: &Breaker,
    before: &Transition,
    it: &Transition,
    incarnation: &str,
) {
    let legal = matches!(
        (it.from.as_str(), it.to.as_str()),
        ("CLOSED", "OPEN") | ("OPEN", "HALF_OPEN") | ("HALF_OPEN", "CLOSED" | "OPEN")
    );
    if !legal || before.to != it.from {
        case.violated(format!(
            "the breaker of {} claims {} -> {} after {} -> {} (incarnation {incarnation})",
            property.link, it.from, it.to, before.from, before.to
        ));
    }
}

/// While a single breaker claims OPEN, its link is silent.
fn nothing_passes(case: &mut Case, property: &Breaker, demand: &Demand, open: Span, error: u64) {
    let edge = EDGE_NS + error;
    let inner = Span::new(
        open.from + edge,
        open.to.saturating_sub(edge).max(open.from + edge),
    );
    let passed = demand.entered(inner);
    let allowed = (demand.wanted(inner) * 0.05).max(1.0);
    if property.breaker.instances <= 1 && passed as f64 > allowed {
        case.violated(format!(
            "the breaker of {} claims OPEN for {}, but {passed} requests passed meanwhile",
            property.link,
            text::span(open.len())
        ));
    }
}

/// After the fault it may fall back from closed to open once.
pub(super) fn flaps(context: &Context<'_>, case: &mut Case, property: &Breaker, end: u64) {
    expect_sources(context, case, property);
    let claims = claimed(context, property);
    let all = claims.values().flat_map(BTreeMap::values);
    let (error, _) = clock_error(context, property);
    let again =
        |it: &&&Transition| it.at_ns >= end + error && it.from == "CLOSED" && it.to == "OPEN";
    let flaps = all.filter(again).count();
    if flaps > 1 {
        case.violated(format!(
            "the breaker of {} opened {flaps} times again after the fault's end",
            property.link
        ));
    }
}
