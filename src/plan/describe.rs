//! A plan as people read it: what is started, what is driven, when what breaks, what each property
//! rests on. Pure: a value to text.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::fault::Distribution;
use super::load::LoadModel;
use super::quantity::duration_text;
use super::system::Protocol;
use super::{Direction, FaultEffect, FaultPlan, LinkEffect, LoadPlan, Plan, ProcessEffect};

/// The plan as text, a line per thing, without colour.
#[must_use]
pub fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_plan(&mut text, plan);
    text
}

fn write_plan(out: &mut String, plan: &Plan) -> fmt::Result {
    let phases = &plan.phases;
    let load_s = short(phases.load_end);
    let drain = match phases.drain_within.is_zero() {
        true => String::new(),
        false => format!(" + drain ≤ {}", short(phases.drain_within)),
    };
    writeln!(out, "{}  seed {}  {load_s}{drain}", plan.name, plan.seed)?;
    if !plan.about.is_empty() {
        writeln!(out, "  {}", plan.about)?;
    }
    write_processes(out, plan)?;
    write_links(out, plan)?;
    write_load(out, &plan.load)?;
    write_timeline(out, plan)?;
    write_properties(out, plan)?;
    write_uncounted(out, plan)
}

fn write_uncounted(out: &mut String, plan: &Plan) -> fmt::Result {
    let uncounted = plan.uncounted();
    if !uncounted.is_empty() {
        writeln!(
            out,
            "\ninconclusive through a Toxiproxy, which does not count"
        )?;
    }
    uncounted
        .iter()
        .try_for_each(|line| writeln!(out, "  {line}"))
}

fn write_processes(out: &mut String, plan: &Plan) -> fmt::Result {
    let services = &plan.system.services;
    writeln!(
        out,
        "\nprocesses  {} of {}",
        services.len(),
        plan.system_file
    )?;
    let width = widest(services.iter().map(|service| service.name.as_str()));
    for service in services {
        let argv: Vec<String> = service.command.iter().map(ToString::to_string).collect();
        let needs: Vec<&str> = service.needs.iter().map(|need| need.as_str()).collect();
        write!(out, "  {:width$}  {}", service.name, argv.join(" "))?;
        if !needs.is_empty() {
            write!(out, "  after {}", needs.join(", "))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn write_links(out: &mut String, plan: &Plan) -> fmt::Result {
    let links = &plan.system.links;
    let server = match &plan.toxiproxy {
        None => String::new(),
        Some(url) => format!(" on {url}"),
    };
    writeln!(
        out,
        "\nlinks      {}, each behind a proxy of its own{server}",
        links.len()
    )?;
    let names: Vec<String> = links.iter().map(|link| link.name.to_string()).collect();
    let width = widest(names.iter().map(String::as_str));
    for (name, link) in names.iter().zip(links) {
        let protocol = match link.protocol {
            Protocol::Http => "http",
            Protocol::Tcp => "tcp",
        };
        write!(out, "  {name:width$}  {protocol}")?;
        if let Some(breaker) = &link.breaker {
            let share = super::quantity::share_text(breaker.threshold);
            let open_for = duration_text(breaker.open_for);
            write!(
                out,
                "  breaker {share} of {}, open {open_for}",
                breaker.window
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn write_load(out: &mut String, load: &LoadPlan) -> fmt::Result {
    match &load.model {
        LoadModel::Open(arrivals) => {
            let rates = arrivals.segments.iter();
            let top = rates.fold(0.0_f64, |top, part| {
                top.max(part.from_per_s).max(part.to_per_s)
            });
            let how = if arrivals.poisson {
                "Poisson"
            } else {
                "evenly spaced"
            };
            let (fewest, most) = load.requests_per_s;
            writeln!(
                out,
                "\nload       {} journeys/s {how}, {} to {} requests/s",
                number(top),
                number(fewest),
                number(most),
            )?;
        }
        LoadModel::Closed { users, think } => {
            let think = duration_text(*think);
            writeln!(
                out,
                "\nload       {users} users in a loop, {think} between two journeys"
            )?;
            writeln!(
                out,
                "  closed model: a stalled system is asked less, so it under-counts stalls"
            )?;
        }
    }
    let (users, timeout) = (load.users_max, duration_text(load.timeout));
    writeln!(out, "  up to {users} users held ready, time-out {timeout}")?;
    let weights: f64 = load.journeys.iter().map(|journey| journey.weight).sum();
    for journey in &load.journeys {
        let steps: Vec<&str> = journey
            .steps
            .iter()
            .map(|step| step.name.as_str())
            .collect();
        let share = super::quantity::share_text(journey.weight / weights);
        writeln!(out, "  {}  {share}: {}", journey.name, steps.join(", "))?;
    }
    Ok(())
}

fn write_timeline(out: &mut String, plan: &Plan) -> fmt::Result {
    let phases = &plan.phases;
    writeln!(out, "\ntimeline   from the start of the load")?;
    let mut lines: Vec<(Duration, u8, String)> = vec![
        (Duration::ZERO, 0, "warm-up: nothing is judged".into()),
        (phases.baseline_start, 1, "baseline".into()),
        (phases.load_end, 9, "load stops, drain".into()),
    ];
    if phases.load_end > phases.recovery_start {
        lines.push((phases.recovery_start, 8, "recovery".into()));
    }
    for fault in &plan.faults {
        lines.push((
            fault.start,
            3,
            format!("{}  {}", fault.name, effect_text(fault)),
        ));
        lines.push((fault.end(), 2, format!("{}  over", fault.name)));
    }
    lines.sort_by_key(|(at, rank, _)| (*at, *rank));
    for (at, _, what) in lines {
        writeln!(out, "  {:>8}  {what}", seconds(at))?;
    }
    Ok(())
}

fn write_properties(out: &mut String, plan: &Plan) -> fmt::Result {
    writeln!(out, "\nproperties")?;
    let width = widest(
        plan.properties
            .iter()
            .map(|property| property.name.as_str()),
    );
    for property in &plan.properties {
        let kind = property.property.kind();
        writeln!(
            out,
            "  {:width$}  {kind:10}  {}",
            property.name, property.expected.arithmetic
        )?;
    }
    Ok(())
}

/// What a fault does and to what: `blackhole on payments -> psp, response`.
fn effect_text(fault: &FaultPlan) -> String {
    let targets = fault.effect.targets().join(", ");
    match &fault.effect {
        FaultEffect::Link {
            direction, effect, ..
        } => {
            let detail = link_detail(effect);
            let way = match (effect, direction) {
                (effect, _) if effect.is_undirected() => "",
                (_, Direction::Request) => ", request",
                (_, Direction::Response) => ", response",
                (_, Direction::Both) => ", both ways",
            };
            format!("{}{detail} on {targets}{way}", effect.name())
        }
        FaultEffect::Process { effect, .. } => {
            let down = match effect {
                ProcessEffect::Kill { down_for } | ProcessEffect::Restart { down_for, .. } => {
                    format!(", down for {}", duration_text(*down_for))
                }
                _ => String::new(),
            };
            format!("{} {targets}{down}", effect.name())
        }
    }
}

fn link_detail(effect: &LinkEffect) -> String {
    match effect {
        LinkEffect::Latency {
            latency, jitter, ..
        } if jitter.is_zero() => {
            format!(" {}", duration_text(*latency))
        }
        LinkEffect::Latency {
            latency,
            jitter,
            distribution,
        } => {
            let varies = match distribution {
                Distribution::Uniform => String::new(),
                other => format!(", {}", other.name()),
            };
            format!(
                " {} ± {}{varies}",
                duration_text(*latency),
                duration_text(*jitter)
            )
        }
        LinkEffect::Bandwidth { bytes_per_s } => format!(" {bytes_per_s} B/s"),
        LinkEffect::SlowClose { delay } => format!(" {}", duration_text(*delay)),
        LinkEffect::ResetPeer { after } => format!(" after {}", duration_text(*after)),
        LinkEffect::LimitData { bytes } => format!(" {bytes} B"),
        LinkEffect::SlowOpen { delay } => format!(" {}", duration_text(*delay)),
        LinkEffect::LimitTime { after } => format!(" {}", duration_text(*after)),
        LinkEffect::Corrupt { every } => format!(" one bit in about {every} B"),
        LinkEffect::Loss { share, timeout } => format!(
            " of {}, sent again after {}",
            super::quantity::share_text(*share),
            duration_text(*timeout)
        ),
        LinkEffect::Http(fault) => format!(": {}", fault.words()),
        LinkEffect::Toxic { kind, toxicity, .. } => {
            format!(
                " {kind} on {} of connections",
                super::quantity::share_text(*toxicity)
            )
        }
        _ => String::new(),
    }
}

fn widest<'n>(names: impl Iterator<Item = &'n str>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0)
}

/// `70s`, `70.3s`.
fn short(duration: Duration) -> String {
    format!("{}s", number(duration.as_secs_f64()))
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.trim_end_matches(".0").to_owned()
}
