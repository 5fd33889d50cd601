//! `retries`: attempts / distinct units of work that entered the proxy.
//!
//! A unit is a key (`correlate:` header), else a trace. Attempts of one key within the caller's
//! deadline are one request; later ones are re-drives, which have a pace of their own and are told
//! apart, and so are those of a caller that was killed or paused in between. A clock alone cannot
//! tell a re-drive from a retry that comes after the deadline: with `redrives-after` the pause before
//! it does, and then a retry after the deadline is a violation.
//!
//! Only the limits that are named apply; with `attempts-at-most`, an answer of 4xx and a POST
//! without a key of its own are final as well. What is said about pauses is in [`pace`].

mod pace;

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence::{Call, CallEnd};
use crate::plan::property::Retries;

use super::Status;
use super::case::{Case, Gap};
use super::context::{Context, Span, window_name};
use super::demand::route;
use super::text;

/// Requests below which a ratio says nothing.
const REQUESTS_MIN: usize = 20;
/// The share of requests that may have no name.
const NAMELESS_MAX: f64 = 0.01;
const SECOND_NS: u64 = 1_000_000_000;

/// Attempts of one unit of work that are one request.
struct Unit<'a> {
    name: &'a str,
    attempts: Vec<&'a Call>,
}

pub(crate) fn check(context: &Context<'_>, property: &Retries) -> Case {
    let mut case = context.case_in(&property.window, "requests");
    case.blame(property.link.to_string());
    case.missing_all(context.call_gaps(&property.link));
    let spans = context.spans(&property.window);
    let calls: Vec<&Call> = spans
        .iter()
        .flat_map(|span| context.calls_in(&property.link, *span))
        .copied()
        .collect();
    let units = units(context, &calls, property, |call| {
        call.key.as_deref().or(call.trace.as_deref())
    });
    case.n = units.len() as u64;
    let attempts: usize = units.iter().map(|unit| unit.attempts.len()).sum();
    if units.len() < REQUESTS_MIN {
        case.blocked(Gap::new(
            format!(
                "only {} with a key entered {} {}, it takes {REQUESTS_MIN}",
                text::count(case.n, "request"),
                property.link,
                window_name(&property.window)
            ),
            "declare `correlate:` on the link, raise `arrivals:`, or lengthen the window",
        ));
        return case;
    }
    if !calls.iter().any(|call| failed(call)) {
        case.missing(Gap::new(
            format!(
                "no request on {} failed, so there was nothing to retry",
                property.link
            ),
            "put a fault on this link",
        ));
    }
    let nameless = (calls.len() - attempts) as u64;
    if nameless as f64 > NAMELESS_MAX * calls.len() as f64 {
        case.missing(Gap::new(
            format!(
                "{nameless} of {} on {} carry neither key nor trace, so nobody knows whose \
                 attempts they are",
                text::count(calls.len() as u64, "request"),
                property.link
            ),
            "let the caller send the header of `correlate:` with every attempt",
        ));
    }
    let ratio = attempts as f64 / units.len() as f64;
    case.value = Some(format!("{ratio:.2}"));
    case.measured = format!(
        "{ratio:.2} attempts per request ({attempts} of {}) {}{}",
        units.len(),
        window_name(&property.window),
        context.weaker_witness(&property.link)
    );
    judge_ratio(&mut case, property, ratio);
    judge_peak(&mut case, property, &units);
    judge_attempts(&mut case, property, &units);
    if property.attempts_at_most.is_some() {
        judge_keyless(context, &mut case, property, &calls);
    }
    pace::judge(&mut case, property, &units);
    case
}

fn failed(call: &Call) -> bool {
    call.end != CallEnd::Answered || call.status.is_some_and(|status| status >= 500)
}

/// Groups calls into units: those of one name, cut where a re-drive begins.
fn units<'a>(
    context: &Context<'_>,
    calls: &[&'a Call],
    property: &Retries,
    name: impl Fn(&'a Call) -> Option<&'a str>,
) -> Vec<Unit<'a>> {
    let mut by_name: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        if let Some(name) = name(call) {
            by_name.entry(name).or_default().push(call);
        }
    }
    let mut units: Vec<Unit<'_>> = Vec::new();
    for (name, mut attempts) in by_name {
        attempts.sort_by_key(|call| call.at_ns);
        let mut rest = attempts.as_slice();
        while let Some(first) = rest.first() {
            let begins = |at: &usize| is_redrive(context, property, first, rest[at - 1], rest[*at]);
            let end = (1..rest.len()).find(begins).unwrap_or(rest.len());
            let (attempts, later) = rest.split_at(end);
            let attempts = attempts.to_vec();
            units.push(Unit { name, attempts });
            rest = later;
        }
    }
    units
}

/// Whether an attempt is a request of its own and not one more try of those before it, the first
/// and the last of which are given.
fn is_redrive(
    context: &Context<'_>,
    property: &Retries,
    first: &Call,
    last: &Call,
    next: &Call,
) -> bool {
    let over = last.ended_ns.unwrap_or(last.at_ns);
    // Nobody goes on with a request of a process that was killed in between.
    if context.caller_away(&property.link, Span::new(over, next.at_ns)) {
        return true;
    }
    match property.redrives_after {
        Some(pause) => next.at_ns.saturating_sub(over) >= pause.as_nanos() as u64,
        None => next.at_ns >= first.at_ns + property.deadline.as_nanos() as u64,
    }
}

fn judge_ratio(case: &mut Case, property: &Retries, ratio: f64) {
    let Some(limit) = property.amplification_at_most else {
        return;
    };
    case.limit = Some(format!("{limit:.2}"));
    case.margin = Some(format!("{:.2}", limit - ratio));
    if ratio > limit {
        let seen = std::mem::take(&mut case.measured);
        case.violated(format!("{seen} on {}, limit {limit:.2}", property.link));
        case.measured = seen;
    }
}

fn judge_peak(case: &mut Case, property: &Retries, units: &[Unit<'_>]) {
    let Some(limit) = property.peak_at_most else {
        return;
    };
    let mut seconds: BTreeMap<u64, (u64, BTreeSet<usize>)> = BTreeMap::new();
    for (index, unit) in units.iter().enumerate() {
        for call in &unit.attempts {
            let second = seconds.entry(call.at_ns / SECOND_NS).or_default();
            second.0 += 1;
            second.1.insert(index);
        }
    }
    let busy = seconds.iter().filter(|(_, (n, _))| *n >= 10);
    let peaks = busy.map(|(at, (n, units))| (*n as f64 / units.len() as f64, *at));
    let peak = peaks.max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((peak, at)) = peak.filter(|(peak, _)| *peak > limit) {
        let origin = case.window.as_ref().map_or(0, |window| window.from_ns);
        case.violated(format!(
            "{peak:.2} attempts per request on {} in the second from {}, limit {limit:.2}",
            property.link,
            text::after(at * SECOND_NS, origin)
        ));
    }
}

fn judge_attempts(case: &mut Case, property: &Retries, units: &[Unit<'_>]) {
    let Some(limit) = property.attempts_at_most else {
        return;
    };
    let over: Vec<&Unit<'_>> = units
        .iter()
        .filter(|unit| unit.attempts.len() > limit as usize)
        .collect();
    if let Some(most) = over.iter().max_by_key(|unit| unit.attempts.len()) {
        case.violated(format!(
            "{} on {} took more than {limit} attempts, one took {}",
            text::count(over.len() as u64, "request"),
            property.link,
            most.attempts.len()
        ));
    }
    for unit in &over {
        let text = format!("{} attempts", unit.attempts.len());
        case.find(Status::Fail, Some(unit.attempts[0].at_ns), unit.name, text);
    }
    let final_answer = |call: &Call| {
        matches!(call.status, Some(400..=499)) && !matches!(call.status, Some(408 | 425 | 429))
    };
    let repeated = |unit: &&Unit<'_>| {
        let mut before = unit.attempts.iter().rev().skip(1);
        before.any(|call| final_answer(call))
    };
    let after_4xx = units.iter().filter(repeated).count() as u64;
    if after_4xx > 0 {
        case.violated(format!(
            "{} on {} tried again after an answer of 4xx",
            text::count(after_4xx, "request"),
            property.link
        ));
    }
}

/// A POST that is sent again within one trace and deadline carries the key that it had.
fn judge_keyless(context: &Context<'_>, case: &mut Case, property: &Retries, calls: &[&Call]) {
    let posts: Vec<&Call> = calls
        .iter()
        .filter(|call| call.method == "POST")
        .copied()
        .collect();
    let mut bad = 0;
    for unit in units(context, &posts, property, |call| call.trace.as_deref()) {
        let mut by_route: BTreeMap<String, (u64, BTreeSet<Option<&str>>)> = BTreeMap::new();
        for call in &unit.attempts {
            let seen = by_route.entry(route(call)).or_default();
            seen.0 += 1;
            seen.1.insert(call.key.as_deref());
        }
        let again = |seen: &&(u64, BTreeSet<Option<&str>>)| {
            seen.0 > 1 && (seen.1.contains(&None) || seen.1.len() > 1)
        };
        if by_route.values().any(|seen| again(&seen)) {
            let at = Some(unit.attempts[0].at_ns);
            case.find(Status::Fail, at, unit.name, "sent again without its key");
            bad += 1;
        }
    }
    if bad > 0 {
        case.violated(format!(
            "{} on {} sent a POST again without the key of the first",
            text::count(bad, "trace"),
            property.link
        ));
    }
}
