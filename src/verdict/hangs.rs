//! `hangs`: no operation lasts longer than the limit, and in-flight does not grow through the
//! window.
//!
//! In-flight grows when the last quarter of the window holds, on average, more than twice what the
//! second quarter held, and at least ten more: a system that queues for ever shows that before any
//! single operation is too old.
//!
//! Where the generator fell behind its schedule, the waiting before the sending is not the
//! system's: an operation is then timed from its sending, and in-flight is not judged. So is a single
//! operation that was sent late while the generator kept up.

use crate::evidence::Operation;
use crate::plan::property::Hangs;

use super::Status;
use super::case::{Case, Gap};
use super::context::{Context, Span, lag_bound, send_lag, window_name};
use super::text;

/// Operations below which nothing is said.
const OPERATIONS_MIN: usize = 10;

pub(crate) fn check(context: &Context<'_>, property: &Hangs) -> Case {
    let mut case = context.case_in(&property.window, "operations");
    context.expect_account(&mut case);
    context.expect_no_drops(&mut case, false);
    let operations = context.operations(&property.window, property.operation.as_ref());
    case.n = operations.len() as u64;
    let window = window_name(&property.window);
    let limit = property.longer_than.as_nanos() as u64;
    let lag = context.lag_gap(limit, &operations);
    case.missing_all(lag.clone());
    let was_late = |it: &Operation| lag.is_some() || send_lag(it) > lag_bound(limit);
    let lasted = |it: &Operation| match was_late(it) {
        true => it.ended_ns.saturating_sub(it.sent_ns),
        false => it.latency_ns(),
    };
    if operations.len() < OPERATIONS_MIN {
        case.missing(Gap::new(
            format!(
                "only {} {window}, it takes {OPERATIONS_MIN}",
                text::count(case.n, "operation")
            ),
            "raise `arrivals:` or lengthen the window",
        ));
    }
    let longest = operations.iter().map(|it| lasted(it)).max().unwrap_or(0);
    case.value = Some(text::span(longest));
    case.limit = Some(text::span(limit));
    case.margin = Some(text::signed_span(i128::from(limit) - i128::from(longest)));
    case.measured = format!(
        "the longest of {} {window} took {}, limit {}",
        text::count(case.n, "operation"),
        text::span(longest),
        text::span(limit)
    );
    let hung: Vec<&&Operation> = operations.iter().filter(|it| lasted(it) > limit).collect();
    if let Some(first) = hung.first() {
        let origin = case.window.as_ref().map_or(0, |window| window.from_ns);
        case.violated(format!(
            "{} of {} lasted longer than {} {window}, the longest {}, first at {}",
            hung.len(),
            text::count(case.n, "operation"),
            text::span(limit),
            text::span(longest),
            text::after(first.intended_ns, origin)
        ));
    }
    for it in &hung {
        let text = format!("`{}` took {}", it.op, text::span(lasted(it)));
        case.find(Status::Fail, Some(it.intended_ns), &it.key, text);
    }
    let spans = context.spans(&property.window);
    for span in spans.into_iter().filter(|_| lag.is_none()) {
        if let Some((before, after)) = growth(&operations, span) {
            case.violated(format!(
                "operations in flight grew {window}, from {before:.0} to {after:.0}"
            ));
        }
    }
    if case.status() == Status::Fail {
        super::blame_faults(context, &mut case, &property.window);
    }
    case
}

/// Mean in-flight of the second and of the last quarter, when it grew.
fn growth(operations: &[&Operation], span: Span) -> Option<(f64, f64)> {
    let quarter = span.len() / 4;
    if quarter < 1_000_000_000 {
        return None;
    }
    let mean = |part: u64| {
        let part = Span::new(span.from + part * quarter, span.from + (part + 1) * quarter);
        let inside = |it: &&Operation| {
            let (from, to) = (it.intended_ns.max(part.from), it.ended_ns.min(part.to));
            to.saturating_sub(from) as f64
        };
        operations.iter().map(inside).sum::<f64>() / part.len() as f64
    };
    let (before, after) = (mean(1), mean(3));
    (after > before * 2.0 && after > before + 10.0).then_some((before, after))
}
