//! `goodput`: done + accepted operations, against those offered or against the baseline's rate.
//!
//! Unsettled operations are no goodput. Operations of a later step are offered only when the step
//! before was answered, so a share of the offered says nothing about journeys that ended early;
//! against the baseline it does.

use crate::evidence::Operation;
use crate::plan::property::{Goodput, GoodputOf};

use super::Status;
use super::case::{Case, Gap};
use super::context::{Context, happened, window_name};
use super::text;

pub(crate) fn check(context: &Context<'_>, property: &Goodput) -> Case {
    let mut case = context.case_in(&property.window, "operations");
    let operations = context.operations(&property.window, Some(&property.operation));
    // A rate tells seconds apart: a lag well below one moves no operation that matters.
    context.expect_generator(&mut case, 1_000_000_000, &operations);
    case.n = operations.len() as u64;
    let good = match property.of {
        GoodputOf::Offered => count_good(&operations),
        // Those that crossed into the window are none of its seconds'.
        GoodputOf::Baseline => {
            let spans = context.spans(&property.window);
            let inside = |it: &&&Operation| spans.iter().any(|span| span.holds(it.intended_ns));
            operations
                .iter()
                .filter(inside)
                .filter(|it| happened(it))
                .count() as u64
        }
    };
    let window = window_name(&property.window);
    let (of, whole) = match property.of {
        GoodputOf::Offered => ("offered", case.n as f64),
        GoodputOf::Baseline => ("the baseline's rate", baseline_share(context, property)),
    };
    let n_min = if property.at_least < 1.0 {
        (3.0 / (1.0 - property.at_least)).ceil().min(1000.0)
    } else {
        1.0
    };
    if whole < n_min {
        case.blocked(Gap::new(
            format!(
                "only {whole:.0} operations {of} {window}, a share of {} needs {n_min}",
                text::share(property.at_least)
            ),
            "raise `arrivals:` or lengthen the window",
        ));
    }
    let share = good as f64 / whole.max(1.0);
    case.value = Some(text::share(share));
    case.limit = Some(text::share(property.at_least));
    case.margin = Some(text::share(share - property.at_least));
    let told = format!(
        "{} ({good} of {whole:.0}) of {of} {window}, at least {}",
        text::share(share),
        text::share(property.at_least)
    );
    if share < property.at_least {
        case.violated(told.clone());
        super::blame_faults(context, &mut case, &property.window);
        for it in operations.iter().filter(|it| !happened(it)) {
            let outcome = format!("{:?}", it.outcome).to_lowercase();
            case.find(Status::Fail, Some(it.intended_ns), &it.key, outcome);
        }
    }
    case.measured = told;
    case
}

fn count_good(operations: &[&Operation]) -> u64 {
    operations.iter().filter(|it| happened(it)).count() as u64
}

/// How many the baseline's rate would have made of the window's length.
fn baseline_share(context: &Context<'_>, property: &Goodput) -> f64 {
    let operations = context.operations_of(Some(&property.operation));
    // By their ends: what the fault found under way is lost to the baseline at its end, and what the
    // warm-up left under way is won at its start.
    let ended = operations.filter(|it| happened(it) && context.baseline.holds(it.ended_ns));
    let seconds: f64 = context
        .spans(&property.window)
        .iter()
        .map(|span| span.seconds())
        .sum();
    let rate = ended.count() as f64 / context.baseline.seconds().max(1e-9);
    rate * seconds
}
