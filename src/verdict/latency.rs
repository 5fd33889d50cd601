//! `latency`: percentiles from the intended start, exact, over done + accepted + unknown.
//!
//! A time-out (no answer) counts as above every limit. Refusals are apart: fast ones flatter. A
//! percentile q needs n(1 − q) ≥ 5; the maximum needs one operation.

use crate::evidence::Operation;
use crate::plan::load::OutcomeClass;
use crate::plan::property::{Latency, QuantileLimit};

use super::Status;
use super::case::{Case, Gap};
use super::context::{Context, window_name};
use super::stats::quantile;
use super::text;

/// Operations that must lie above a percentile for it to mean anything.
const ABOVE_MIN: f64 = 5.0;

pub(crate) fn check(context: &Context<'_>, property: &Latency) -> Case {
    let mut case = context.case_in(&property.window, "operations");
    let smallest = property
        .limits
        .iter()
        .map(|it| it.limit.as_nanos() as u64)
        .min();
    let counts = |it: &&Operation| match it.outcome {
        OutcomeClass::Done => true,
        OutcomeClass::Accepted | OutcomeClass::Unknown | OutcomeClass::Unsettled => {
            !property.of_done
        }
        OutcomeClass::Refused => false,
    };
    let operations = context.operations(&property.window, Some(&property.operation));
    let operations: Vec<&Operation> = operations.into_iter().filter(counts).collect();
    context.expect_generator(&mut case, smallest.unwrap_or(0), &operations);
    case.n = operations.len() as u64;
    let mut latencies: Vec<u64> = operations.iter().map(|it| judged_latency(it)).collect();
    latencies.sort_unstable();
    let mut told = Vec::new();
    for limit in &property.limits {
        told.push(judge_limit(&mut case, property, *limit, &latencies));
    }
    case.measured = format!(
        "{} {}, {}",
        told.join(", "),
        window_name(&property.window),
        text::count(case.n, "operation")
    );
    show_slowest(&mut case, property, &operations);
    if case.status() == Status::Fail {
        super::blame_faults(context, &mut case, &property.window);
    }
    case
}

/// An operation without an answer is above every limit.
fn judged_latency(it: &Operation) -> u64 {
    match it.outcome {
        OutcomeClass::Unknown if it.status.is_none() => u64::MAX,
        OutcomeClass::Unsettled => u64::MAX,
        _ => it.latency_ns(),
    }
}

fn judge_limit(
    case: &mut Case,
    property: &Latency,
    limit: QuantileLimit,
    sorted: &[u64],
) -> String {
    let name = quantile_name(limit.quantile);
    let n = sorted.len();
    let limit_ns = limit.limit.as_nanos() as u64;
    let n_min = if limit.quantile >= 1.0 {
        1.0
    } else {
        (ABOVE_MIN / (1.0 - limit.quantile)).round()
    };
    if (n as f64) < n_min {
        case.blocked(Gap::new(
            format!(
                "only {} {}, {name} needs {n_min}",
                text::count(n as u64, "operation"),
                window_name(&property.window)
            ),
            "raise `arrivals:`, lengthen the window, or ask for a lower percentile",
        ));
    }
    let Some(value) = quantile(sorted, limit.quantile) else {
        return format!("{name} of nothing");
    };
    let shown = match value {
        u64::MAX => "beyond the time-out".to_owned(),
        value => text::span(value),
    };
    let margin = i128::from(limit_ns) - i128::from(value);
    let told = format!("{name} {shown}, limit {}", text::span(limit_ns));
    // The tightest limit is the one shown; a broken one is tighter than any that held.
    if case.value.is_none() || value > limit_ns {
        case.value = Some(shown);
        case.limit = Some(text::span(limit_ns));
        case.margin = (value != u64::MAX).then(|| text::signed_span(margin));
    }
    if value > limit_ns {
        let above = sorted.iter().filter(|it| **it > limit_ns).count();
        let unanswered = sorted.iter().filter(|it| **it == u64::MAX).count();
        case.violated(format!(
            "{told} {}: {above} of {n} above it, {unanswered} of them unanswered",
            window_name(&property.window)
        ));
    }
    told
}

fn show_slowest(case: &mut Case, property: &Latency, operations: &[&Operation]) {
    let Some(limit) = property
        .limits
        .iter()
        .map(|it| it.limit.as_nanos() as u64)
        .max()
    else {
        return;
    };
    let mut slow: Vec<&&Operation> = operations
        .iter()
        .filter(|it| judged_latency(it) > limit)
        .collect();
    slow.sort_by_key(|it| (std::cmp::Reverse(judged_latency(it)), it.intended_ns));
    for it in slow {
        let status = it
            .status
            .map_or("no answer".into(), |status| status.to_string());
        let text = format!("{} after {}", status, text::span(it.latency_ns()));
        case.find(Status::Fail, Some(it.intended_ns), &it.key, text);
    }
}

/// `p99`, `p99.9`, `max`.
pub(crate) fn quantile_name(quantile: f64) -> String {
    if quantile >= 1.0 {
        return "max".into();
    }
    let percent = format!("{:.3}", quantile * 100.0);
    format!("p{}", percent.trim_end_matches('0').trim_end_matches('.'))
}
