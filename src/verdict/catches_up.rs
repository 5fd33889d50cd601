//! `catches-up`: from some t ≥ t₁ on, every row of the view equals its source; versions never fall.
//!
//! The view is compared at each reading. One that is read once, at the end, can show that it caught
//! up but not when. One that is closer to the limit than its own clock is known is inconclusive; the
//! time of a reading is the run's own, and exact, unless `select:` says when it was.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::evidence::Version;
use crate::plan::property::CatchesUp;
use crate::plan::{SourceName, Window};

use super::Status;
use super::case::{Case, Gap};
use super::context::Context;
use super::text;

/// Rows, each with its version.
type Rows<'a> = BTreeMap<&'a str, &'a Value>;

pub(crate) fn check(context: &Context<'_>, property: &CatchesUp) -> Case {
    let mut case = Case::new("rows");
    context.expect_exercised(&mut case);
    let start = match &property.after {
        Some(fault) => {
            let window = Window::After {
                fault: fault.clone(),
            };
            case.window = context.judged(&window);
            for fault in context.faults_of(&window) {
                case.missing_all(context.fault_gaps(fault, None));
            }
            context.faults.get(fault).map(|seen| seen.on.to)
        }
        None => Some(context.load_end),
    };
    for name in [&property.view, &property.source] {
        if let Some(gap) = context.source_gap(name) {
            case.blocked(gap);
        }
    }
    if let Some(service) = context.plan.source_service(&property.view) {
        case.blame(service.as_str());
    }
    let (view, source) = (of(context, &property.view), of(context, &property.source));
    let (view_end, source_end) = (rows_at(&view, u64::MAX), rows_at(&source, u64::MAX));
    case.n = source_end.len() as u64;
    if source_end.is_empty() {
        case.blocked(Gap::new(
            format!("`{}` holds no version", property.source),
            "drive load that writes to it, or repair its `select:`",
        ));
        return case;
    }
    judge_versions(&mut case, &view);
    if let Some(start) = start {
        judge_time(context, &mut case, property, start, &view, &source);
    }
    let keys: BTreeSet<&str> = view_end.keys().chain(source_end.keys()).copied().collect();
    let differ = keys
        .iter()
        .filter(|key| view_end.get(*key) != source_end.get(*key));
    for key in differ {
        let told = |rows: &Rows<'_>| rows.get(key).map_or("missing".into(), |it| it.to_string());
        let text = format!("view {}, source {}", told(&view_end), told(&source_end));
        case.find(Status::Fail, None, *key, text);
    }
    case
}

fn of<'a>(context: &'a Context<'_>, name: &SourceName) -> Vec<&'a Version> {
    let versions = context.evidence.versions.iter();
    let mut versions: Vec<&Version> = versions.filter(|it| it.source == *name).collect();
    versions.sort_by_key(|it| it.at_ns);
    versions
}

fn rows_at<'a>(versions: &[&'a Version], at: u64) -> Rows<'a> {
    let before = versions.iter().take_while(|it| it.at_ns <= at);
    before.map(|it| (it.key.as_str(), &it.version)).collect()
}

fn judge_versions(case: &mut Case, view: &[&Version]) {
    let mut last: BTreeMap<&str, f64> = BTreeMap::new();
    for it in view {
        let Some(version) = it.version.as_f64() else {
            continue;
        };
        let seen = last.entry(&it.key).or_insert(version);
        if version < *seen {
            case.violated(format!("`{}` went back from {seen} to {version}", it.key));
            let text = format!("from {seen} to {version}");
            case.find(Status::Fail, Some(it.at_ns), &it.key, text);
        }
        *seen = version;
    }
}

fn judge_time(
    context: &Context<'_>,
    case: &mut Case,
    property: &CatchesUp,
    start: u64,
    view: &[&Version],
    source: &[&Version],
) {
    let within = property.within.as_nanos() as u64;
    case.limit = Some(text::span(within));
    let readings: BTreeSet<u64> = view.iter().map(|it| it.at_ns).collect();
    let source_read_once = source.first().map(|it| it.at_ns) == source.last().map(|it| it.at_ns);
    let equal = |at: u64| {
        let until = if source_read_once { u64::MAX } else { at };
        rows_at(view, at) == rows_at(source, until)
    };
    let mut caught_up = None;
    for at in readings.iter().rev().take_while(|at| **at >= start) {
        if !equal(*at) {
            break;
        }
        caught_up = Some(*at);
    }
    let last = readings.last().copied().unwrap_or(0);
    let error = context.clock_error(&property.view);
    match caught_up {
        Some(at) if error > 0 && at.abs_diff(start + within) <= error => {
            let (view, limit) = (&property.view, text::span(within));
            let what = format!("the view `{view}` caught up about {limit} later, the limit");
            case.missing(context.clock_gap(view, &what));
        }
        Some(at) if at - start <= within => {
            case.value = Some(text::span(at - start));
            case.measured = format!(
                "{} caught up {} later, limit {}",
                text::count(case.n, "row"),
                text::span(at - start),
                text::span(within)
            );
        }
        Some(at) if readings.range(start..at).next().is_some() => case.violated(format!(
            "the view `{}` caught up only {} later, limit {}",
            property.view,
            text::span(at - start),
            text::span(within)
        )),
        Some(_) => case.missing(Gap::new(
            format!(
                "the view `{}` was first read {} later: it had caught up, but nobody knows when",
                property.view,
                text::span(last - start)
            ),
            format!("add `every: 1s` to `evidence: {}`", property.view),
        )),
        None if last >= start + within => case.violated(format!(
            "the view `{}` never caught up with `{}`, last read {} later, limit {}",
            property.view,
            property.source,
            text::span(last - start),
            text::span(within)
        )),
        None => case.missing(context.drain_gap().unwrap_or_else(|| {
            Gap::new(
                format!("the view `{}` was not read late enough", property.view),
                "let it be read at the end (`at-end: true`)",
            )
        })),
    }
}
