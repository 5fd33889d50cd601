//! The charts of the report, in the order of the page.

use serde_json::{Value, json};

use super::Run;
use super::measure::{self, InWindow, OverTime, QUANTILES, Series};
use super::numbers;
use super::svg::{self, Axis, Lane, Plot, Scale, Unit};
use super::timeline::{self, MarkKind, Timeline};
use crate::plan::OperationName;

/// Operations that get charts of their own; the others are in the tables.
const CHARTED_OPERATIONS_MAX: usize = 8;
/// Links, backlogs and samples that get a chart.
const SMALL_CHARTS_MAX: usize = 24;
const HEIGHT: f64 = 190.0;
const SMALL_HEIGHT: f64 = 72.0;

/// A chart as the page shows it.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) unit: &'static str,
    /// One sentence on how to read it, or empty.
    pub(super) note: String,
    pub(super) legend: Vec<Legend>,
    /// Safe markup by [`svg`].
    pub(super) svg: String,
    /// What the cursor reads.
    pub(super) data: Value,
}

/// A line of a legend.
#[derive(Clone, Debug)]
pub(super) struct Legend {
    pub(super) class: String,
    pub(super) label: String,
    /// What it comes to over the run, or empty.
    pub(super) value: String,
}

impl Legend {
    fn new(class: &str, label: &str, value: String) -> Self {
        Self {
            class: class.to_owned(),
            label: label.to_owned(),
            value,
        }
    }
}

/// The charts of one operation.
#[derive(Clone, Debug)]
pub(super) struct OperationCharts {
    pub(super) name: String,
    pub(super) journey: String,
    /// `2,800 operations, 98.2 % done or accepted`.
    pub(super) summary: String,
    pub(super) charts: Vec<Chart>,
    pub(super) open: bool,
}

/// What charts are drawn from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canvas<'c> {
    pub(super) run: &'c Run<'c>,
    pub(super) timeline: &'c Timeline,
    pub(super) axis: &'c Axis,
}

fn values(series: &Series) -> Vec<f64> {
    series.iter().map(|value| value.unwrap_or(0.0)).collect()
}

fn max_of<'s>(series: impl IntoIterator<Item = &'s Series>) -> f64 {
    series
        .into_iter()
        .flatten()
        .flatten()
        .copied()
        .fold(0.0, f64::max)
}

/// A series for the cursor: label, class, values with three digits.
fn cursor(label: &str, class: &str, series: &Series) -> Value {
    let round = |v: f64| {
        let size = 10f64.powf(2.0 - v.abs().max(1e-3).log10().floor());
        (v * size).round() / size
    };
    json!([
        label,
        class,
        series.iter().map(|v| v.map(round)).collect::<Vec<_>>()
    ])
}

impl Canvas<'_> {
    fn sum(&self, series: &Series) -> u64 {
        let bin_s = self.timeline.bin_ns as f64 / 1e9;
        (values(series).iter().sum::<f64>() * bin_s).round() as u64
    }

    /// The strip on top: phases, faults, services, breakers.
    pub(super) fn strip(&self) -> Chart {
        let Self {
            run,
            timeline,
            axis,
        } = self;
        let share = |ns| timeline.share(ns);
        let span = |from, to| {
            let (from, to) = (timeline.offset_s(from), timeline.offset_s(to));
            format!("{} to {}", numbers::offset(from), numbers::offset(to))
        };
        let mut lanes = vec![Lane {
            name: "phases".into(),
            ..Lane::default()
        }];
        for phase in &timeline.phases {
            let title = format!("{}: {}", phase.name, span(phase.from_ns, phase.to_ns));
            let wide = share(phase.to_ns) - share(phase.from_ns) > 0.12;
            let inside = if wide {
                phase.name.clone()
            } else {
                String::new()
            };
            let class = format!("phase {}", phase.name);
            lanes[0].bars.push((
                share(phase.from_ns),
                share(phase.to_ns),
                class,
                title,
                inside,
            ));
        }
        for fault in &timeline.faults {
            let planned = run.plan.fault(&fault.fault);
            let what = planned.map_or(String::new(), super::faults::fault_words);
            let name = format!("{}: {what}", fault.fault);
            let title = format!("{name}, {}", span(fault.span.from_ns, fault.span.to_ns));
            let (from, to) = (share(fault.span.from_ns), share(fault.span.to_ns));
            let bars = vec![(from, to, "fault".into(), title, String::new())];
            lanes.push(Lane {
                name,
                bars,
                ..Lane::default()
            });
        }
        let mut names: Vec<_> = timeline
            .marks
            .iter()
            .filter(|mark| mark.kind != MarkKind::Ready)
            .map(|mark| &mark.service)
            .collect();
        names.sort();
        names.dedup();
        for service in names {
            let marks = timeline
                .marks
                .iter()
                .filter(|mark| mark.service == *service);
            let ticks = marks.map(|mark| {
                let (class, what) = match mark.kind {
                    MarkKind::EndedByUs => ("ended", "ended by a fault"),
                    MarkKind::EndedByItself => ("ended itself", "ended by itself"),
                    MarkKind::Ready => ("ready", "ready"),
                };
                let at = numbers::offset(timeline.offset_s(mark.at_ns));
                (
                    share(mark.at_ns),
                    class.to_owned(),
                    format!("{service} {what} at {at}"),
                )
            });
            let ticks = ticks.collect();
            lanes.push(Lane {
                name: format!("{service}: ends and starts"),
                ticks,
                ..Lane::default()
            });
        }
        for (link, states) in timeline::breakers(run.plan, run.evidence, timeline) {
            let quiet = states.len() == 1;
            let bars = states.iter().map(|claimed| {
                let class = match claimed.state.as_str() {
                    "OPEN" => "open",
                    "HALF_OPEN" => "half-open",
                    _ => "closed",
                };
                let title = format!(
                    "{}: {}",
                    claimed.state,
                    span(claimed.from_ns, claimed.to_ns)
                );
                (
                    share(claimed.from_ns),
                    share(claimed.to_ns),
                    class.into(),
                    title,
                    String::new(),
                )
            });
            let bars = bars.collect();
            let note = if quiet { " (quiet)" } else { "" };
            lanes.push(Lane {
                name: format!("breaker {link}{note}"),
                bars,
                ..Lane::default()
            });
        }
        let label = "Time line: phases, faults, ends and starts of services, breaker states";
        let key = |class: &str, label: &str| Legend::new(class, label, String::new());
        Chart {
            id: "strip".into(),
            title: "What happened when".into(),
            unit: "seconds since the start of the load",
            note: String::new(),
            legend: vec![
                key("k-fault", "fault, confirmed on to confirmed off"),
                key("k-closed", "breaker closed"),
                key("k-open", "open"),
                key("k-half", "half-open"),
            ],
            svg: svg::lanes(axis, &lanes, label),
            data: Value::Null,
        }
    }

    /// The charts of every operation that was seen, in the order of the plan.
    pub(super) fn operations(&self) -> Vec<OperationCharts> {
        let journeys = self.run.plan.load.journeys.iter();
        let steps = journeys.flat_map(|journey| journey.steps.iter().map(move |s| (journey, s)));
        steps
            .filter(|(_, step)| {
                self.run
                    .evidence
                    .operations
                    .iter()
                    .any(|o| o.op == step.name)
            })
            .take(CHARTED_OPERATIONS_MAX)
            .enumerate()
            .map(|(at, (journey, step))| self.operation(at, journey.name.as_str(), &step.name))
            .collect()
    }

    fn operation(&self, at: usize, journey: &str, name: &OperationName) -> OperationCharts {
        let over = measure::over_time(self.run.evidence, self.timeline, name);
        let total: u64 = over
            .outcomes
            .iter()
            .map(|(_, series)| self.sum(series))
            .sum();
        let good: u64 = over.outcomes[..2]
            .iter()
            .map(|(_, series)| self.sum(series))
            .sum();
        let share = numbers::percent(good as f64 / total.max(1) as f64);
        let mut charts = vec![self.rate(at, &over), self.latency(at, &over)];
        charts.push(self.heat(at, &over));
        charts.extend((!over.errors.is_empty()).then(|| self.errors(at, &over)));
        OperationCharts {
            name: name.to_string(),
            journey: journey.to_owned(),
            summary: format!(
                "{} operations, {share} done or accepted",
                numbers::count(total)
            ),
            charts,
            open: at == 0,
        }
    }

    fn rate(&self, at: usize, over: &OverTime) -> Chart {
        let bins = self.timeline.bins();
        let mut offered = vec![0.0; bins];
        for (_, series) in &over.outcomes {
            offered
                .iter_mut()
                .zip(values(series))
                .for_each(|(sum, v)| *sum += v);
        }
        let dropped = if at == 0 {
            self.dropped()
        } else {
            vec![0.0; bins]
        };
        offered
            .iter_mut()
            .zip(&dropped)
            .for_each(|(sum, v)| *sum += v);
        let top = offered.iter().copied().fold(0.0, f64::max);
        let mut plot = Plot::new(self.axis, HEIGHT, Scale::linear(top), Unit::Number);
        let mut low = vec![0.0; bins];
        let mut legend = Vec::new();
        let mut data = Vec::new();
        for (name, series) in &over.outcomes {
            let n = self.sum(series);
            if n == 0 && *name != "unknown" {
                continue;
            }
            let high: Vec<f64> = low.iter().zip(values(series)).map(|(a, b)| a + b).collect();
            plot.area(&format!("o-{name}"), self.timeline, &low, &high);
            legend.push(Legend::new(&format!("o-{name}"), name, numbers::count(n)));
            data.push(cursor(name, &format!("o-{name}"), series));
            low = high;
        }
        plot.steps("l-offered", self.timeline, &offered);
        let offered: Series = offered.into_iter().map(Some).collect();
        let total = numbers::count(self.sum(&offered));
        legend.insert(0, Legend::new("l-offered", "offered", total));
        data.insert(0, cursor("offered", "l-offered", &offered));
        Chart {
            id: format!("rate{at}"),
            title: "Offered and what became of it".into(),
            unit: "operations/s, by intended start",
            note: String::new(),
            legend,
            svg: plot.render("Operations per second over time, by outcome, under the offered rate"),
            data: json!({"unit": "/s", "series": data}),
        }
    }

    /// Tickets per second that found no user; they have no operation to be counted by.
    fn dropped(&self) -> Vec<f64> {
        let mut dropped = vec![0.0; self.timeline.bins()];
        let bin_s = self.timeline.bin_ns as f64 / 1e9;
        for stamped in &self.run.evidence.events {
            if let crate::evidence::Event::LoadSecond(second) = &stamped.event {
                let at_ns = self.timeline.t0_ns + u64::from(second.second) * 1_000_000_000;
                if let Some(bin) = self.timeline.bin(at_ns) {
                    dropped[bin] += second.dropped as f64 / bin_s;
                }
            }
        }
        dropped
    }

    fn latency(&self, at: usize, over: &OverTime) -> Chart {
        let all = || {
            over.latency
                .iter()
                .map(|(_, series)| series)
                .chain([&over.failed])
        };
        let low = all().flatten().flatten().copied().fold(f64::MAX, f64::min);
        let high = max_of(all());
        let scale = Scale::log(if low == f64::MAX { 1.0 } else { low }, high);
        let mut plot = Plot::new(self.axis, HEIGHT, scale, Unit::Ms);
        let mut legend = Vec::new();
        let mut data = Vec::new();
        for (name, series) in over.latency.iter().rev() {
            plot.bins_line(&format!("l-{name}"), self.timeline, series);
        }
        for (name, series) in &over.latency {
            let worst = Unit::Ms.text(max_of([series]));
            legend.push(Legend::new(
                &format!("l-{name}"),
                name,
                format!("worst {worst}"),
            ));
            data.push(cursor(name, &format!("l-{name}"), series));
        }
        if over.failed.iter().any(Option::is_some) {
            plot.bins_line("l-failed", self.timeline, &over.failed);
            let worst = format!("worst {}", Unit::Ms.text(max_of([&over.failed])));
            legend.push(Legend::new("l-failed", "median of the rest", worst));
            data.push(cursor("median of the rest", "l-failed", &over.failed));
        }
        Chart {
            id: format!("latency{at}"),
            title: "Latency of what was done or accepted".into(),
            unit: "log scale, from the intended start",
            note: "The rest is what was refused, unsettled or unknown: fast refusals would flatter, time-outs would bury.".into(),
            legend,
            svg: plot.render("Latency percentiles over time on a log scale"),
            data: json!({"unit": "ms", "series": data}),
        }
    }

    fn heat(&self, at: usize, over: &OverTime) -> Chart {
        let heat = &over.heat;
        // Not rounded to whole steps: the rows of cells must fill the canvas exactly.
        let scale = if heat.rows == 0 {
            Scale::Log(1.0, 10.0)
        } else {
            Scale::Log(heat.from_ns / 1e6, heat.to_ns() / 1e6)
        };
        let mut plot = Plot::new(self.axis, HEIGHT, scale, Unit::Ms);
        plot.heat(self.timeline, heat);
        let most = numbers::count(heat.count_max);
        Chart {
            id: format!("heat{at}"),
            title: "Every operation by latency".into(),
            unit: "log scale; every outcome, nothing clipped",
            note: String::new(),
            legend: vec![Legend::new(
                "ramp",
                &format!("1 to {most} operations in a cell"),
                String::new(),
            )],
            svg: plot.render("Heat map: how many operations had which latency, over time"),
            data: Value::Null,
        }
    }

    fn errors(&self, at: usize, over: &OverTime) -> Chart {
        let bins = self.timeline.bins();
        let mut low = vec![0.0; bins];
        let mut stack = Vec::new();
        for (class, series) in &over.errors {
            let high: Vec<f64> = low.iter().zip(values(series)).map(|(a, b)| a + b).collect();
            stack.push((class, series, low, high.clone()));
            low = high;
        }
        let top = low.iter().copied().fold(0.0, f64::max);
        let mut plot = Plot::new(self.axis, HEIGHT * 0.7, Scale::linear(top), Unit::Number);
        let mut legend = Vec::new();
        let mut data = Vec::new();
        for (n, (class, series, low, high)) in stack.into_iter().enumerate() {
            plot.area(&format!("e{n}"), self.timeline, &low, &high);
            legend.push(Legend::new(
                &format!("e{n}"),
                class,
                numbers::count(self.sum(series)),
            ));
            data.push(cursor(class, &format!("e{n}"), series));
        }
        Chart {
            id: format!("errors{at}"),
            title: "What went wrong".into(),
            unit: "operations/s by class of error",
            note: String::new(),
            legend,
            svg: plot.render("Errors per second over time, by class"),
            data: json!({"unit": "/s", "series": data}),
        }
    }

    /// Percentile spectra of the first operation's windows: from intended, and service time dashed.
    pub(super) fn spectrum(&self) -> Option<Chart> {
        let first = self.run.plan.load.journeys.first()?.steps.first()?;
        let windows = self.timeline.windows();
        let spectra: Vec<(usize, String, InWindow)> = windows
            .iter()
            .map(|w| {
                (
                    w,
                    InWindow::of(self.run.evidence, self.timeline, &first.name, w),
                )
            })
            .filter(|(_, found)| !found.latency.is_empty())
            .enumerate()
            .map(|(n, (window, found))| (n, window.name.clone(), found))
            .collect();
        let all = || {
            spectra
                .iter()
                .flat_map(|(_, _, f)| f.latency.iter().chain(&f.service))
        };
        let (low, high) = (*all().min()? as f64 / 1e6, *all().max()? as f64 / 1e6);
        let axis = Axis::of_percentiles();
        let mut plot = Plot::new(&axis, 240.0, Scale::log(low.max(0.1), high), Unit::Ms);
        let mut legend = Vec::new();
        for (n, name, found) in &spectra {
            let class = format!("w{}", n % 6);
            plot.line(&format!("{class} dashed"), spectrum_points(&found.service));
            plot.line(&class, spectrum_points(&found.latency));
            let p99 = measure::known_quantile(&found.latency, 0.99);
            let p99 = p99.map_or(String::new(), |ns| {
                format!("p99 {}, ", numbers::duration(ns))
            });
            let p99 = format!("{p99}n {}", found.latency.len());
            legend.push(Legend::new(&class, name, p99));
        }
        legend.push(Legend::new(
            "k-dashed",
            "dashed: service time",
            String::new(),
        ));
        Some(Chart {
            id: "spectrum".into(),
            title: format!("Percentiles of {} by window", first.name),
            unit: "log scale; each nine is as wide as the next",
            note: "Solid: from the intended start, waiting included. Dashed: from the sending of the request. Where the two part, operations waited to be sent.".into(),
            legend,
            svg: plot.render("Latency by percentile, one line per window"),
            data: Value::Null,
        })
    }

    /// Calls per second of each link, the faulted ones first.
    pub(super) fn links(&self) -> Vec<Chart> {
        let plan = self.run.plan;
        let links = plan.system.links.iter().map(|link| &link.name);
        let faulted = |link: &str| {
            plan.faults
                .iter()
                .any(|fault| fault.effect.targets().iter().any(|t| t == link))
        };
        let mut calls = measure::calls(self.run, self.timeline, links);
        calls.sort_by_key(|c| (!faulted(&c.link.to_string()), std::cmp::Reverse(c.n)));
        calls.truncate(SMALL_CHARTS_MAX);
        let charts = calls.iter().enumerate().map(|(at, calls)| {
            let scale = Scale::linear(max_of([&calls.calls]));
            let mut plot = Plot::new(self.axis, SMALL_HEIGHT, scale, Unit::Number);
            let zero = vec![0.0; calls.calls.len()];
            plot.area("c-calls", self.timeline, &zero, &values(&calls.calls));
            plot.area("c-errors", self.timeline, &zero, &values(&calls.errors));
            plot.steps("l-calls", self.timeline, &values(&calls.calls));
            let name = calls.link.to_string();
            Chart {
                id: format!("link{at}"),
                unit: if faulted(&name) {
                    "calls/s, faulted"
                } else {
                    "calls/s"
                },
                title: name,
                note: String::new(),
                legend: vec![
                    Legend::new("c-calls", "calls", numbers::count(calls.n)),
                    Legend::new(
                        "c-errors",
                        "not answered below 500",
                        numbers::count(calls.errors_n),
                    ),
                ],
                svg: plot.render(&format!("Calls per second on {}", calls.link)),
                data: json!({"unit": "/s", "series": [
                    cursor("calls", "c-calls", &calls.calls),
                    cursor("not answered below 500", "c-errors", &calls.errors),
                ]}),
            }
        });
        charts.collect()
    }

    /// Backlogs first, then the other sampled series.
    pub(super) fn samples(&self) -> Vec<Chart> {
        let samples = measure::samples(self.run.evidence, self.timeline);
        let (backlogs, others): (Vec<_>, Vec<_>) = samples
            .into_iter()
            .partition(|(name, _)| name.starts_with("backlog:"));
        let all = backlogs
            .into_iter()
            .chain(others)
            .take(SMALL_CHARTS_MAX)
            .enumerate();
        let charts = all.map(|(at, (name, series))| {
            let top = max_of([&series]);
            let mut plot = Plot::new(self.axis, SMALL_HEIGHT, Scale::linear(top), Unit::Number);
            plot.bins_line("l-sample", self.timeline, &series);
            let last = series
                .iter()
                .flatten()
                .next_back()
                .copied()
                .unwrap_or_default();
            let (title, unit) = match name.strip_prefix("backlog:") {
                Some(backlog) => (backlog, "backlog"),
                None => (name, "sample"),
            };
            let value = format!(
                "peak {}, last {}",
                numbers::digits(top),
                numbers::digits(last)
            );
            Chart {
                id: format!("sample{at}"),
                title: title.to_owned(),
                unit,
                note: String::new(),
                legend: vec![Legend::new("l-sample", "value", value)],
                svg: plot.render(&format!("{title} over time")),
                data: json!({"unit": "", "series": [cursor(title, "l-sample", &series)]}),
            }
        });
        charts.collect()
    }
}

/// Points of a spectrum: 40 along each nine that the number of values can tell, then the largest.
fn spectrum_points(sorted: &[u64]) -> impl Iterator<Item = (f64, Option<f64>)> + '_ {
    let n = sorted.len() as f64;
    let end = svg::percentile_share(1.0 - 1.0 / n.max(2.0)).min(1.0);
    (0..=160)
        .map(move |k| f64::from(k) / 160.0 * end)
        .map(move |x| {
            let p = 1.0 - 10f64.powf(-4.0 * x);
            (x, measure::quantile(sorted, p).map(|ns| ns as f64 / 1e6))
        })
}

/// The names of the quantiles, for table heads.
pub(super) fn quantile_names() -> [&'static str; 5] {
    QUANTILES.map(|(_, name)| name)
}
