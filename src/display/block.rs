//! The block that redraws itself: where the run is, how the load does, what is broken.

use super::lines::rates;
use super::state::{Seconds, State};
use super::text::{Style, Tone, cut, seconds};
use crate::evidence::Phase;

/// Columns of the bar that shows how far the load is.
const BAR: usize = 24;

/// The lines of the block at an instant of the run clock, none wider than `width`.
pub(super) fn lines(state: &State, style: Style, width: usize, at_ns: u64) -> Vec<String> {
    let mut lines = vec![style.paint(Tone::Strong, &cut(&where_it_is(state, at_ns), width))];
    if let Some(second) = &state.last {
        let mut last = Seconds::default();
        last.add(second);
        lines.push(cut(&format!("  last 1s   {}", rates(&last)), width));
    }
    let since = |at: u64| seconds(at_ns.saturating_sub(at) as f64 / 1e9);
    for (fault, on_ns) in &state.active {
        let lifts = state
            .plan
            .fault(fault)
            .and_then(|fault| state.lifts_at_ns(fault));
        let left = lifts.map_or(String::new(), |at| {
            format!(
                ", lifts in {}",
                seconds(at.saturating_sub(at_ns) as f64 / 1e9)
            )
        });
        let text = format!("  fault     {fault} on for {}{left}", since(*on_ns));
        lines.push(style.paint(Tone::Doubt, &cut(&text, width)));
    }
    for (link, (breaker, at)) in &state.breakers {
        let text = format!("  breaker   {link} {breaker} for {}", since(*at));
        lines.push(style.paint(Tone::Bad, &cut(&text, width)));
    }
    lines
}

fn where_it_is(state: &State, at_ns: u64) -> String {
    let phase = state.phase.map_or("starting", Phase::name);
    let phase = if state.stopping { "stopping" } else { phase };
    let in_phase = at_ns.saturating_sub(state.phase_at_ns);
    let planned = state.phase_planned.as_nanos() as u64;
    let time = if planned > in_phase {
        format!("{} left", seconds((planned - in_phase) as f64 / 1e9))
    } else {
        format!("for {}", seconds(in_phase as f64 / 1e9))
    };
    let load_end = state.plan.phases.load_end;
    match state.load_left(at_ns) {
        Some(left) if !left.is_zero() && !load_end.is_zero() => {
            let share = 1.0 - left.as_secs_f64() / load_end.as_secs_f64();
            let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
            let bar = "━".repeat(full) + &"╌".repeat(BAR - full);
            let end = seconds(left.as_secs_f64());
            format!("  {phase:<9} {bar} {time}, load ends in {end}")
        }
        _ if state.phase == Some(Phase::Boot) => {
            let services = state.plan.system.services.len();
            format!(
                "  {phase:<9} {} of {services} services ready, {time}",
                state.ready.len()
            )
        }
        _ => format!("  {phase:<9} {time}"),
    }
}
