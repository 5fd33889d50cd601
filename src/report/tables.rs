//! The tables of the report: windows, honesty, process events. Plain texts; the template
//! escapes them.

use super::Run;
use super::measure::{InWindow, OUTCOMES, QUANTILES, known_quantile};
use super::numbers;
use super::timeline::{Span, Timeline};
use crate::evidence::events::LoadSummary;
use crate::evidence::{Event, Stamped};
use crate::plan::quantity::duration_text;
use crate::plan::{LoadModel, OperationName};

/// Most rows of the list of events; the rest is counted.
const EVENTS_MAX: usize = 300;

/// Parts of the baseline whose spread is its noise.
const NOISE_PARTS: usize = 5;

/// A cell of the window table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) head: &'static str,
    pub(super) text: String,
    /// What it is compared to the baseline, or empty: `×28`. In the baseline, its noise: `31 ms to 38 ms`.
    pub(super) delta: String,
    /// Whether that is markedly worse.
    pub(super) worse: bool,
}

/// A row of the window table: one window.
#[derive(Clone, Debug)]
pub(super) struct WindowRow {
    pub(super) window: String,
    pub(super) when: String,
    pub(super) cells: Vec<Cell>,
}

/// The window table of one operation.
#[derive(Clone, Debug)]
pub(super) struct WindowTable {
    pub(super) operation: String,
    pub(super) rows: Vec<WindowRow>,
}

/// Baseline, each fault, recovery, for every operation that was seen.
pub(super) fn windows(run: &Run<'_>, timeline: &Timeline) -> Vec<WindowTable> {
    let windows = timeline.windows();
    let steps = run
        .plan
        .load
        .journeys
        .iter()
        .flat_map(|journey| &journey.steps);
    steps
        .filter(|step| run.evidence.operations.iter().any(|o| o.op == step.name))
        .map(|step| WindowTable {
            operation: step.name.to_string(),
            rows: window_rows(run, timeline, &windows, &step.name),
        })
        .collect()
}

fn window_rows(
    run: &Run<'_>,
    timeline: &Timeline,
    windows: &[Span],
    name: &OperationName,
) -> Vec<WindowRow> {
    let of = |window: &Span| InWindow::of(run.evidence, timeline, name, window);
    let baseline = windows
        .iter()
        .find(|window| window.name == "baseline")
        .map(|window| Baseline {
            found: of(window),
            noise: noise(&window.parts::<NOISE_PARTS>().map(|part| of(&part).latency)),
        });
    windows
        .iter()
        .map(|window| {
            let is_base = window.name == "baseline";
            let (from, to) = (
                timeline.offset_s(window.from_ns),
                timeline.offset_s(window.to_ns),
            );
            WindowRow {
                window: window.name.clone(),
                when: format!("{} to {}", numbers::offset(from), numbers::offset(to)),
                cells: cells(window.seconds(), &of(window), baseline.as_ref(), is_base),
            }
        })
        .collect()
}

/// What other windows are compared with.
struct Baseline {
    found: InWindow,
    noise: Noise,
}

/// The lowest and the highest of the parts, for each of [`QUANTILES`]; none where a part is too small to
/// know it.
type Noise = [Option<(u64, u64)>; QUANTILES.len()];

/// The noise of the latencies of these parts, each sorted.
fn noise(parts: &[Vec<u64>]) -> Noise {
    QUANTILES.map(|(q, _)| {
        let known: Option<Vec<u64>> = parts.iter().map(|it| known_quantile(it, q)).collect();
        let known = known?;
        Some((*known.iter().min()?, *known.iter().max()?))
    })
}

/// Whether a percentile is markedly above the baseline's: out of its noise and half as much again; where its
/// noise is not known, by 50 ms too.
fn is_worse(value: u64, base: u64, noise: Option<(u64, u64)>) -> bool {
    let least = match noise {
        Some((_, highest)) => highest,
        None => base + 50_000_000,
    };
    value > least && value > base + base / 2
}

/// What the baseline's own percentile differs by: `31 ms to 38 ms`.
fn noise_text(noise: Option<(u64, u64)>) -> String {
    noise.map_or(String::new(), |(lowest, highest)| {
        let [lowest, highest] = [lowest, highest].map(numbers::duration);
        format!("{lowest} to {highest}")
    })
}

/// What a percentile is beside the baseline's: `×28`.
fn factor_text(value: Option<u64>, base: Option<u64>) -> String {
    value.zip(base).map_or(String::new(), |(value, base)| {
        let factor = value as f64 / base.max(1) as f64;
        format!("×{}", numbers::digits((factor * 100.0).round() / 100.0))
    })
}

fn cells(seconds: f64, found: &InWindow, base: Option<&Baseline>, is_base: bool) -> Vec<Cell> {
    let share = |n: u64, found: &InWindow| n as f64 / found.n.max(1) as f64;
    let errors: Vec<String> = found
        .errors
        .iter()
        .take(3)
        .map(|(c, n)| format!("{n} × {c}"))
        .collect();
    let errors = match (found.unknown(), errors.is_empty()) {
        (0, true) => "0 %".into(),
        (n, true) => numbers::percent(share(n, found)),
        (n, false) => format!(
            "{} ({})",
            numbers::percent(share(n, found)),
            errors.join(", ")
        ),
    };
    let noise = base.map_or(Noise::default(), |base| base.noise);
    let base = base.map(|base| &base.found);
    let base_good = base.map(|base| share(base.good(), base));
    let good = share(found.good(), found);
    let mut cells = vec![
        Cell {
            head: "offered",
            text: format!("{} /s", numbers::digits(found.n as f64 / seconds)),
            delta: format!("n {}", numbers::count(found.n)),
            worse: false,
        },
        Cell {
            head: "done or accepted",
            text: format!("{} /s", numbers::digits(found.good() as f64 / seconds)),
            delta: outcome_mix(found),
            worse: base_good.is_some_and(|base| good < base * 0.9),
        },
        Cell {
            head: "errors",
            text: errors,
            delta: String::new(),
            worse: base
                .is_some_and(|b| share(found.unknown(), found) > share(b.unknown(), b) + 0.01),
        },
    ];
    cells.extend(QUANTILES.iter().zip(noise).map(|((q, head), noise)| {
        let value = known_quantile(&found.latency, *q);
        let base = base.and_then(|base| known_quantile(&base.latency, *q));
        Cell {
            head,
            text: value.map_or("–".into(), numbers::duration),
            delta: if is_base {
                noise_text(noise)
            } else {
                factor_text(value, base)
            },
            worse: value
                .zip(base)
                .is_some_and(|(value, base)| is_worse(value, base, noise)),
        }
    }));
    cells
}

/// `98 % done, 2 % refused`: only when there is more than one outcome.
fn outcome_mix(found: &InWindow) -> String {
    let parts: Vec<String> = OUTCOMES
        .iter()
        .zip(found.by_outcome)
        .filter(|(_, n)| *n > 0)
        .map(|((_, name), n)| format!("{} {name}", numbers::percent(n as f64 / found.n as f64)))
        .collect();
    if parts.len() > 1 {
        parts.join(", ")
    } else {
        String::new()
    }
}

/// A statement about how far the numbers can be trusted.
#[derive(Clone, Debug)]
pub(super) struct Honesty {
    pub(super) what: &'static str,
    pub(super) text: String,
    /// Whether it casts doubt on the numbers.
    pub(super) doubt: bool,
}

pub(super) fn honesty(run: &Run<'_>) -> Vec<Honesty> {
    let sure = |what, text: String| Honesty {
        what,
        text,
        doubt: false,
    };
    let mut rows = vec![load_model(run)];
    match run
        .evidence
        .events
        .iter()
        .find_map(|stamped| match &stamped.event {
            Event::LoadFinished(summary) => Some(summary),
            _ => None,
        }) {
        Some(summary) => rows.extend(generator(summary)),
        None => rows.push(Honesty {
            what: "conservation",
            text: "the load did not finish, so tickets cannot be accounted for".into(),
            doubt: true,
        }),
    }
    for stamped in &run.evidence.events {
        match &stamped.event {
            Event::ProxyReady { version, embedded } => {
                let whose = if *embedded {
                    "embedded engine"
                } else {
                    "external Toxiproxy"
                };
                rows.push(sure("proxy", format!("{whose}, {version}")));
            }
            Event::RunStarted {
                chaos_version,
                boot_id,
                ..
            } => {
                rows.push(sure("version", format!("chaos {chaos_version}")));
                rows.push(sure(
                    "clock",
                    format!(
                        "CLOCK_MONOTONIC of one kernel (boot {boot_id}), ns from the run's start"
                    ),
                ));
            }
            _ => {}
        }
    }
    rows.extend(run.evidence.damage.iter().map(|damage| Honesty {
        what: "damage",
        text: format!(
            "{} left out of {}, the first at line {}: {}",
            numbers::counted(damage.lines as usize, "line", "lines"),
            damage.file,
            damage.first_line,
            damage.why
        ),
        doubt: true,
    }));
    rows.push(sure("seed", run.plan.seed.to_string()));
    rows
}

fn load_model(run: &Run<'_>) -> Honesty {
    let load = &run.plan.load;
    let (what, doubt) = ("load model", false);
    match &load.model {
        LoadModel::Open(arrivals) => {
            let rates = || {
                arrivals
                    .segments
                    .iter()
                    .flat_map(|s| [s.from_per_s, s.to_per_s])
            };
            let (low, high) = (
                rates().fold(f64::MAX, f64::min),
                rates().fold(0.0, f64::max),
            );
            let rate = if high > low {
                format!("{} to {}", numbers::digits(low), numbers::digits(high))
            } else {
                numbers::digits(high)
            };
            let kind = if arrivals.poisson {
                "seeded Poisson arrivals"
            } else {
                "evenly spaced"
            };
            let (fewest, most) = load.requests_per_s;
            let requests = if fewest < most {
                format!("{} to {}", numbers::digits(fewest), numbers::digits(most))
            } else {
                numbers::digits(most)
            };
            let text = format!(
                "open: {rate} journeys/s, {requests} requests/s, {kind}; a stall of the system does not slow it down"
            );
            Honesty { what, text, doubt }
        }
        LoadModel::Closed { users, think } => Honesty {
            what,
            text: format!(
                "closed: {users} users, {} pause; under-counts stalls",
                duration_text(*think)
            ),
            doubt: true,
        },
    }
}

fn generator(summary: &LoadSummary) -> Vec<Honesty> {
    let LoadSummary {
        issued,
        completed,
        failed,
        dropped,
        ..
    } = *summary;
    let [i, c, f, d] = [issued, completed, failed, dropped].map(numbers::count);
    let holds = issued == completed + failed + dropped;
    let sign = if holds { "=" } else { "≠" };
    let lag = |us: u64| numbers::duration(us.saturating_mul(1000));
    let cpu = numbers::percent(summary.cpu_s / summary.wall_s.max(1e-9));
    vec![
        Honesty {
            what: "conservation",
            text: format!("{i} issued {sign} {c} completed + {f} failed + {d} dropped"),
            doubt: !holds,
        },
        Honesty {
            what: "dropped tickets",
            text: format!("{d}; at most {} users busy at once", summary.users_busy_max),
            doubt: dropped > 0,
        },
        Honesty {
            what: "send lag",
            text: format!(
                "p99 {}, largest {} from due to sent",
                lag(summary.send_lag_p99_us),
                lag(summary.send_lag_max_us)
            ),
            doubt: summary.send_lag_p99_us > 5_000,
        },
        Honesty {
            what: "worker CPU",
            text: format!(
                "{cpu} of one core for {} requests",
                numbers::count(summary.requests)
            ),
            doubt: summary.cpu_s > 0.9 * summary.wall_s,
        },
    ]
}

/// What the run says nothing about.
pub(super) fn not_exercised(run: &Run<'_>, timeline: &Timeline) -> Vec<String> {
    let mut texts = Vec::new();
    for fault in &timeline.faults {
        let bit = |b: &crate::evidence::events::Bite| {
            b.requests + b.closed + b.bytes_dropped + b.bytes_delayed
        };
        let touched: u64 = fault.bites.iter().map(bit).sum();
        if !fault.bites.is_empty() && touched == 0 {
            texts.push(format!("fault {} bit nothing", fault.fault));
        }
    }
    let steps = run
        .plan
        .load
        .journeys
        .iter()
        .flat_map(|journey| &journey.steps);
    for step in steps {
        if !run
            .evidence
            .operations
            .iter()
            .any(|operation| operation.op == step.name)
        {
            texts.push(format!("operation {} never ran", step.name));
        }
    }
    let calls = run.evidence.calls_by_link(run.plan);
    if !calls.is_empty() {
        let http = run.plan.system.links.iter();
        let http = http.filter(|link| link.protocol == crate::plan::system::Protocol::Http);
        for link in http {
            if !calls.contains_key(&link.name) {
                texts.push(format!("link {} saw no call", link.name));
            }
        }
    }
    texts
}

/// How the reading of a source went.
#[derive(Clone, Debug)]
pub(super) struct SourceRow {
    pub(super) name: String,
    pub(super) rows: String,
    pub(super) problem: String,
}

pub(super) fn sources(run: &Run<'_>) -> Vec<SourceRow> {
    let sources = run.evidence.sources.iter();
    sources
        .map(|(name, state)| {
            let lost =
                (state.lost > 0).then(|| format!("{} rows lost", numbers::count(state.lost)));
            let problem: Vec<String> = lost.into_iter().chain(state.error.clone()).collect();
            SourceRow {
                name: name.to_string(),
                rows: numbers::count(state.rows),
                problem: problem.join("; "),
            }
        })
        .collect()
}

/// A line of the list of events.
#[derive(Clone, Debug)]
pub(super) struct EventRow {
    pub(super) at: String,
    pub(super) what: &'static str,
    pub(super) text: String,
    /// `bad`, `doubt` or nothing.
    pub(super) class: &'static str,
    /// The last lines of a service that ended by itself.
    pub(super) log: Vec<String>,
}

/// What happened to processes and faults, and how many lines more there are.
pub(super) fn events(run: &Run<'_>, timeline: &Timeline) -> (Vec<EventRow>, usize) {
    let rows = run
        .evidence
        .events
        .iter()
        .filter_map(|stamped| event_row(timeline, stamped));
    let mut rows: Vec<EventRow> = rows.collect();
    let more = rows.len().saturating_sub(EVENTS_MAX);
    rows.truncate(EVENTS_MAX);
    (rows, more)
}

fn event_row(timeline: &Timeline, stamped: &Stamped) -> Option<EventRow> {
    let mut log = Vec::new();
    let (what, class, text) = match &stamped.event {
        Event::PhaseStarted { phase, .. } => ("phase", "", phase.name().to_owned()),
        Event::ServiceSpawned {
            service,
            pid,
            incarnation,
        } => (
            "started",
            "",
            format!("{service}, pid {pid}, start {incarnation}"),
        ),
        Event::ServiceReady {
            service, took_ms, ..
        } => ("ready", "", format!("{service} after {took_ms} ms")),
        Event::ServiceExited {
            service,
            code,
            signal,
            by_us,
            log_tail,
            ..
        } => {
            let how = match (code, signal) {
                (_, Some(signal)) => format!("signal {signal}"),
                (Some(code), None) => format!("exit code {code}"),
                (None, None) => "unknown status".into(),
            };
            log.clone_from(log_tail);
            let (class, whose) = if *by_us {
                ("", "the run")
            } else {
                ("bad", "itself")
            };
            ("ended", class, format!("{service} by {whose}, {how}"))
        }
        Event::FaultApplied { fault, detail, .. } => {
            ("fault on", "doubt", format!("{fault}: {detail}"))
        }
        Event::FaultLifted { fault, .. } => ("fault off", "", fault.to_string()),
        Event::LinkProbed {
            fault,
            link,
            took_ms,
            detail,
        } => match took_ms {
            Some(ms) => (
                "probe",
                "",
                format!("{link} answered {ms} ms after {fault}: {detail}"),
            ),
            None => (
                "probe",
                "doubt",
                format!("{link} did not answer after {fault}: {detail}"),
            ),
        },
        Event::FaultFailed { fault, why } => ("fault", "bad", format!("{fault} failed: {why}")),
        Event::SetupFinished { requests, took_ms } => {
            ("setup", "", format!("{requests} requests in {took_ms} ms"))
        }
        Event::DrainEnded {
            drained: true,
            took_ms,
            ..
        } => (
            "drained",
            "",
            format!("after {}", numbers::seconds(*took_ms as f64 / 1e3)),
        ),
        Event::DrainEnded { left, unread, .. } => {
            let left = left.iter().map(|(name, n)| format!("{name} still {n}"));
            let unread = unread
                .iter()
                .map(|(name, why)| format!("{name} unread: {why}"));
            (
                "drain",
                "doubt",
                left.chain(unread).collect::<Vec<_>>().join(", "),
            )
        }
        Event::SourceRead {
            source,
            rows,
            error: Some(error),
            ..
        } => (
            "evidence",
            "doubt",
            format!("{source} ended at row {rows}: {error}"),
        ),
        Event::Note { text } => ("note", "", text.clone()),
        Event::Stopping { why, .. } => ("stopping", "doubt", why.clone()),
        Event::TeardownFinished { left, .. } if !left.is_empty() => (
            "teardown",
            "bad",
            format!("left behind: {}", left.join(", ")),
        ),
        _ => return None,
    };
    let at = numbers::offset(timeline.offset_s(stamped.at_ns));
    Some(EventRow {
        at,
        what,
        text,
        class,
        log,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_what_the_parts_of_the_baseline_differ_by() {
        let part = |from: u64| (from..from + 60).collect::<Vec<_>>();
        let [p50, p90, p99, ..] = noise(&[part(100), part(120), part(110)]);
        assert_eq!(p50, Some((129, 149)));
        assert_eq!(p90, Some((153, 173)));
        assert_eq!(p99, None, "fewer than five lie beyond it");
        assert_eq!(noise(&[part(100), Vec::new()])[0], None);
        assert_eq!(noise(&[]), Noise::default());
    }

    #[test]
    fn what_lies_within_the_noise_is_not_worse() {
        const MS: u64 = 1_000_000;
        for (value, noise, expected) in [
            (29 * MS, Some((10 * MS, 30 * MS)), false),
            (31 * MS, Some((10 * MS, 30 * MS)), true),
            (31 * MS, Some((19 * MS, 21 * MS)), true),
            (29 * MS, Some((19 * MS, 21 * MS)), false),
            (69 * MS, None, false),
            (71 * MS, None, true),
        ] {
            assert_eq!(
                is_worse(value, 20 * MS, noise),
                expected,
                "{value} {noise:?}"
            );
        }
    }
}
