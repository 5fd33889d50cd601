//! `catches-up`: from some t ≥ t₁ on, every row of the view equals its source; versions never fall.
//!
//! The view is compared at each reading. After the load's end both are at rest, and must be equal.
//! After a fault the source goes on: the view has caught up when it knows all that the source knew
//! at the fault's end, and at rest it must be equal as well.
//!
//! A view that is read once, at the end, can show that it caught up but not when, and when between
//! two readings nobody knows: late is only what the last reading without it shows. One that is closer
//! to the limit than its own clock is known is inconclusive; the time of a reading is the run's own,
//! and exact, unless `select:` says when it was.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::evidence::{Event, Version};
use crate::plan::property::CatchesUp;
use crate::plan::{Fetch, SourceName, SourcePlan, Window};

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
    let view = Readings::of(context, &property.view);
    let source = Readings::of(context, &property.source);
    let (view_end, source_end) = (view.at(u64::MAX), source.at(u64::MAX));
    case.n = source_end.len() as u64;
    if source_end.is_empty() {
        case.blocked(Gap::new(
            format!("`{}` holds no version", property.source),
            "drive load that writes to it, or repair its `select:`",
        ));
        return case;
    }
    judge_versions(&mut case, &view.versions);
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

/// What a source of versions said, in order of time.
struct Readings<'a> {
    versions: Vec<&'a Version>,
    /// Whether each reading holds all of its rows, so that one which is missing is gone.
    whole: bool,
    /// When it was read to its end without a row, though it had some before.
    emptied: Option<u64>,
}

impl<'a> Readings<'a> {
    fn of(context: &'a Context<'_>, name: &SourceName) -> Self {
        let versions = context.evidence.versions.iter();
        let mut versions: Vec<&Version> = versions.filter(|it| it.source == *name).collect();
        versions.sort_by_key(|it| it.at_ns);
        let whole = context.plan.source(name).is_some_and(reads_whole);
        let ended = context.evidence.events.iter().filter(|it| {
            matches!(&it.event, Event::SourceRead { source, error: None, .. } if source == name)
        });
        let ended = ended.map(|it| it.at_ns).max().filter(|_| whole);
        let last = versions.last().map_or(0, |it| it.at_ns);
        // Polling stops with the load; what is read afterwards is the reading at the end.
        let emptied = ended.filter(|at| last < context.load_end && *at >= context.load_end);
        Self {
            versions,
            whole,
            emptied,
        }
    }

    /// The instants of its readings.
    fn instants(&self) -> BTreeSet<u64> {
        let read = self.versions.iter().map(|it| it.at_ns);
        read.chain(self.emptied).collect()
    }

    /// What it held at an instant, by its last reading until then.
    fn at(&self, at: u64) -> Rows<'a> {
        let to = self.versions.partition_point(|it| it.at_ns <= at);
        let mut known = &self.versions[..to];
        if self.emptied.is_some_and(|emptied| emptied <= at) {
            known = &[];
        } else if let (true, Some(last)) = (self.whole, known.last()) {
            known = &known[known.partition_point(|it| it.at_ns < last.at_ns)..];
        }
        let rows = known.iter();
        rows.map(|it| (it.key.as_str(), &it.version)).collect()
    }
}

/// Whether a reading of a source holds all of its rows, each as of the reading.
fn reads_whole(source: &SourcePlan) -> bool {
    let times = ["at-ns", "at-mono-ns", "at-wall-ms"];
    let dates_rows = times.iter().any(|time| source.select.contains(time));
    let goes_on = matches!(&source.fetch, Fetch::Http(http) if http.cursor.is_some());
    !dates_rows && !goes_on
}

/// Whether the view knows what is due, or something newer.
fn knows(view: &Rows<'_>, due: &Rows<'_>) -> bool {
    due.iter().all(|(key, due)| {
        let known = view.get(key);
        known.is_some_and(|known| match (known.as_f64(), due.as_f64()) {
            (Some(known), Some(due)) => known >= due,
            _ => known == due,
        })
    })
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
    view: &Readings<'_>,
    source: &Readings<'_>,
) {
    let within = property.within.as_nanos() as u64;
    case.limit = Some(text::span(within));
    let readings = view.instants();
    let rest = source.at(u64::MAX);
    let is_equal = view.at(u64::MAX) == rest;
    // What the source knew as the wait began, but for what it has dropped since, and for what it
    // has changed since where no order of versions tells the newer one.
    let known = source.instants().range(..=start).next_back().copied();
    let known = known.filter(|_| property.after.is_some());
    let due = known.map(|at| {
        let mut due = source.at(at);
        due.retain(|key, due| rest.get(key).is_some_and(|it| due.is_number() || it == due));
        due
    });
    let due = due.filter(|due| !due.is_empty());
    let caught_up_at = |at: u64| match &due {
        Some(due) => is_equal && knows(&view.at(at), due),
        None => view.at(at) == rest,
    };
    let mut caught_up = None;
    for at in readings.iter().rev().take_while(|at| **at >= start) {
        if !caught_up_at(*at) {
            break;
        }
        caught_up = Some(*at);
    }
    // The last reading at which it had surely not caught up: a source that goes on may have been
    // ahead of any other.
    let is_known = property.after.is_none() || due.is_some();
    let before = caught_up.and_then(|at| readings.range(start..at).next_back().copied());
    let behind = before.filter(|_| is_known);
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
        Some(at) if behind.is_some_and(|behind| behind >= start + within) => {
            case.violated(format!(
                "the view `{}` caught up only {} later, limit {}",
                property.view,
                text::span(at - start),
                text::span(within)
            ))
        }
        Some(at) if behind.is_some() => case.missing(Gap::new(
            format!(
                "the view `{}` caught up {} to {} later, the limit is {}",
                property.view,
                text::span(behind.unwrap_or(start) - start),
                text::span(at - start),
                text::span(within)
            ),
            format!("read `evidence: {}` more often (`every:`)", property.view),
        )),
        Some(_) if before.is_some() => case.missing(Gap::new(
            format!(
                "the view `{}` had caught up at the end, but nobody knows what `{}` held before",
                property.view, property.source
            ),
            format!("add `every: 1s` to `evidence: {}`", property.source),
        )),
        Some(_) => case.missing(Gap::new(
            format!(
                "the view `{}` was first read {} later: it had caught up, but nobody knows when",
                property.view,
                text::span(last - start)
            ),
            format!("add `every: 1s` to `evidence: {}`", property.view),
        )),
        None if last >= start + within => {
            let told = format!(
                "the view `{}` never caught up with `{}`, last read {} later, limit {}",
                property.view,
                property.source,
                text::span(last - start),
                text::span(within)
            );
            let unrest = context.drain_gap().filter(|_| property.after.is_some());
            case.violated_by_absence(told, unrest.as_ref());
        }
        None => case.missing(context.drain_gap().unwrap_or_else(|| {
            Gap::new(
                format!("the view `{}` was not read late enough", property.view),
                "let it be read at the end (`at-end: true`)",
            )
        })),
    }
}
