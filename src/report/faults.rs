//! Faults in words, and as they happened: confirmed instants, what they bit, when they were noticed.

use super::timeline::{self, FaultSpan, Span, Timeline};
use super::{Run, numbers};
use crate::plan::fault::Down;
use crate::plan::quantity::duration_text;
use crate::plan::{Direction, FaultEffect, FaultPlan, LinkEffect, ProcessEffect};

/// What a fault does and to what: `replies dropped on payments -> psp`.
pub(super) fn fault_words(fault: &FaultPlan) -> String {
    let targets = fault.effect.targets().join(", ");
    match &fault.effect {
        FaultEffect::Process { effect, .. } => format!("{targets} {}", process_words(effect)),
        FaultEffect::Link {
            direction, effect, ..
        } => {
            format!("{} on {targets}", link_words(*direction, effect))
        }
    }
}

fn process_words(effect: &ProcessEffect) -> String {
    match effect {
        ProcessEffect::Kill { down_for } => {
            format!("killed, down for {}", duration_text(*down_for))
        }
        ProcessEffect::Stop => "stopped".into(),
        ProcessEffect::Pause => "paused".into(),
        ProcessEffect::Restart { signal, down_for } => {
            format!(
                "restarted by {signal}, down for {}",
                duration_text(*down_for)
            )
        }
    }
}

fn link_words(direction: Direction, effect: &LinkEffect) -> String {
    let what = match direction {
        Direction::Request => "requests",
        Direction::Response => "replies",
        Direction::Both => "requests and replies",
    };
    match effect {
        LinkEffect::Latency { latency, .. } => format!("{what} {} late", duration_text(*latency)),
        LinkEffect::Stall => format!("{what} held"),
        LinkEffect::Blackhole => format!("{what} dropped"),
        LinkEffect::Bandwidth { bytes_per_s } => {
            format!("{what} at {}/s", numbers::bytes(*bytes_per_s))
        }
        LinkEffect::SlowClose { delay } => format!("closes {} late", duration_text(*delay)),
        LinkEffect::ResetPeer { after } => {
            format!("connections reset after {}", duration_text(*after))
        }
        LinkEffect::Slicer { average_size, .. } => {
            format!("{what} in pieces of {}", numbers::bytes(*average_size))
        }
        LinkEffect::LimitData { bytes } => {
            format!("{what} cut after {}", numbers::bytes(*bytes))
        }
        LinkEffect::Reset => "connections reset".into(),
        LinkEffect::SlowOpen { delay } => {
            format!("connections opened {} late", duration_text(*delay))
        }
        LinkEffect::LimitTime { after } => {
            format!("connections closed after {}", duration_text(*after))
        }
        LinkEffect::Corrupt { .. } => format!("bits of {what} flipped"),
        LinkEffect::Loss { share, .. } => {
            format!(
                "{} of segments of {what} lost and sent again",
                numbers::percent(*share)
            )
        }
        LinkEffect::Http(fault) => fault.words(),
        LinkEffect::Down { how: Down::Refuse } => "connections refused".into(),
        LinkEffect::Down { how: Down::Reset } => "connections reset".into(),
        LinkEffect::Toxic { kind, toxicity, .. } => {
            format!(
                "toxic {kind} on {what} of {} of connections",
                numbers::percent(*toxicity)
            )
        }
    }
}

/// A fault as it happened.
#[derive(Clone, Debug)]
pub(super) struct FaultCard {
    pub(super) name: String,
    pub(super) what: String,
    pub(super) place: String,
    /// Term and what it came to.
    pub(super) facts: Vec<(&'static str, String)>,
}

/// Every fault that was seen, then those that never came.
pub(super) fn cards(run: &Run<'_>, timeline: &Timeline) -> Vec<FaultCard> {
    let seen = timeline
        .faults
        .iter()
        .map(|fault| fault_card(run, timeline, fault));
    let missed = run.plan.faults.iter().filter(|planned| {
        !timeline
            .faults
            .iter()
            .any(|fault| fault.fault == planned.name)
    });
    let missed = missed.map(|planned| FaultCard {
        name: planned.name.to_string(),
        what: fault_words(planned),
        place: planned.source.to_string(),
        facts: vec![("happened", "no: it was never confirmed".into())],
    });
    seen.chain(missed).collect()
}

fn fault_card(run: &Run<'_>, timeline: &Timeline, fault: &FaultSpan) -> FaultCard {
    let planned = run.plan.fault(&fault.fault);
    let at = |ns| numbers::offset(timeline.offset_s(ns));
    let Span { from_ns, to_ns, .. } = fault.span;
    let lag = |asked: u64, seen: u64| numbers::duration(seen.saturating_sub(asked));
    let mut facts = vec![(
        "on",
        format!(
            "{}, confirmed in {}: {}",
            at(from_ns),
            lag(fault.asked_ns, from_ns),
            fault.detail
        ),
    )];
    match fault.lift_asked_ns {
        Some(asked) => facts.push((
            "off",
            format!("{}, confirmed in {}", at(to_ns), lag(asked, to_ns)),
        )),
        None => facts.push(("off", "not seen to be lifted".into())),
    }
    facts.push(("lasted", numbers::seconds(fault.span.seconds())));
    for bite in &fault.bites {
        let link = bite
            .link
            .as_ref()
            .map_or(String::new(), |link| format!("{link}: "));
        facts.push((
            "bit",
            format!(
                "{link}{} requests on {} connections, {} dropped, {} delayed, {} closed",
                numbers::count(bite.requests),
                numbers::count(bite.connections),
                numbers::bytes(bite.bytes_dropped),
                numbers::bytes(bite.bytes_delayed),
                numbers::count(bite.closed),
            ),
        ));
    }
    facts.extend(detected(run, timeline, fault));
    FaultCard {
        name: fault.fault.to_string(),
        what: planned.map_or(String::new(), fault_words),
        place: planned.map_or(String::new(), |planned| planned.source.to_string()),
        facts,
    }
}

/// When the fault was first felt and noticed, and when its breakers closed again.
fn detected(run: &Run<'_>, timeline: &Timeline, fault: &FaultSpan) -> Vec<(&'static str, String)> {
    let Span { from_ns, to_ns, .. } = fault.span;
    let mut facts = Vec::new();
    let felt = run
        .evidence
        .operations
        .iter()
        .filter(|operation| fault.span.has_touched(operation) && operation.error.is_some())
        .min_by_key(|operation| operation.ended_ns);
    if let Some(first) = felt {
        let after = numbers::seconds(first.ended_ns.saturating_sub(from_ns) as f64 / 1e9);
        let error = first.error.as_deref().unwrap_or("error");
        facts.push((
            "first error",
            format!("after {after}: {error} of {}", first.op),
        ));
    }
    for (link, states) in timeline::breakers(run.plan, run.evidence, timeline) {
        let opened = states.iter().find(|claimed| {
            claimed.state == "OPEN" && (from_ns..=to_ns).contains(&claimed.from_ns)
        });
        let Some(opened) = opened else { continue };
        let after = numbers::seconds(opened.from_ns.saturating_sub(from_ns) as f64 / 1e9);
        facts.push(("detected", format!("breaker {link} opened after {after}")));
        let closed = states
            .iter()
            .find(|claimed| claimed.state == "CLOSED" && claimed.from_ns >= to_ns);
        facts.push(match closed {
            Some(closed) => {
                let after = numbers::seconds((closed.from_ns - to_ns) as f64 / 1e9);
                (
                    "recovered",
                    format!("breaker {link} closed {after} after the fault"),
                )
            }
            None => ("recovered", format!("breaker {link} was not seen to close")),
        });
    }
    facts
}
