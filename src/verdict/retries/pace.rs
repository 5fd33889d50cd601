//! When a request is tried again: jitter, back-off, and nothing after the deadline.
//!
//! A *gap* is the pause of one request between the end of an attempt that failed and the start of the
//! next. What follows an answer is no retry but another request of the same unit (a poll, the next
//! step of a trace), and what overlaps with the attempt before it does not wait for its end: neither
//! has a gap.
//!
//! - *jitter*: the first gaps of all requests vary: σ / mean > 0.1. And no storm in step: where at
//!   least 20 requests failed within the same 100 ms (a cut, the death of a callee), they must not
//!   come back together. From that instant on, over their back-off period P, retries are counted in
//!   bins of 100 ms; none may hold more than 3 × the mean and what chance adds to that (3 σ of a
//!   count). P is what 95 % of their gaps do not exceed, or twice the median if that is less, so that
//!   a few late re-drives do not stretch it. In a period of up to three bins no bin can hold more than
//!   3 × their mean: it is too short for this resolution. Where nothing failed together, there was
//!   nothing to be in step with.
//! - *back-off*: gaps never shrink from one to the next, up to the cap. A jittered back-off shrinks
//!   in single requests, and at its cap in half of them: so for each k, the k-th gap and the one
//!   after it are compared within the same requests, and it is a violation when more of them shrink
//!   than chance makes of one half (3 σ). A gap after 429 or 503 counts for nothing: those answers
//!   may have said when to come back. A constant pause passes: its cap is its first gap.
//! - *none after the deadline*, where `redrives-after` tells re-drives apart: no attempt of a request
//!   starts later than the deadline after its first one.

use std::collections::BTreeMap;

use crate::evidence::Call;
use crate::plan::property::Retries;

use super::super::Status;
use super::super::case::{Case, Gap};
use super::super::text;
use super::{REQUESTS_MIN, Unit, failed};

/// The resolution at which retries are in step.
const BIN_NS: u64 = 100_000_000;
/// What an attempt may take from the caller's decision to the proxy.
const EDGE_NS: u64 = 100_000_000;
/// By how much the end of an attempt may be seen later than the start of the next that waited for it.
const ABREAST_NS: u64 = 10_000_000;
/// A gap is shorter than another one when it is by more than this, and by a tenth.
const SHORTER_NS: u64 = 10_000_000;

pub(super) fn judge(case: &mut Case, property: &Retries, units: &[Unit<'_>]) {
    if property.jitter {
        judge_variation(case, property, units);
        judge_step(case, property, units);
    }
    if property.backoff {
        judge_backoff(case, property, units);
    }
    if property.redrives_after.is_some() {
        judge_late(case, property, units);
    }
}

/// The pause before a retry; none where there is no retry, or the end of the first is not known.
fn gap(before: &Call, next: &Call) -> Option<u64> {
    let over = before.ended_ns.filter(|_| is_retried(before))?;
    (next.at_ns + ABREAST_NS >= over).then(|| next.at_ns.saturating_sub(over))
}

/// Whether the next attempt may be due to how this one ended.
fn is_retried(call: &Call) -> bool {
    failed(call) || matches!(call.status, Some(408 | 425 | 429))
}

/// Gaps between attempts differ: their coefficient of variation is above 0.1.
fn judge_variation(case: &mut Case, property: &Retries, units: &[Unit<'_>]) {
    let pairs = units
        .iter()
        .flat_map(|unit| unit.attempts.windows(2).take(1));
    let gaps: Vec<f64> = pairs
        .filter_map(|pair| gap(pair[0], pair[1]))
        .map(|gap| gap as f64)
        .collect();
    if gaps.len() < REQUESTS_MIN {
        case.missing(Gap::new(
            format!(
                "only {} to judge jitter by",
                text::count(gaps.len() as u64, "retry")
            ),
            "make the fault longer, so that more requests are retried",
        ));
        return;
    }
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    let variation = variance.sqrt() / mean.max(1.0);
    if variation <= 0.1 {
        case.violated(format!(
            "retries on {} have no jitter: {} gaps of {}, varying by {}",
            property.link,
            gaps.len(),
            text::span(mean as u64),
            text::share(variation)
        ));
    }
}

/// The first retry of a request: when the attempt before it was over, and when it began.
type First = (u64, u64);

/// Requests that failed together do not come back together.
fn judge_step(case: &mut Case, property: &Retries, units: &[Unit<'_>]) {
    let retried = units.iter().filter_map(|unit| match unit.attempts[..] {
        [first, second, ..] => {
            let again = second.at_ns;
            Some((again - gap(first, second)?, again))
        }
        _ => None,
    });
    let mut firsts: Vec<First> = retried.collect();
    firsts.sort_unstable();
    let pairs = units.iter().flat_map(|unit| unit.attempts.windows(2));
    let retries = pairs.filter(|pair| is_retried(pair[0]));
    let mut again: Vec<u64> = retries.map(|pair| pair[1].at_ns).collect();
    again.sort_unstable();
    let storms = together(&firsts).filter_map(|bunch| storm(bunch, &again));
    let by_excess = |a: &Storm, b: &Storm| {
        let earlier = b.failed_ns.cmp(&a.failed_ns);
        a.excess().total_cmp(&b.excess()).then(earlier)
    };
    let Some(worst) = storms.max_by(by_excess) else {
        return;
    };
    let origin = case.window.as_ref().map_or(0, |window| window.from_ns);
    case.violated(format!(
        "retries on {} come in step: {} requests failed together at {}, and {} retries came within \
         the same 100 ms {} later, {:.0} are usual",
        property.link,
        worst.failed,
        text::after(worst.failed_ns, origin),
        worst.peak,
        text::span(worst.peak_ns - worst.failed_ns),
        worst.mean
    ));
    let text = format!("{} retries in 100 ms", worst.peak);
    let at = Some(worst.peak_ns);
    case.find(Status::Fail, at, property.link.to_string(), text);
}

/// The bunches of requests whose first attempts failed within the same bin.
fn together(firsts: &[First]) -> impl Iterator<Item = &[First]> {
    let mut from = 0;
    std::iter::from_fn(move || {
        while let Some((start, _)) = firsts.get(from) {
            let to = firsts.partition_point(|(over, _)| *over < start + BIN_NS);
            let bunch = &firsts[from..to];
            if bunch.len() >= REQUESTS_MIN {
                from = to;
                return Some(bunch);
            }
            from += 1;
        }
        None
    })
}

/// Retries that came in step after a common failure.
struct Storm {
    failed: usize,
    failed_ns: u64,
    peak: usize,
    peak_ns: u64,
    mean: f64,
}

impl Storm {
    fn excess(&self) -> f64 {
        self.peak as f64 / self.mean
    }
}

fn storm(bunch: &[First], again: &[u64]) -> Option<Storm> {
    let failed_ns = bunch.first()?.0;
    let mut gaps: Vec<u64> = bunch.iter().map(|(over, again)| again - over).collect();
    gaps.sort_unstable();
    let of = |q| super::super::stats::quantile(&gaps, q);
    let period = of(0.95)?.min(of(0.5)? * 2);
    // One bin more: the failures themselves are as far apart.
    let bins = period.div_ceil(BIN_NS) + 1;
    let count = |from: u64, to: u64| {
        again.partition_point(|at| *at < to) - again.partition_point(|at| *at < from)
    };
    let mean = count(failed_ns, failed_ns + bins * BIN_NS) as f64 / bins as f64;
    let bin = |n: u64| failed_ns + n * BIN_NS;
    let counted = (0..bins).map(|n| (count(bin(n), bin(n + 1)), bin(n)));
    let (peak, peak_ns) = counted.max_by_key(|(n, at)| (*n, u64::MAX - at))?;
    let bound = 3.0 * mean + 3.0 * (3.0 * mean).sqrt();
    (peak as f64 > bound).then_some(Storm {
        failed: bunch.len(),
        failed_ns,
        peak,
        peak_ns,
        mean,
    })
}

/// Two gaps of one request, one after the other.
type Two = (u64, u64);

/// From no gap to the next do most requests come back sooner.
fn judge_backoff(case: &mut Case, property: &Retries, units: &[Unit<'_>]) {
    let mut by_attempt: BTreeMap<usize, Vec<Two>> = BTreeMap::new();
    for unit in units {
        for (k, three) in unit.attempts.windows(3).enumerate() {
            let gaps = gap(three[0], three[1]).zip(gap(three[1], three[2]));
            if let Some(gaps) = gaps.filter(|_| !may_invite(three[0])) {
                by_attempt.entry(k + 1).or_default().push(gaps);
            }
        }
    }
    let most = by_attempt.values().map(Vec::len).max().unwrap_or(0);
    if most < REQUESTS_MIN {
        case.missing(Gap::new(
            format!(
                "only {} came back twice without being told when, it takes {REQUESTS_MIN} to judge \
                 back-off by",
                text::count(most as u64, "request")
            ),
            "make the fault longer, so that more requests are tried three times",
        ));
    }
    for (k, gaps) in by_attempt {
        let shorter = gaps.iter().filter(|gaps| is_shorter(gaps)).count();
        let n = gaps.len() as f64;
        if gaps.len() < REQUESTS_MIN || shorter as f64 <= n / 2.0 + 1.5 * n.sqrt() {
            continue;
        }
        case.violated(format!(
            "retries on {} do not back off: after attempt {} {shorter} of {} requests waited \
             shorter than after attempt {k} (median {} after {})",
            property.link,
            k + 1,
            gaps.len(),
            text::span(median(gaps.iter().map(|it| it.1))),
            text::span(median(gaps.iter().map(|it| it.0))),
        ));
    }
}

/// An answer that may carry `Retry-After`.
fn may_invite(call: &Call) -> bool {
    matches!(call.status, Some(429 | 503))
}

fn is_shorter((before, next): &Two) -> bool {
    next + before / 10 + SHORTER_NS < *before
}

fn median(gaps: impl Iterator<Item = u64>) -> u64 {
    let mut gaps: Vec<u64> = gaps.collect();
    gaps.sort_unstable();
    super::super::stats::quantile(&gaps, 0.5).unwrap_or(0)
}

/// No attempt of a request starts after its caller's deadline.
fn judge_late(case: &mut Case, property: &Retries, units: &[Unit<'_>]) {
    let deadline = property.deadline.as_nanos() as u64;
    let mut late = 0;
    for unit in units {
        let bound = unit.attempts[0].at_ns + deadline + EDGE_NS;
        let retries = unit.attempts.windows(2).filter(|it| is_retried(it[0]));
        let mut retries = retries.map(|it| it[1]);
        if let Some(call) = retries.find(|call| call.at_ns > bound) {
            let after = text::span(call.at_ns - unit.attempts[0].at_ns);
            let text = format!("tried again {after} after its first attempt");
            case.find(Status::Fail, Some(call.at_ns), unit.name, text);
            late += 1;
        }
    }
    if late > 0 {
        case.violated(format!(
            "{} on {} tried again later than the caller's deadline of {}",
            text::count(late, "request"),
            property.link,
            text::span(deadline)
        ));
    }
}
