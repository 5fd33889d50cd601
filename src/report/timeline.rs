//! The one time axis of a report: from the start of the load to the end of the drain.
//!
//! Fault windows use the confirmed instants; all charts share this axis, its bins and its marks.

use crate::evidence::events::Bite;
use crate::evidence::{Event, Evidence, Operation, Phase, Transition};
use crate::plan::{FaultName, LinkName, LinkPlan, Plan, ServiceName, SourceName};

/// Most points of a series.
pub(super) const POINTS_MAX: u64 = 1_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Widths of a bin, s: people-friendly, and merged by adding histories up, never by averaging.
const BINS_S: [u64; 12] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

/// A stretch of the run, ns on the run clock.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

impl Span {
    pub(super) fn seconds(&self) -> f64 {
        self.to_ns.saturating_sub(self.from_ns) as f64 / 1e9
    }

    /// This many parts of equal length.
    pub(super) fn parts<const N: usize>(&self) -> [Self; N] {
        let each = self.to_ns.saturating_sub(self.from_ns) / N as u64;
        std::array::from_fn(|place| {
            let from_ns = self.from_ns + each * place as u64;
            Self {
                name: self.name.clone(),
                from_ns,
                to_ns: from_ns + each,
            }
        })
    }

    /// Whether an operation belongs to this fault window: started in it, or alive at its start.
    pub(super) fn has_touched(&self, operation: &Operation) -> bool {
        operation.intended_ns < self.to_ns
            && (operation.intended_ns >= self.from_ns || operation.ended_ns > self.from_ns)
    }

    pub(super) fn has_started(&self, operation: &Operation) -> bool {
        (self.from_ns..self.to_ns).contains(&operation.intended_ns)
    }
}

/// A fault as it happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FaultSpan {
    pub(super) fault: FaultName,
    pub(super) asked_ns: u64,
    /// From confirmed on to confirmed off.
    pub(super) span: Span,
    /// When lifting it was asked for; none when that was not seen.
    pub(super) lift_asked_ns: Option<u64>,
    pub(super) detail: String,
    pub(super) bites: Vec<Bite>,
}

/// What happened to a service at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkKind {
    /// Its process ended because of a fault.
    EndedByUs,
    /// Its process ended by itself.
    EndedByItself,
    /// It is ready again.
    Ready,
}

/// An instant worth a mark.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    pub(super) at_ns: u64,
    pub(super) service: ServiceName,
    pub(super) kind: MarkKind,
}

/// The axis, and what is drawn on every chart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timeline {
    pub(super) t0_ns: u64,
    pub(super) end_ns: u64,
    pub(super) load_end_ns: u64,
    pub(super) bin_ns: u64,
    pub(super) phases: Vec<Span>,
    pub(super) faults: Vec<FaultSpan>,
    pub(super) marks: Vec<Mark>,
}

impl Timeline {
    pub(super) fn new(plan: &Plan, evidence: &Evidence) -> Self {
        let events = &evidence.events;
        let first = |pick: fn(&Event) -> bool| events.iter().find(|s| pick(&s.event));
        let t0_ns = events.iter().find_map(|stamped| match stamped.event {
            Event::LoadStarted { t0_ns } => Some(t0_ns),
            _ => None,
        });
        let last_ns = events.last().map_or(0, |last| last.at_ns);
        let t0_ns = t0_ns.unwrap_or(last_ns);
        let planned_end_ns = t0_ns + plan.phases.load_end.as_nanos() as u64;
        let load_end_ns = first(|event| matches!(event, Event::LoadFinished(_)))
            .map_or(last_ns, |finished| finished.at_ns)
            .clamp(t0_ns, planned_end_ns.max(t0_ns));
        let ended = first(|event| matches!(event, Event::DrainEnded { .. }));
        let end_ns = ended
            .map_or(load_end_ns, |ended| ended.at_ns)
            .max(load_end_ns)
            .max(t0_ns + SECOND_NS);
        let mut timeline = Self {
            t0_ns,
            end_ns,
            load_end_ns,
            bin_ns: bin_ns(end_ns - t0_ns),
            phases: phases(evidence, t0_ns, end_ns),
            faults: Vec::new(),
            marks: marks(evidence, t0_ns, end_ns),
        };
        timeline.faults = faults(plan, evidence, end_ns);
        timeline
    }

    /// How many bins the axis has.
    pub(super) fn bins(&self) -> usize {
        (self.end_ns - self.t0_ns).div_ceil(self.bin_ns) as usize
    }

    /// The bin of an instant, if it lies on the axis.
    pub(super) fn bin(&self, at_ns: u64) -> Option<usize> {
        let bin = (at_ns.checked_sub(self.t0_ns)? / self.bin_ns) as usize;
        (bin < self.bins()).then_some(bin)
    }

    /// Where an instant lies on the axis, 0 to 1; what is off the axis lies at its edge.
    pub(super) fn share(&self, at_ns: u64) -> f64 {
        let from = at_ns.clamp(self.t0_ns, self.end_ns) - self.t0_ns;
        from as f64 / self.width_ns()
    }

    /// Where a bin begins on the axis, 0 to 1.
    pub(super) fn bin_share(&self, bin: f64) -> f64 {
        (bin * self.bin_ns as f64 / self.width_ns()).min(1.0)
    }

    /// s since the start of the load.
    pub(super) fn offset_s(&self, at_ns: u64) -> f64 {
        (at_ns as f64 - self.t0_ns as f64) / 1e9
    }

    pub(super) fn span_s(&self) -> f64 {
        self.width_ns() / 1e9
    }

    fn width_ns(&self) -> f64 {
        (self.end_ns - self.t0_ns) as f64
    }

    fn phase(&self, name: &str) -> Option<Span> {
        self.phases.iter().find(|phase| phase.name == name).cloned()
    }

    /// Baseline, each fault, recovery: the windows of tables and spectra, in order.
    pub(super) fn windows(&self) -> Vec<Span> {
        let mut windows: Vec<Span> = self.phase("baseline").into_iter().collect();
        windows.extend(self.faults.iter().map(|fault| fault.span.clone()));
        windows.extend(self.phase("recovery").map(|mut recovery| {
            recovery.to_ns = recovery.to_ns.min(self.load_end_ns);
            recovery
        }));
        windows.retain(|window| window.to_ns > window.from_ns);
        windows
    }

    /// The operations of a window. One that a fault's start met alive belongs to the fault.
    pub(super) fn in_window(&self, window: &Span, operation: &Operation) -> bool {
        if self.faults.iter().any(|fault| fault.span == *window) {
            return window.has_touched(operation);
        }
        window.has_started(operation)
            && !self
                .faults
                .iter()
                .any(|fault| fault.span.has_touched(operation))
    }
}

fn bin_ns(width_ns: u64) -> u64 {
    let fits = |bin_s: &&u64| width_ns.div_ceil(*bin_s * SECOND_NS) <= POINTS_MAX;
    match BINS_S.iter().find(fits) {
        Some(bin_s) => bin_s * SECOND_NS,
        None => width_ns.div_ceil(POINTS_MAX),
    }
}

fn phases(evidence: &Evidence, t0_ns: u64, end_ns: u64) -> Vec<Span> {
    let starts: Vec<(Phase, u64)> = evidence
        .events
        .iter()
        .filter_map(|stamped| match stamped.event {
            Event::PhaseStarted { phase, .. } => Some((phase, stamped.at_ns)),
            _ => None,
        })
        .collect();
    let mut spans = Vec::new();
    for (at, (phase, from_ns)) in starts.iter().enumerate() {
        let to_ns = starts.get(at + 1).map_or(end_ns, |next| next.1).min(end_ns);
        let from_ns = (*from_ns).max(t0_ns);
        if *phase != Phase::Boot && from_ns < to_ns {
            let name = phase.name().to_owned();
            spans.push(Span {
                name,
                from_ns,
                to_ns,
            });
        }
    }
    spans
}

fn faults(plan: &Plan, evidence: &Evidence, end_ns: u64) -> Vec<FaultSpan> {
    let mut spans: Vec<FaultSpan> = Vec::new();
    for stamped in &evidence.events {
        match &stamped.event {
            Event::FaultApplied {
                fault,
                asked_ns,
                confirmed_ns,
                detail,
            } => {
                // Until it is seen to end: as long as planned if it ends by itself, else for good.
                let planned = plan.fault(fault).filter(|planned| planned.lasts.is_none());
                let to_ns = planned.map_or(end_ns, |planned| {
                    confirmed_ns + (planned.end() - planned.start).as_nanos() as u64
                });
                spans.push(FaultSpan {
                    fault: fault.clone(),
                    asked_ns: *asked_ns,
                    span: Span {
                        name: fault.to_string(),
                        from_ns: *confirmed_ns,
                        to_ns,
                    },
                    lift_asked_ns: None,
                    detail: detail.clone(),
                    bites: Vec::new(),
                });
            }
            Event::FaultLifted {
                fault,
                asked_ns,
                confirmed_ns,
                bites,
            } => {
                let on = spans.iter_mut().rev().find(|span| span.fault == *fault);
                if let Some(on) = on {
                    on.span.to_ns = (*confirmed_ns).max(on.span.from_ns);
                    on.lift_asked_ns = Some(*asked_ns);
                    on.bites.clone_from(bites);
                }
            }
            _ => {}
        }
    }
    spans
}

fn marks(evidence: &Evidence, t0_ns: u64, end_ns: u64) -> Vec<Mark> {
    let events = evidence.events.iter();
    events
        .filter(|stamped| (t0_ns..=end_ns).contains(&stamped.at_ns))
        .filter_map(|stamped| {
            let (service, kind) = match &stamped.event {
                Event::ServiceExited {
                    service,
                    by_us: true,
                    ..
                } => (service, MarkKind::EndedByUs),
                Event::ServiceExited { service, .. } => (service, MarkKind::EndedByItself),
                Event::ServiceReady { service, .. } => (service, MarkKind::Ready),
                _ => return None,
            };
            Some(Mark {
                at_ns: stamped.at_ns,
                service: service.clone(),
                kind,
            })
        })
        .collect()
}

/// What a breaker claimed to be, from when to when.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claimed {
    pub(super) state: String,
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

/// The claimed states of each link whose caller speaks about its breaker, over the axis, in the
/// order of the plan.
pub(super) fn breakers(
    plan: &Plan,
    evidence: &Evidence,
    timeline: &Timeline,
) -> Vec<(LinkName, Vec<Claimed>)> {
    let said = |link: &LinkName| evidence.transitions.iter().any(|it| it.link == *link);
    let quiet = |link: &LinkPlan| {
        let read = |source: &SourceName| {
            evidence
                .sources
                .get(source)
                .is_some_and(|it| it.error.is_none())
        };
        link.breaker.is_some() && plan.claims_on(&link.name).iter().any(read)
    };
    let links = plan.system.links.iter();
    links
        .filter(|link| said(&link.name) || quiet(link))
        .map(|link| (link.name.clone(), claimed(evidence, timeline, &link.name)))
        .collect()
}

fn claimed(evidence: &Evidence, timeline: &Timeline, link: &LinkName) -> Vec<Claimed> {
    let mut changes: Vec<&Transition> = evidence
        .transitions
        .iter()
        .filter(|transition| transition.link == *link)
        .collect();
    changes.sort_by_key(|transition| transition.at_ns);
    let mut states = Vec::new();
    let mut state = changes
        .first()
        .map_or("CLOSED", |first| first.from.as_str());
    let mut from_ns = timeline.t0_ns;
    for change in &changes {
        if change.at_ns > from_ns {
            let to_ns = change.at_ns.min(timeline.end_ns);
            states.push(Claimed {
                state: state.to_owned(),
                from_ns,
                to_ns,
            });
        }
        state = &change.to;
        from_ns = change.at_ns.max(from_ns);
    }
    if from_ns < timeline.end_ns {
        states.push(Claimed {
            state: state.to_owned(),
            from_ns,
            to_ns: timeline.end_ns,
        });
    }
    states
}
