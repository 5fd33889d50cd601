//! Did a fault do anything, and did it end? Without that, nothing that held proves anything.

use crate::evidence::{Call, CallEnd, Event};
use crate::plan::fault::Down;
use crate::plan::system::Protocol;
use crate::plan::{
    FaultEffect, FaultPlan, LinkEffect, LinkName, LinkPlan, ProcessEffect, ServiceName,
};

use super::case::Gap;
use super::context::{Context, FaultSeen, Span};
use super::stats::quantile;
use super::text;

/// Connections, requests or calls that a fault must have acted on.
const BITES_MIN: u64 = 10;
/// Calls after a fault's end that must look like the baseline.
const CALLS_AFTER_MIN: usize = 20;
/// Readings of a link's statistics, one a second, at which more must have moved: what stands for calls
/// where bytes are counted and requests are not.
const READINGS_MIN: usize = 2;
/// How far back a killed service must have been at work, ns.
const SERVED_BEFORE_NS: u64 = 5_000_000_000;

/// Requests that a fault must have acted on: as many as it is about, if those are few.
fn needed(effect: &LinkEffect) -> u64 {
    match effect {
        LinkEffect::Http(fault) => fault
            .first
            .map_or(BITES_MIN, |first| BITES_MIN.min(first.into())),
        _ => BITES_MIN,
    }
}

impl Context<'_> {
    /// What is missing for a fault to have been a test: it was applied, it bit, it ended. When the
    /// property is about one `link`, the fault must have bitten there.
    pub(crate) fn fault_gaps(&self, fault: &FaultPlan, link: Option<&LinkName>) -> Vec<Gap> {
        let Some(seen) = self.faults.get(&fault.name) else {
            return vec![self.never_applied(fault)];
        };
        let mut gaps = Vec::new();
        match &fault.effect {
            FaultEffect::Link { links, effect, .. } => {
                let about: Vec<&LinkName> = match link {
                    Some(link) if links.contains(link) => vec![link],
                    _ => links.iter().collect(),
                };
                gaps.extend(self.link_bite_gap(seen, &about, effect));
                gaps.extend(self.not_ended(seen));
                gaps.extend(self.links_not_back(seen, &about));
            }
            FaultEffect::Process { services, effect } => {
                for service in services {
                    gaps.extend(self.process_bite_gap(seen, service, effect));
                }
                gaps.extend(self.not_ended(seen));
            }
        }
        gaps
    }

    fn never_applied(&self, fault: &FaultPlan) -> Gap {
        let failed = self.evidence.events.iter().find_map(|it| match &it.event {
            Event::FaultFailed { fault: name, why } if *name == fault.name => Some(why.clone()),
            _ => None,
        });
        match failed {
            Some(why) => Gap::new(
                format!("the fault `{}` could not be applied: {why}", fault.name),
                format!("repair `faults: {}`", fault.name),
            ),
            None => Gap::new(
                format!("the fault `{}` was never applied", fault.name),
                "let the run come to its end",
            ),
        }
    }

    fn not_ended(&self, seen: &FaultSeen<'_>) -> Option<Gap> {
        (!seen.lifted).then(|| {
            Gap::new(
                format!("the fault `{}` was never seen to end", seen.plan.name),
                "let the run come to its end",
            )
        })
    }

    fn link_bite_gap(
        &self,
        seen: &FaultSeen<'_>,
        links: &[&LinkName],
        effect: &LinkEffect,
    ) -> Option<Gap> {
        // Where the proxy counts nothing, everything rests on those who do.
        let gap = |link: &&LinkName| match &self.plan.toxiproxy {
            Some(_) => self.call_gaps(link).pop(),
            None => self.bypassed(link),
        };
        if let Some(gap) = links.iter().find_map(gap) {
            return Some(gap);
        }
        let used: usize = links
            .iter()
            .map(|link| self.calls_in(link, seen.on).len())
            .sum();
        let bites = match effect {
            LinkEffect::Latency { latency, .. } if used > 0 => {
                let late_ns = latency.as_nanos() as u64 / 5 * 4;
                let late = links
                    .iter()
                    .map(|link| self.late_calls(link, seen.on, late_ns));
                late.sum()
            }
            LinkEffect::Down { how: Down::Refuse } => {
                let refused = self.hurt_calls(seen, links);
                refused
                    .max(proxy_bites(seen, links))
                    .max(self.calls_kept_off(seen, links))
            }
            _ => proxy_bites(seen, links).max(self.hurt_calls(seen, links)),
        };
        let needed = needed(effect);
        if bites >= needed {
            return None;
        }
        let names: Vec<String> = links.iter().map(ToString::to_string).collect();
        let on = text::some_of(names.iter().map(String::as_str));
        let refused = matches!(effect, LinkEffect::Down { how: Down::Refuse });
        let help = if refused
            && self.plan.toxiproxy.is_none()
            && links.iter().any(|link| !self.calls(link).is_empty())
        {
            "use `down: { how: reset }`: refused connections cannot be counted".to_owned()
        } else if used == 0 {
            format!("drive load that uses {on}, or put the fault on a link that is used")
        } else {
            format!(
                "make `{}` stronger or longer, or raise `arrivals:` (it needs {needed} requests)",
                seen.plan.name
            )
        };
        Some(Gap::new(
            format!(
                "the fault `{}` did not bite: it touched {} on {on}",
                seen.plan.name,
                text::count(bites, "request")
            ),
            help,
        ))
    }

    /// Requests that were answered later than the baseline's median by `late_ns`, or given up by
    /// the caller while they were held; less what is as late without any fault.
    fn late_calls(&self, link: &LinkName, on: Span, late_ns: u64) -> u64 {
        let usual = self.calls_in(link, self.baseline);
        let mut times: Vec<u64> = usual.iter().filter_map(|call| took(call)).collect();
        times.sort_unstable();
        let bound = quantile(&times, 0.5).unwrap_or(0) + late_ns;
        let late = |call: &&&Call| match took(call) {
            Some(took) => took >= bound,
            None => call.end != CallEnd::Refused,
        };
        let during = self.calls_in(link, on);
        let count = |calls: &[&Call]| calls.iter().filter(late).count();
        // A delay that is lost in the link's own variation is late as often without the fault.
        let by_chance = (count(usual) * during.len())
            .checked_div(usual.len())
            .unwrap_or(0);
        count(during).saturating_sub(by_chance) as u64
    }

    /// Calls while the fault was on that did not come to an ordinary end: a weaker witness, for
    /// proxies that keep no statistics of their own.
    fn hurt_calls(&self, seen: &FaultSeen<'_>, links: &[&LinkName]) -> u64 {
        if !seen.bites.is_empty() {
            return 0;
        }
        let hurt = |call: &&&Call| call.end != CallEnd::Answered;
        let on_link = |link: &&LinkName| {
            let count = |calls: &[&Call]| calls.iter().filter(hurt).count();
            let (usual, during) = (
                self.calls_in(link, self.baseline),
                self.calls_in(link, seen.on),
            );
            // Callers who give up now and then do so without any fault.
            let by_chance = (count(usual) * during.len()).checked_div(usual.len());
            count(during).saturating_sub(by_chance.unwrap_or(0))
        };
        links.iter().map(on_link).sum::<usize>() as u64
    }

    /// Calls that should have entered a refused link and could not: nobody sees those themselves,
    /// but their callers were asked for them.
    fn calls_kept_off(&self, seen: &FaultSeen<'_>, links: &[&LinkName]) -> u64 {
        let kept_off = |link: &&LinkName| {
            let demand = self.demand(link);
            (demand.wanted(seen.on) - demand.attempts(seen.on) as f64).max(0.0)
        };
        links.iter().map(kept_off).sum::<f64>() as u64
    }

    /// At least 20 calls after the fault's end look like the baseline, or the link's declared probe
    /// was answered; links that do not speak http are taken at the proxy's word.
    fn links_not_back(&self, seen: &FaultSeen<'_>, links: &[&LinkName]) -> Option<Gap> {
        let probed = |link: &&&LinkName| self.plan.link(link).is_some_and(|it| it.probe.is_some());
        let silent = |link: &&&LinkName| !self.answered_its_probe(seen, link);
        if let Some(link) = links.iter().filter(probed).find(silent) {
            return Some(Gap::new(
                format!(
                    "the probe of {link} was not answered after `{}`",
                    seen.plan.name
                ),
                "look at its callee, or at the path of its `probe:`",
            ));
        }
        let counted: Vec<&&LinkName> = links
            .iter()
            .filter(|link| !self.calls_in(link, self.baseline).is_empty())
            .filter(|link| !probed(link))
            .collect();
        if counted.is_empty() {
            return None;
        }
        let after = Span::new(seen.on.to, u64::MAX);
        let good: usize = counted
            .iter()
            .map(|link| self.ordinary_calls(link, after))
            .sum();
        (good < CALLS_AFTER_MIN).then(|| {
            Gap::new(
                format!(
                    "only {} after `{}` ended look like the baseline, it takes {CALLS_AFTER_MIN}",
                    text::count(good as u64, "call"),
                    seen.plan.name
                ),
                "lengthen `phases: recovery`, or give the link a `probe:`",
            )
        })
    }

    fn answered_its_probe(&self, seen: &FaultSeen<'_>, wanted: &LinkName) -> bool {
        self.evidence.events.iter().any(|it| {
            matches!(&it.event, Event::LinkProbed { fault, link, took_ms: Some(_), .. }
                if *fault == seen.plan.name && link == wanted)
        })
    }

    /// Calls that were answered, and not much later than the baseline's slowest twentieth.
    fn ordinary_calls(&self, link: &LinkName, span: Span) -> usize {
        let mut usual: Vec<u64> = self
            .calls_in(link, self.baseline)
            .iter()
            .filter_map(|call| took(call))
            .collect();
        usual.sort_unstable();
        let bound = quantile(&usual, 0.95).unwrap_or(0) * 2 + 50_000_000;
        let ordinary = |call: &&&Call| {
            call.status.is_none_or(|status| status < 500)
                && took(call).is_some_and(|took| took <= bound)
        };
        self.calls_in(link, span).iter().filter(ordinary).count()
    }

    fn process_bite_gap(
        &self,
        seen: &FaultSeen<'_>,
        service: &ServiceName,
        effect: &ProcessEffect,
    ) -> Option<Gap> {
        match effect {
            ProcessEffect::Pause => self.pause_gap(seen, service),
            _ => self.restart_gap(seen, service),
        }
    }

    fn calls_to(&self, service: &ServiceName, span: Span) -> impl Iterator<Item = &Call> {
        let links = self.plan.system.links.iter();
        links
            .filter(move |link| link.service == *service)
            .flat_map(move |link| self.calls_in(&link.name, span).iter().copied())
    }

    /// Readings within a stretch at which more had moved, than at the one before, on links to a service
    /// that count bytes alone.
    fn busy_readings(
        &self,
        service: &ServiceName,
        span: Span,
        moved: impl Fn(&LinkCounts) -> u64,
    ) -> usize {
        let links = self.plan.system.links.iter();
        let links = links.filter(|link| link.service == *service && counts_bytes(link));
        let busy = |link: &LinkPlan| {
            let readings = self
                .evidence
                .events
                .iter()
                .filter(|it| span.holds(it.at_ns));
            let readings = readings.filter_map(|it| LinkCounts::of(&it.event, &link.name));
            let moved: Vec<u64> = readings.map(|it| moved(&it)).collect();
            moved.windows(2).filter(|two| two[1] > two[0]).count()
        };
        links.map(busy).sum()
    }

    /// What would have shown that a service was in use.
    fn use_it(&self, service: &ServiceName, or: &str) -> String {
        let mut links = self.plan.system.links.iter();
        let counted = links.any(|link| link.service == *service && counts_bytes(link));
        match counted && self.plan.toxiproxy.is_some() {
            true => {
                format!("run it without `--toxiproxy`: nobody else counts bytes to `{service}`")
            }
            false => format!("drive load that uses `{service}`{or}"),
        }
    }

    fn pause_gap(&self, seen: &FaultSeen<'_>, service: &ServiceName) -> Option<Gap> {
        // It answers from when its end is asked for, a little before that is confirmed.
        let unanswered = |call: &&Call| call.first_byte_ns.is_none_or(|at| at >= seen.lift_asked);
        let held = self.calls_to(service, seen.on).filter(unanswered).count() as u64;
        let frozen = Span::new(seen.on.from, seen.lift_asked);
        let sent = |it: &LinkCounts| it.connections + it.request_bytes;
        let bit = held >= BITES_MIN || self.busy_readings(service, frozen, sent) >= READINGS_MIN;
        (!bit).then(|| {
            Gap::new(
                format!(
                    "the fault `{}` did not bite: {} to `{service}` went unanswered meanwhile",
                    seen.plan.name,
                    text::count(held, "call")
                ),
                self.use_it(service, ", or pause it for longer"),
            )
        })
    }

    fn restart_gap(&self, seen: &FaultSeen<'_>, service: &ServiceName) -> Option<Gap> {
        let gap = |why: String, help: String| {
            Some(Gap::new(
                format!("the fault `{}` did not bite: {why}", seen.plan.name),
                help,
            ))
        };
        let Some(old) = self.exit_by_us(seen, service) else {
            return gap(
                format!("`{service}` was never seen to end"),
                "let the run come to its end".into(),
            );
        };
        if !self.ready_again(service, old, seen.asked) {
            return gap(
                format!("`{service}` was never ready again"),
                format!("look at the log of `{service}`"),
            );
        }
        let before = Span::new(seen.asked.saturating_sub(SERVED_BEFORE_NS), seen.asked);
        let served = self.calls_to(service, before).count() as u64;
        let answered = |it: &LinkCounts| it.response_bytes;
        if served < BITES_MIN && self.busy_readings(service, before, answered) < READINGS_MIN {
            return gap(
                format!(
                    "`{service}` had served {} in the 5 s before",
                    text::count(served, "request")
                ),
                self.use_it(service, ""),
            );
        }
        None
    }

    fn exit_by_us(&self, seen: &FaultSeen<'_>, wanted: &ServiceName) -> Option<u32> {
        self.evidence.events.iter().find_map(|it| match &it.event {
            Event::ServiceExited {
                service,
                incarnation,
                by_us: true,
                ..
            } if service == wanted && it.at_ns >= seen.asked => Some(*incarnation),
            _ => None,
        })
    }

    fn ready_again(&self, wanted: &ServiceName, old: u32, since: u64) -> bool {
        self.evidence.events.iter().any(|it| {
            it.at_ns >= since
                && matches!(&it.event, Event::ServiceReady { service, incarnation, .. }
                    if service == wanted && *incarnation > old)
        })
    }
}

/// Whether a link's requests are not told apart.
fn counts_bytes(link: &LinkPlan) -> bool {
    link.protocol != Protocol::Http
}

/// A reading of a link's statistics.
struct LinkCounts {
    connections: u64,
    request_bytes: u64,
    response_bytes: u64,
}

impl LinkCounts {
    fn of(event: &Event, wanted: &LinkName) -> Option<Self> {
        match event {
            Event::LinkStats {
                link,
                connections,
                request_bytes,
                response_bytes,
                ..
            } if link == wanted => Some(Self {
                connections: *connections,
                request_bytes: *request_bytes,
                response_bytes: *response_bytes,
            }),
            _ => None,
        }
    }
}

/// What the proxy counted on these links; its sum when it did not tell links apart.
fn proxy_bites(seen: &FaultSeen<'_>, links: &[&LinkName]) -> u64 {
    let about = |link: &Option<LinkName>| link.as_ref().is_none_or(|link| links.contains(&link));
    let one =
        |bite: &crate::evidence::events::Bite| bite.requests.max(bite.connections).max(bite.closed);
    seen.bites
        .iter()
        .filter(|it| about(&it.link))
        .map(one)
        .sum()
}

/// How long an answer took to begin, ns; none when there was none.
pub(crate) fn took(call: &Call) -> Option<u64> {
    let first = call.first_byte_ns?;
    Some(first.saturating_sub(call.at_ns))
}
