//! `report.html`: one self-contained page that opens from disk, works without scripts, in light
//! and dark, on paper and on a phone, and lets nothing that a service answered become markup.
//!
//! The page is `templates/report.html`, checked at compile time and escaping by default; only the
//! SVG of [`super::svg`] and the page's own style and script are passed through, and the policy in
//! its head allows exactly those two by hash. See [`super::sections`] for the charts and
//! [`super::tables`] for the rest.

use std::collections::BTreeMap;

use askama::Template;
use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::faults::{self, FaultCard};
use super::sections::{Canvas, Chart, OperationCharts, quantile_names};
use super::svg::Axis;
use super::tables::{self, EventRow, Honesty, SourceRow, WindowTable};
use super::timeline::Timeline;
use super::{ReportError, Run, numbers};
use crate::evidence::StopReason;
use crate::plan::LoadModel;
use crate::verdict::{Finding, Status, Verdict};

const STYLE: &str = include_str!("../../templates/report.css");
const SCRIPT: &str = include_str!("../../templates/report.js");

/// Findings that a property shows before a reader asks for the others.
const FINDINGS_SHOWN: usize = 8;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'p> {
    policy: String,
    style: &'static str,
    script: &'static str,
    /// JSON that is safe inside a script element.
    data: String,
    run_id: &'p str,
    scenario: &'p str,
    about: &'p str,
    status: StatusView,
    headline: String,
    sentence: String,
    facts: Vec<(&'static str, String)>,
    ended_why: Option<String>,
    properties: Vec<PropertyView<'p>>,
    closed_model: bool,
    strip: Chart,
    operations: Vec<OperationCharts>,
    links: Vec<Chart>,
    samples: Vec<Chart>,
    spectrum: Option<Chart>,
    tables: Vec<WindowTable>,
    quantiles: [&'static str; 5],
    faults: Vec<FaultCard>,
    honesty: Vec<Honesty>,
    not_exercised: Vec<String>,
    sources: Vec<SourceRow>,
    command: String,
    events: Vec<EventRow>,
    events_more: usize,
}

/// A status as a word, a class and a sign that needs no colour.
#[derive(Clone, Copy)]
struct StatusView {
    class: &'static str,
    word: &'static str,
    sign: &'static str,
}

impl StatusView {
    fn of(status: Status) -> Self {
        let (class, word, sign) = match status {
            Status::Pass => ("pass", "PASS", "✓"),
            Status::Inconclusive => ("doubt", "INCONCLUSIVE", "?"),
            Status::Fail => ("fail", "FAIL", "✗"),
        };
        Self { class, word, sign }
    }
}

/// A property with its verdict.
struct PropertyView<'p> {
    verdict: &'p Verdict,
    status: StatusView,
    window: String,
    n: String,
    line: Option<String>,
    findings: Vec<FindingView<'p>>,
    /// Those beyond the first few, shown on request.
    findings_folded: Vec<FindingView<'p>>,
    open: bool,
}

struct FindingView<'p> {
    finding: &'p Finding,
    status: StatusView,
    at: String,
}

/// Renders `report.html`.
///
/// # Errors
///
/// Only what the template's writer says.
pub fn render(run: &Run<'_>) -> Result<Vec<u8>, ReportError> {
    let timeline = Timeline::new(run.plan, run.evidence);
    let axis = Axis::of_time(&timeline);
    let canvas = Canvas {
        run,
        timeline: &timeline,
        axis: &axis,
    };
    let page = page(run, &canvas);
    let text = page
        .render()
        .map_err(|e| ReportError::new("report.html")(e.into()))?;
    Ok(text.into_bytes())
}

fn page<'p>(run: &'p Run<'p>, canvas: &Canvas<'_>) -> Page<'p> {
    let timeline = canvas.timeline;
    let operations = canvas.operations();
    let (links, samples) = (canvas.links(), canvas.samples());
    let charts = operations
        .iter()
        .flat_map(|o| &o.charts)
        .chain(&links)
        .chain(&samples);
    let data = script_json(&data(timeline, charts));
    let (events, events_more) = tables::events(run, timeline);
    Page {
        policy: policy(),
        style: STYLE,
        script: SCRIPT,
        data,
        run_id: run.id(),
        scenario: &run.plan.name,
        about: &run.plan.about,
        status: StatusView::of(run.verdicts.status()),
        headline: headline(run),
        sentence: sentence(run, timeline),
        facts: facts(run),
        ended_why: ended_why(run),
        properties: properties(run, timeline),
        closed_model: matches!(run.plan.load.model, LoadModel::Closed { .. }),
        strip: canvas.strip(),
        operations,
        links,
        samples,
        spectrum: canvas.spectrum(),
        tables: tables::windows(run, timeline),
        quantiles: quantile_names(),
        faults: faults::cards(run, timeline),
        honesty: tables::honesty(run),
        not_exercised: tables::not_exercised(run, timeline),
        sources: tables::sources(run),
        command: command(run),
        events,
        events_more,
    }
}

/// Nothing loads, nothing is sent, and only our own style and script count.
fn policy() -> String {
    let hash = |text: &str| base64::prelude::BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

fn data<'c>(timeline: &Timeline, charts: impl Iterator<Item = &'c Chart>) -> Value {
    let charts: BTreeMap<&str, &Value> = charts
        .filter(|chart| !chart.data.is_null())
        .map(|chart| (chart.id.as_str(), &chart.data))
        .collect();
    json!({
        "span": timeline.span_s(),
        "bin": timeline.bin_ns as f64 / 1e9,
        "charts": charts,
    })
}

/// JSON for a script element: no `<` can end the element or open a comment.
fn script_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

fn headline(run: &Run<'_>) -> String {
    let verdicts = &run.verdicts.verdicts;
    let names = |status: Status| -> Vec<&str> {
        let of = verdicts.iter().filter(|verdict| verdict.status == status);
        of.map(|verdict| verdict.property.as_str()).collect()
    };
    let (failed, doubtful) = (names(Status::Fail), names(Status::Inconclusive));
    let all = numbers::counted(verdicts.len(), "property", "properties");
    match (failed.as_slice(), doubtful.as_slice()) {
        ([], []) if verdicts.is_empty() => "Nothing was judged".into(),
        ([], []) => format!("{all} held"),
        ([one], _) => format!("{one} was violated, 1 of {all}"),
        ([], [one]) => format!("{one} is not proven, 1 of {all}"),
        ([], many) => format!("{} of {all} are not proven", many.len()),
        (many, _) => format!("{} of {all} were violated", many.len()),
    }
}

/// What happened, in one sentence.
fn sentence(run: &Run<'_>, timeline: &Timeline) -> String {
    let seen: Vec<String> = timeline
        .faults
        .iter()
        .take(4)
        .map(|fault| {
            let what = run
                .plan
                .fault(&fault.fault)
                .map_or(String::new(), faults::fault_words);
            format!(
                "{}: {what}, for {}",
                fault.fault,
                numbers::seconds(fault.span.seconds())
            )
        })
        .collect();
    let more = match timeline.faults.len().saturating_sub(4) {
        0 => String::new(),
        more => format!(" and {more} more faults"),
    };
    let issued = run.evidence.operations.len();
    let operations = numbers::counted(issued, "operation", "operations");
    if seen.is_empty() {
        format!("{operations}, and no fault was on.")
    } else {
        format!("{operations}. {}{more}.", seen.join("; "))
    }
}

fn facts(run: &Run<'_>) -> Vec<(&'static str, String)> {
    let started = run.started_wall_ms().and_then(|ms| {
        let at = jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
        Some(at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
    });
    let mut facts = vec![("run", run.id().to_owned())];
    facts.extend(started.map(|started| ("started", started)));
    facts.push(("lasted", numbers::seconds(run.lasted_s())));
    facts.push(("seed", run.plan.seed.to_string()));
    facts.push(("system", run.plan.system.name.clone()));
    facts.push(("scenario", run.plan.scenario_file.clone()));
    facts
}

fn ended_why(run: &Run<'_>) -> Option<String> {
    if run.verdicts.ended == StopReason::Finished {
        return None;
    }
    Some(
        run.verdicts
            .ended_why
            .clone()
            .unwrap_or_else(|| "it was stopped".into()),
    )
}

/// Failures first, then what is not proven, then what held; within each in the file's order.
fn properties<'p>(run: &'p Run<'p>, timeline: &Timeline) -> Vec<PropertyView<'p>> {
    let mut verdicts: Vec<&Verdict> = run.verdicts.verdicts.iter().collect();
    verdicts.sort_by_key(|verdict| std::cmp::Reverse(verdict.status));
    let findings = |verdict: &'p Verdict, range: std::ops::Range<usize>| {
        let shown = verdict.findings.iter().skip(range.start).take(range.len());
        shown
            .map(|finding| finding_view(timeline, finding))
            .collect()
    };
    let view = |verdict: &'p Verdict| PropertyView {
        verdict,
        status: StatusView::of(verdict.status),
        window: verdict.window.as_ref().map_or(String::new(), |window| {
            let at = |ns| numbers::offset(timeline.offset_s(ns));
            format!(
                "{}, {} to {}",
                window.name,
                at(window.from_ns),
                at(window.to_ns)
            )
        }),
        n: format!("{} {}", numbers::count(verdict.n), verdict.n_of),
        line: run.line(&verdict.source).map(|line| line.trim().to_owned()),
        findings: findings(verdict, 0..FINDINGS_SHOWN),
        findings_folded: findings(verdict, FINDINGS_SHOWN..usize::MAX),
        open: false,
    };
    let mut views: Vec<PropertyView<'p>> = verdicts.into_iter().map(view).collect();
    if let Some(first) = views.first_mut() {
        first.open = first.verdict.status == Status::Fail;
    }
    views
}

fn finding_view<'p>(timeline: &Timeline, finding: &'p Finding) -> FindingView<'p> {
    FindingView {
        finding,
        status: StatusView::of(finding.status),
        at: finding
            .at_ns
            .map_or(String::new(), |ns| numbers::offset(timeline.offset_s(ns))),
    }
}

/// The command that repeats the run, with the values of `allow-env` that were set and what the command line
/// changed.
fn command(run: &Run<'_>) -> String {
    let set = run
        .plan
        .system
        .environment
        .iter()
        .filter(|(_, value)| !value.is_empty());
    let set: String = set
        .map(|(name, value)| format!("{name}={} ", shell_word(value)))
        .collect();
    let changes = run.plan.changes.iter();
    let changes: String = changes
        .map(|word| format!(" {}", shell_word(word)))
        .collect();
    format!(
        "{set}chaos run {} --seed {}{changes}",
        shell_word(&run.plan.scenario_file),
        run.plan.seed
    )
}

fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/,:=+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
