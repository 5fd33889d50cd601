//! What live output remembers of the events so far. Nothing that a report would need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::evidence::events::LoadSecond;
use crate::evidence::{Event, Phase, Stamped, Transition};
use crate::plan::{FaultName, FaultPlan, LinkName, Plan};

/// What is known so far.
#[derive(Debug)]
pub(super) struct State {
    pub(super) plan: Plan,
    pub(super) phase: Option<Phase>,
    pub(super) phase_at_ns: u64,
    pub(super) phase_planned: Duration,
    pub(super) boot_at_ns: Option<u64>,
    pub(super) t0_ns: Option<u64>,
    pub(super) ready: BTreeSet<String>,
    pub(super) links: usize,
    /// Faults that are on, with their confirmed start.
    pub(super) active: BTreeMap<FaultName, u64>,
    /// Claimed breaker states other than CLOSED, with the instant of the change.
    pub(super) breakers: BTreeMap<LinkName, (String, u64)>,
    /// Seconds of the load that no line told yet.
    pub(super) load: Seconds,
    /// The newest second.
    pub(super) last: Option<LoadSecond>,
    pub(super) stopping: bool,
}

/// Some seconds of the load, added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Seconds {
    pub(super) seconds: u32,
    pub(super) offered: u64,
    pub(super) dropped: u64,
    pub(super) done: u64,
    pub(super) accepted: u64,
    pub(super) operations: u64,
    pub(super) unknown: u64,
    /// The largest of the seconds' own 99th percentiles: an upper bound of the whole one's, since
    /// at most 1 % of each second's operations lie above.
    pub(super) p99_us: u64,
}

impl Seconds {
    pub(super) fn add(&mut self, second: &LoadSecond) {
        self.seconds += 1;
        self.offered += second.offered;
        self.dropped += second.dropped;
        self.done += second.done;
        self.accepted += second.accepted;
        self.unknown += second.unknown;
        self.operations +=
            second.done + second.accepted + second.refused + second.unknown + second.unsettled;
        self.p99_us = self.p99_us.max(second.p99_us);
    }

    /// Share of operations whose effect is unknown, in percent; 0 without any.
    pub(super) fn errors_percent(&self) -> f64 {
        100.0 * self.unknown as f64 / self.operations.max(1) as f64
    }
}

impl State {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            phase: None,
            phase_at_ns: 0,
            phase_planned: Duration::ZERO,
            boot_at_ns: None,
            t0_ns: None,
            ready: BTreeSet::new(),
            links: 0,
            active: BTreeMap::new(),
            breakers: BTreeMap::new(),
            load: Seconds::default(),
            last: None,
            stopping: false,
        }
    }

    /// Remembers an event.
    pub(super) fn learn(&mut self, stamped: &Stamped) {
        match &stamped.event {
            Event::PhaseStarted { phase, planned_ms } => {
                self.phase = Some(*phase);
                self.phase_at_ns = stamped.at_ns;
                self.phase_planned = Duration::from_millis(*planned_ms);
                if *phase == Phase::Boot {
                    self.boot_at_ns = Some(stamped.at_ns);
                }
            }
            Event::LinkCreated { .. } => self.links += 1,
            Event::ServiceReady { service, .. } => {
                self.ready.insert(service.to_string());
            }
            Event::ServiceExited { service, .. } => {
                self.ready.remove(service.as_str());
            }
            Event::LoadStarted { t0_ns } => self.t0_ns = Some(*t0_ns),
            Event::LoadSecond(second) => {
                self.load.add(second);
                self.last = Some(second.clone());
            }
            Event::FaultApplied {
                fault,
                confirmed_ns,
                ..
            } if self
                .plan
                .fault(fault)
                .is_some_and(|plan| plan.lasts.is_some()) =>
            {
                self.active.insert(fault.clone(), *confirmed_ns);
            }
            Event::FaultLifted { fault, .. } => {
                self.active.remove(fault);
            }
            Event::Stopping { .. } => self.stopping = true,
            _ => {}
        }
    }

    /// Remembers what a breaker claims to have become.
    pub(super) fn breaker(&mut self, transition: &Transition) {
        if transition.to == "CLOSED" {
            self.breakers.remove(&transition.link);
        } else {
            let state = (transition.to.clone(), transition.at_ns);
            self.breakers.insert(transition.link.clone(), state);
        }
    }

    /// How long until the load ends; none before it began.
    pub(super) fn load_left(&self, at_ns: u64) -> Option<Duration> {
        let end = self.t0_ns? + self.plan.phases.load_end.as_nanos() as u64;
        Some(Duration::from_nanos(end.saturating_sub(at_ns)))
    }

    /// When a fault is planned to be lifted, on the run clock; none when it is instantaneous.
    pub(super) fn lifts_at_ns(&self, fault: &FaultPlan) -> Option<u64> {
        let start = self.t0_ns? + fault.start.as_nanos() as u64;
        Some(start + fault.lasts?.as_nanos() as u64)
    }
}
