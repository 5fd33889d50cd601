//! `errors`: the share of operations whose effect is unknown (and unsettled, if asked).
//!
//! `refused` is an answer, not an error; `accepted` is reported and can be limited. A share needs
//! n ≥ 3/limit, then the point value decides; a limit of 0 is a count.

use std::collections::BTreeMap;

use crate::evidence::Operation;
use crate::plan::load::OutcomeClass;
use crate::plan::property::Errors;

use super::Status;
use super::case::{Case, Gap};
use super::context::{Context, window_name};
use super::stats::wilson;
use super::text;

pub(crate) fn check(context: &Context<'_>, property: &Errors) -> Case {
    let mut case = context.case_in(&property.window, "operations");
    context.expect_account(&mut case);
    context.expect_no_drops(&mut case, false);
    let operations = context.operations(&property.window, Some(&property.operation));
    let n = operations.len() as u64;
    case.n = n;
    let is_error = |it: &&&Operation| match it.outcome {
        OutcomeClass::Unknown => true,
        OutcomeClass::Unsettled => property.unsettled,
        _ => false,
    };
    let errors: Vec<&&Operation> = operations.iter().filter(is_error).collect();
    judge_share(&mut case, property, &errors, n);
    if let Some(limit) = property.accepted_at_most {
        judge_accepted(&mut case, &operations, limit);
    }
    for it in &errors {
        case.find(Status::Fail, Some(it.intended_ns), &it.key, told(it));
    }
    if case.status() == Status::Fail {
        super::blame_faults(context, &mut case, &property.window);
    }
    case
}

fn judge_share(case: &mut Case, property: &Errors, errors: &[&&Operation], n: u64) {
    let hits = errors.len() as u64;
    let window = window_name(&property.window);
    let share = if n == 0 { 0.0 } else { hits as f64 / n as f64 };
    let (low, high) = wilson(hits, n);
    case.limit = Some(text::share(property.at_most));
    case.value = Some(text::share(share));
    case.margin = Some(text::share(property.at_most - share));
    case.measured = if hits == 0 {
        format!("0 of {n} {window}; shows ≤ {}", text::share(high))
    } else {
        format!(
            "{} ({hits} of {n}; 95% interval {} to {}) {window}, limit {}",
            text::share(share),
            text::share(low),
            text::share(high),
            text::share(property.at_most)
        )
    };
    let n_min = n_min(property.at_most);
    // Too few for a share, unless even the least that they can mean breaks the limit.
    if n < n_min && low <= property.at_most {
        case.blocked(Gap::new(
            format!(
                "only {} {window}, a limit of {} needs {n_min}",
                text::count(n, "operation"),
                text::share(property.at_most)
            ),
            "raise `arrivals:` or lengthen the window",
        ));
    } else if share > property.at_most {
        let first = errors.first().map_or(String::new(), |it| {
            let origin = case.window.as_ref().map_or(0, |window| window.from_ns);
            format!(", first at {}", text::after(it.intended_ns, origin))
        });
        case.violated(format!(
            "{} ({hits} of {n}) {window}, limit {}: {}{first}",
            text::share(share),
            text::share(property.at_most),
            by_class(errors)
        ));
    }
}

/// How many operations a share of a limit takes; a limit of 0 is a count.
fn n_min(limit: f64) -> u64 {
    if limit > 0.0 {
        (3.0 / limit).ceil() as u64
    } else {
        1
    }
}

fn judge_accepted(case: &mut Case, operations: &[&Operation], limit: f64) {
    let n = operations.len();
    let accepted = |it: &&&Operation| it.outcome == OutcomeClass::Accepted;
    let accepted = operations.iter().filter(accepted).count();
    let share = accepted as f64 / n.max(1) as f64;
    let n_min = n_min(limit);
    if (n as u64) < n_min && wilson(accepted as u64, n as u64).0 <= limit {
        case.missing(Gap::new(
            format!(
                "only {}, a limit of {} for those merely accepted needs {n_min}",
                text::count(n as u64, "operation"),
                text::share(limit)
            ),
            "raise `arrivals:` or lengthen the window",
        ));
    } else if share > limit {
        case.violated(format!(
            "{} ({accepted} of {n}) were merely accepted, limit {}",
            text::share(share),
            text::share(limit)
        ));
    }
}

/// `44 time-outs, 7 x 503`.
fn by_class(errors: &[&&Operation]) -> String {
    let mut classes: BTreeMap<String, u64> = BTreeMap::new();
    for it in errors {
        *classes.entry(told(it)).or_default() += 1;
    }
    let mut classes: Vec<(String, u64)> = classes.into_iter().collect();
    classes.sort_by_key(|(name, n)| (std::cmp::Reverse(*n), name.clone()));
    let told = classes.iter().map(|(name, n)| match name.as_str() {
        "timeout" => text::count(*n, "time-out"),
        name => format!("{n} x {name}"),
    });
    told.collect::<Vec<_>>().join(", ")
}

fn told(it: &Operation) -> String {
    match (&it.error, it.status, it.outcome) {
        (_, _, OutcomeClass::Unsettled) => "unsettled".into(),
        (Some(error), _, _) => error.strip_prefix("status ").unwrap_or(error).to_owned(),
        (None, Some(status), _) => status.to_string(),
        (None, None, _) => "no answer".into(),
    }
}
