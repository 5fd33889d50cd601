//! What is said of an event: at most a few lines, most events none.

use std::time::Duration;

use super::Options;
use super::state::{Seconds, State};
use super::text::{self, Style, Tone, latency, planned, seconds};
use crate::evidence::events::{Bite, LoadSummary};
use crate::evidence::{Event, Phase, Stamped};
use crate::plan::fault::Down;
use crate::plan::quantity::share_text;
use crate::plan::{FaultEffect, FaultName, FaultPlan, LinkEffect, ProcessEffect};

/// Columns before the text of a line: two blanks, the label, blanks.
const INDENT: usize = 12;

/// A line: a label on the left, a text that wraps beside it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    label: &'static str,
    text: String,
    tone: Tone,
}

impl Line {
    fn new(label: &'static str, text: impl Into<String>) -> Self {
        let (text, tone) = (text.into(), Tone::Plain);
        Self { label, text, tone }
    }

    fn toned(label: &'static str, tone: Tone, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { label, text, tone }
    }

    pub(super) fn render(&self, style: Style, width: usize) -> Vec<String> {
        let heading = self.label == HEADING;
        let indent = if heading { 0 } else { INDENT };
        let mut lines = Vec::new();
        for (at, text) in text::wrap(&self.text, width.saturating_sub(indent))
            .iter()
            .enumerate()
        {
            let label = if at == 0 && !heading { self.label } else { "" };
            let text = style.paint(self.tone, text);
            if heading {
                lines.push(text);
            } else {
                let label = style.paint(Tone::Strong, &format!("{label:<9}"));
                lines.push(format!("  {label} {text}"));
            }
        }
        lines
    }
}

const HEADING: &str = "heading";

/// The lines of an event; `state` is what was known before it.
pub(super) fn of(state: &State, options: &Options, stamped: &Stamped) -> Vec<Line> {
    let line = match &stamped.event {
        Event::RunStarted { .. } => Some(heading(state, options)),
        Event::PhaseStarted { phase, planned_ms } => {
            return phase_lines(
                state,
                *phase,
                Duration::from_millis(*planned_ms),
                stamped.at_ns,
            );
        }
        Event::ServiceExited { by_us: false, .. } => return exited(&stamped.event),
        Event::FaultApplied {
            fault,
            asked_ns,
            confirmed_ns,
            detail,
        } => {
            let took_ms = confirmed_ns.saturating_sub(*asked_ns) / 1_000_000;
            applied(state, fault, took_ms, detail, stamped.at_ns)
        }
        Event::FaultLifted {
            fault,
            confirmed_ns,
            bites,
            ..
        } => Some(lifted(state, fault, *confirmed_ns, bites)),
        Event::LinkProbed {
            fault,
            link,
            took_ms: None,
            detail,
        } => Some(Line::toned(
            "probe",
            Tone::Doubt,
            format!("{link} did not answer after {fault}: {detail}"),
        )),
        Event::FaultFailed { fault, why } => Some(Line::toned(
            "fault",
            Tone::Bad,
            format!("{fault} failed: {why}"),
        )),
        Event::ServiceReady {
            service,
            incarnation,
            took_ms,
        } if *incarnation > 1 => Some(Line::new(
            "ready",
            format!("{service} again after {took_ms}ms (start {incarnation})"),
        )),
        Event::DrainEnded {
            drained,
            left,
            unread,
            took_ms,
        } => {
            let left = left.iter().map(|(name, n)| format!("{name} still {n}"));
            let unread = unread
                .iter()
                .map(|(name, why)| format!("{name} unread: {why}"));
            let rest: Vec<String> = left.chain(unread).collect();
            let took = seconds(*took_ms as f64 / 1e3);
            Some(if *drained {
                Line::new("drained", format!("after {took}"))
            } else {
                let text = format!("not within {took}: {}", rest.join(", "));
                Line::toned("drain", Tone::Doubt, text)
            })
        }
        Event::SourceRead {
            source,
            rows,
            error: Some(error),
            ..
        } => Some(Line::toned(
            "evidence",
            Tone::Doubt,
            format!("`{source}` ended at row {rows}: {error}"),
        )),
        Event::LoadFinished(summary) => Some(load_finished(summary)),
        Event::Note { text } => Some(Line::toned("note", Tone::Faint, text.as_str())),
        Event::Stopping { why, .. } => Some(Line::toned("stopping", Tone::Doubt, why.as_str())),
        Event::TeardownFinished { left, .. } if !left.is_empty() => Some(Line::toned(
            "teardown",
            Tone::Bad,
            format!("left behind: {}", left.join(", ")),
        )),
        Event::ServiceSpawned { service, pid, .. } if options.verbose => Some(Line::toned(
            "spawned",
            Tone::Faint,
            format!("{service} as pid {pid}"),
        )),
        Event::LinkCreated {
            link,
            listen,
            upstream,
        } if options.verbose => Some(Line::toned(
            "link",
            Tone::Faint,
            format!("{link}: {listen} to {upstream}"),
        )),
        _ => None,
    };
    line.into_iter().collect()
}

fn heading(state: &State, options: &Options) -> Line {
    let plan = &state.plan;
    let mut lasts = planned(plan.phases.load_end);
    if !plan.phases.drain_within.is_zero() {
        lasts += &format!(" + drain ≤ {}", planned(plan.phases.drain_within));
    }
    let text = format!(
        "{}  seed {}  {lasts}  {}",
        plan.name, plan.seed, options.run_folder
    );
    Line::toned(HEADING, Tone::Strong, text)
}

fn phase_lines(state: &State, phase: Phase, length: Duration, at_ns: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    if state.phase == Some(Phase::Boot) && !matches!(phase, Phase::Boot | Phase::Teardown) {
        let took = at_ns.saturating_sub(state.boot_at_ns.unwrap_or(at_ns)) as f64 / 1e9;
        let services = text::count(state.ready.len(), "service");
        let links = text::count(state.links, "link");
        lines.push(Line::new(
            "boot",
            format!("{services}, {links} ready in {}", seconds(took)),
        ));
    }
    let text = match phase {
        Phase::Boot | Phase::Collect | Phase::Teardown | Phase::Faults => return lines,
        Phase::Drain if length.is_zero() => return lines,
        Phase::Drain => format!("up to {}", planned(length)),
        _ if length.is_zero() => String::new(),
        _ => planned(length),
    };
    lines.push(Line::new(phase.name(), text));
    lines
}

fn applied(state: &State, name: &FaultName, took_ms: u64, detail: &str, now: u64) -> Option<Line> {
    let fault = state.plan.fault(name)?;
    let left = |until_ns: u64| seconds(until_ns.saturating_sub(now) as f64 / 1e9);
    let mut text = format!(
        "{name} on {}: {}",
        fault.effect.targets().join(", "),
        effect(fault)
    );
    text += &format!("; on after {took_ms}ms ({detail})");
    if let Some(at) = state.lifts_at_ns(fault) {
        text += &format!("; lifts in {}", left(at));
    }
    if let Some(end) = state.load_left(now) {
        text += &format!(", load ends in {}", seconds(end.as_secs_f64()));
    }
    Some(Line::toned("fault", Tone::Doubt, text))
}

/// What a fault does, in a few words.
fn effect(fault: &FaultPlan) -> String {
    let (direction, effect) = match &fault.effect {
        FaultEffect::Link {
            direction, effect, ..
        } => (*direction, effect),
        FaultEffect::Process { effect, .. } => return process_effect(effect),
    };
    let what = match direction {
        crate::plan::Direction::Request => "requests",
        crate::plan::Direction::Response => "replies",
        crate::plan::Direction::Both => "requests and replies",
    };
    match effect {
        LinkEffect::Latency { latency, .. } => format!("{what} {} late", planned(*latency)),
        LinkEffect::Stall => format!("{what} held"),
        LinkEffect::Blackhole => format!("{what} dropped"),
        LinkEffect::Bandwidth { bytes_per_s } => format!("{what} at {bytes_per_s} bytes/s"),
        LinkEffect::SlowClose { delay } => format!("closed {} late", planned(*delay)),
        LinkEffect::ResetPeer { after } => format!("reset after {}", planned(*after)),
        LinkEffect::Slicer { average_size, .. } => {
            format!("{what} in pieces of {average_size} bytes")
        }
        LinkEffect::LimitData { bytes } => format!("{what} cut after {bytes} bytes"),
        LinkEffect::Reset => "connections reset".into(),
        LinkEffect::SlowOpen { delay } => format!("connections opened {} late", planned(*delay)),
        LinkEffect::LimitTime { after } => format!("connections closed after {}", planned(*after)),
        LinkEffect::Corrupt { .. } => format!("bits of {what} flipped"),
        LinkEffect::Loss { share, .. } => {
            format!(
                "{} of segments of {what} lost and sent again",
                share_text(*share)
            )
        }
        LinkEffect::Http(fault) => fault.words(),
        LinkEffect::Down { how: Down::Refuse } => "connections refused".into(),
        LinkEffect::Down { how: Down::Reset } => "connections reset when they ask".into(),
        LinkEffect::Toxic { kind, .. } => format!("toxic {kind} on {what}"),
    }
}

fn process_effect(effect: &ProcessEffect) -> String {
    match effect {
        ProcessEffect::Kill { down_for } => format!("killed, down for {}", planned(*down_for)),
        ProcessEffect::Stop => "stopped".into(),
        ProcessEffect::Pause => "paused".into(),
        ProcessEffect::Restart { signal, down_for } => {
            format!("restarted by {signal}, down for {}", planned(*down_for))
        }
    }
}

fn lifted(state: &State, fault: &FaultName, confirmed_ns: u64, bites: &[Bite]) -> Line {
    let lasted = state.active.get(fault).map_or(String::new(), |on| {
        format!(
            " after {}",
            seconds(confirmed_ns.saturating_sub(*on) as f64 / 1e9)
        )
    });
    let total = |of: fn(&Bite) -> u64| bites.iter().map(of).sum::<u64>() as usize;
    let connections = text::count(total(|bite| bite.connections), "connection");
    let bit = match total(|bite| bite.requests) {
        _ if bites.is_empty() => String::new(),
        // Of bytes, or of nobody.
        0 => format!("; it bit {connections}"),
        n => format!("; it bit {} on {connections}", text::count(n, "request")),
    };
    Line::toned("fault", Tone::Good, format!("{fault} lifted{lasted}{bit}"))
}

fn exited(event: &Event) -> Vec<Line> {
    let Event::ServiceExited {
        service,
        code,
        signal,
        log_tail,
        ..
    } = event
    else {
        return Vec::new();
    };
    let how = match (code, signal) {
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        (Some(code), None) => format!("exited with {code}"),
        (None, None) => "ended".into(),
    };
    let mut lines = vec![Line::toned(
        "exited",
        Tone::Bad,
        format!("{service} {how} by itself"),
    )];
    lines.extend(
        log_tail
            .iter()
            .map(|line| Line::toned("", Tone::Faint, line.as_str())),
    );
    lines
}

fn load_finished(summary: &LoadSummary) -> Line {
    let LoadSummary {
        issued,
        completed,
        failed,
        dropped,
        ..
    } = summary;
    let counts = format!(
        "{issued} tickets = {completed} completed + {failed} failed + {dropped} dropped, send lag p99 {}",
        latency(summary.send_lag_p99_us)
    );
    if issued == &(completed + failed + dropped) && *dropped == 0 {
        Line::new("load", counts)
    } else {
        Line::toned("load", Tone::Doubt, counts)
    }
}

/// The line about the seconds that no line told yet, which it takes away; none without any.
pub(super) fn load(state: &mut State) -> Option<Line> {
    let load = std::mem::take(&mut state.load);
    (load.seconds > 0).then(|| Line::new("", format!("last {}s: {}", load.seconds, rates(&load))))
}

/// `offered 40.0/s  done 40.0/s  errors 0.0%  p99 ≤ 38ms`.
pub(super) fn rates(load: &Seconds) -> String {
    let per_s = |n: u64| n as f64 / f64::from(load.seconds.max(1));
    let good = if load.accepted > 0 {
        "done+accepted"
    } else {
        "done"
    };
    let bound = if load.seconds > 1 { "≤ " } else { "" };
    let mut text = format!(
        "offered {:.1} journeys/s  {good} {:.1} operations/s  errors {:.1}%  p99 {bound}{}",
        per_s(load.offered),
        per_s(load.done + load.accepted),
        load.errors_percent(),
        latency(load.p99_us),
    );
    if load.dropped > 0 {
        text += &format!("  {} tickets dropped", load.dropped);
    }
    text
}
