//! What all checkers share: windows on the run clock, the operations and calls of a window, and
//! the preconditions of a pass that do not depend on the property.
//!
//! Read next: [`super::bite`] (did a fault do anything), [`super::demand`] (what should have
//! arrived on a link).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::evidence::events::{Bite, LoadSummary};
use crate::evidence::{Call, Event, Evidence, OPERATIONS, Operation, Phase, StopReason};
use crate::plan::load::{OutcomeClass, USERS_MAX};
use crate::plan::{
    FaultEffect, FaultName, FaultPlan, LinkName, OperationName, Plan, ServiceName, SourceName,
    Window,
};

use super::JudgedWindow;
use super::case::{Case, Gap};
use super::stats::quantile;
use super::text;

/// A stretch of the run clock, end excluded, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Span {
    pub(crate) fn new(from: u64, to: u64) -> Self {
        Self {
            from,
            to: to.max(from),
        }
    }

    pub(crate) fn holds(self, at: u64) -> bool {
        self.from <= at && at < self.to
    }

    pub(crate) fn len(self) -> u64 {
        self.to - self.from
    }

    pub(crate) fn seconds(self) -> f64 {
        self.len() as f64 / 1e9
    }

    pub(crate) fn overlaps(self, other: Span) -> bool {
        self.from < other.to && other.from < self.to
    }
}

/// A fault as it really was.
#[derive(Clone, Debug)]
pub(crate) struct FaultSeen<'a> {
    pub(crate) plan: &'a FaultPlan,
    /// When it was asked for: the baseline ends here.
    pub(crate) asked: u64,
    /// From confirmed on to confirmed off (or to the end of the load when it was never lifted).
    pub(crate) on: Span,
    /// When its end was asked for; the end of the load when it never was.
    pub(crate) lift_asked: u64,
    pub(crate) lifted: bool,
    pub(crate) bites: &'a [Bite],
}

/// How the drain went.
#[derive(Clone, Debug)]
pub(crate) struct Drain<'a> {
    pub(crate) drained: bool,
    pub(crate) left: &'a BTreeMap<String, f64>,
    pub(crate) unread: &'a BTreeMap<String, String>,
    pub(crate) at: u64,
}

/// The plan and the evidence of a run, indexed for checkers.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) evidence: &'a Evidence,
    pub(crate) t0: u64,
    pub(crate) warm_up: Span,
    pub(crate) baseline: Span,
    pub(crate) load_end: u64,
    pub(crate) faults: BTreeMap<&'a FaultName, FaultSeen<'a>>,
    pub(crate) drain: Option<Drain<'a>>,
    pub(crate) load: Option<&'a LoadSummary>,
    /// In order of the intended start.
    operations: Vec<&'a Operation>,
    calls: BTreeMap<&'a LinkName, Vec<&'a Call>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(plan: &'a Plan, evidence: &'a Evidence) -> Self {
        let t0 = event(evidence, |it| match it {
            Event::LoadStarted { t0_ns } => Some(*t0_ns),
            _ => None,
        })
        .or_else(|| phase(evidence, Phase::WarmUp))
        .unwrap_or(0);
        let at = |offset: Duration| t0 + offset.as_nanos() as u64;
        // Whatever else was waited for, no ticket is issued after the planned end.
        let planned_end = at(plan.phases.load_end).max(t0);
        let load_end = phase(evidence, Phase::Drain).map_or(planned_end, |it| it.min(planned_end));
        let faults = faults_seen(plan, evidence, load_end);
        let first_fault = faults.values().map(|fault| fault.asked).min();
        let baseline_start =
            phase(evidence, Phase::Baseline).unwrap_or_else(|| at(plan.phases.baseline_start));
        let baseline_end = [
            Some(at(plan.phases.baseline_end)),
            phase(evidence, Phase::Faults),
            first_fault,
            Some(load_end),
        ];
        let baseline_end = baseline_end.into_iter().flatten().min().unwrap_or(load_end);
        Self {
            plan,
            evidence,
            t0,
            warm_up: Span::new(t0, baseline_start),
            baseline: Span::new(baseline_start, baseline_end),
            load_end,
            faults,
            drain: drain(evidence),
            load: event(evidence, |it| match it {
                Event::LoadFinished(summary) => Some(summary),
                _ => None,
            }),
            operations: {
                let mut sorted: Vec<&Operation> = evidence.operations.iter().collect();
                sorted.sort_by_key(|it| (it.intended_ns, it.iteration));
                sorted
            },
            calls: evidence.calls_by_link(plan),
        }
    }

    /// The calls that entered a link, in order of entry.
    pub(crate) fn calls(&self, link: &LinkName) -> &[&'a Call] {
        self.calls.get(link).map_or(&[], Vec::as_slice)
    }

    /// Those that entered within a stretch.
    pub(crate) fn calls_in(&self, link: &LinkName, span: Span) -> &[&'a Call] {
        let calls = self.calls(link);
        let from = calls.partition_point(|call| call.at_ns < span.from);
        let to = calls.partition_point(|call| call.at_ns < span.to);
        &calls[from..to.max(from)]
    }

    /// The end of the last fault, or of the baseline when there was none.
    pub(crate) fn last_fault_end(&self) -> u64 {
        let ends = self.faults.values().map(|fault| fault.on.to);
        ends.max().unwrap_or(self.baseline.to)
    }

    /// The stretches that a window is made of, in order; none overlaps another.
    pub(crate) fn spans(&self, window: &Window) -> Vec<Span> {
        let of = |name| self.faults.get(name).map(|fault: &FaultSeen<'_>| fault.on);
        match window {
            Window::During { faults, and_after } => {
                let seen = faults.iter().filter_map(of);
                merged(seen.map(|on| {
                    let to = on.to + and_after.as_nanos() as u64;
                    Span::new(on.from, to.min(self.load_end.max(on.to)))
                }))
            }
            Window::After { fault } => of(fault)
                .map(|on| Span::new(on.to, self.load_end))
                .into_iter()
                .collect(),
            Window::Baseline => vec![self.baseline],
            Window::Recovery => vec![Span::new(self.last_fault_end(), self.load_end)],
            Window::Whole => vec![Span::new(self.baseline.from, self.load_end)],
        }
    }

    /// The operations that belong to a window: by intended start, and those whose life overlaps a
    /// fault's edge belong to the fault, never to the baseline.
    pub(crate) fn operations(
        &self,
        window: &Window,
        name: Option<&OperationName>,
    ) -> Vec<&'a Operation> {
        let spans = self.spans(window);
        let first_fault = self.faults.values().map(|fault| fault.asked).min();
        let during = matches!(window, Window::During { .. });
        let belongs = |it: &Operation| {
            let inside = spans.iter().any(|span| span.holds(it.intended_ns));
            let crosses_into = |span: &Span| it.intended_ns < span.from && span.from <= it.ended_ns;
            match window {
                Window::Baseline => inside && first_fault.is_none_or(|at| it.ended_ns < at),
                _ => inside || (during && spans.iter().any(crosses_into)),
            }
        };
        self.operations_of(name).filter(|it| belongs(it)).collect()
    }

    /// All operations of a name, in order of the intended start.
    pub(crate) fn operations_of(
        &self,
        name: Option<&OperationName>,
    ) -> impl Iterator<Item = &'a Operation> {
        let named = move |it: &&Operation| name.is_none_or(|name| it.op == *name);
        self.operations.iter().copied().filter(named)
    }

    /// The faults that a window is about; all of them when it is the whole run or its end.
    pub(crate) fn faults_of(&self, window: &Window) -> Vec<&'a FaultPlan> {
        let all = || self.plan.faults.iter().collect();
        let named = |names: &[FaultName]| {
            let known = |name| self.plan.fault(name);
            names.iter().filter_map(known).collect()
        };
        match window {
            Window::During { faults, .. } => named(faults),
            Window::After { fault } => named(std::slice::from_ref(fault)),
            Window::Baseline => Vec::new(),
            Window::Recovery | Window::Whole => all(),
        }
    }

    /// Starts the case of a property on operations in a window.
    pub(crate) fn case_in(&self, window: &Window, n_of: &str) -> Case {
        let mut case = Case::new(n_of);
        case.window = self.judged(window);
        let faults = self.faults_of(window);
        case.missing_all(faults.iter().flat_map(|fault| self.fault_gaps(fault, None)));
        self.expect_exercised(&mut case);
        if *window == Window::Baseline {
            case.missing_all(self.under_way());
        }
        case
    }

    /// More operations than their pace explains were under way when the first fault came, so they
    /// are in no baseline: it may have been worse than it looks.
    fn under_way(&self) -> Option<Gap> {
        let asked = self.faults.values().map(|fault| fault.asked).min()?;
        let began = self.operations.iter();
        let began = began.filter(|it| self.baseline.holds(it.intended_ns));
        let (ended, alive): (Vec<&Operation>, Vec<&Operation>) =
            began.partition(|it| it.ended_ns < asked);
        // Little's law, and what chance adds to that.
        let lasted: u64 = ended.iter().map(|it| it.latency_ns()).sum();
        let usual = lasted as f64 / self.baseline.len().max(1) as f64;
        let bound = usual + 5.0 * (usual + 1.0).sqrt();
        (alive.len() as f64 > bound).then(|| {
            Gap::new(
                format!(
                    "{} of the baseline had not ended when the fault came, about {usual:.0} are \
                     usual at their pace",
                    text::count(alive.len() as u64, "operation")
                ),
                "lengthen `phases: baseline`, or find out what they waited for",
            )
        })
    }

    /// The window as a verdict shows it: from the first to the last of its stretches.
    pub(crate) fn judged(&self, window: &Window) -> Option<JudgedWindow> {
        let spans = self.spans(window);
        Some(JudgedWindow {
            name: window_name(window),
            from_ns: spans.iter().map(|span| span.from).min()?,
            to_ns: spans.iter().map(|span| span.to).max()?,
        })
    }

    /// Every operation kind had at least one done or accepted, and nobody killed our services.
    pub(crate) fn expect_exercised(&self, case: &mut Case) {
        let happened: BTreeSet<&OperationName> = self
            .evidence
            .operations
            .iter()
            .filter(|it| happened(it))
            .map(|it| &it.op)
            .collect();
        let steps = self.plan.load.journeys.iter().flat_map(|it| &it.steps);
        for step in steps.filter(|step| !happened.contains(&step.name)) {
            case.missing(Gap::new(
                format!("no `{}` was ever done or accepted", step.name),
                format!(
                    "look at the status codes of `{}`: its `outcome:` names what counts as done",
                    step.name
                ),
            ));
        }
        case.missing_all(self.killed_by_others());
        case.missing_all(self.known_loss(OPERATIONS));
        if let Some(damage) = self.evidence.damage.first() {
            case.missing(Gap::new(
                format!(
                    "{} of `{}` in the run folder cannot be read, the first is line {}",
                    text::count(damage.lines, "line"),
                    damage.file,
                    damage.first_line
                ),
                "run it again",
            ));
        }
    }

    fn killed_by_others(&self) -> Option<Gap> {
        event(self.evidence, |it| match it {
            Event::ServiceExited {
                service,
                signal: Some(9),
                by_us: false,
                ..
            } => Some(Gap::new(
                format!("somebody else killed `{service}` with SIGKILL: out of memory?"),
                "look at `dmesg` for the kernel's word, and give the run more memory",
            )),
            _ => None,
        })
    }

    /// The worker accounts for every ticket of the load: blocks when not, as nobody knows then what
    /// the operations on record are a part of.
    pub(crate) fn expect_account(&self, case: &mut Case) {
        let Some(load) = self.load else {
            case.blocked(Gap::new(
                "the load worker gave no account of the load",
                "run it again",
            ));
            return;
        };
        let LoadSummary {
            issued,
            completed,
            failed,
            dropped,
            ..
        } = *load;
        if issued != completed + failed + dropped {
            case.blocked(Gap::new(
                format!(
                    "the load does not add up: {} issued, but {completed} completed + {failed} \
                     failed + {dropped} dropped",
                    text::count(issued, "ticket")
                ),
                "run it again at a lower rate, or on a machine with room to spare",
            ));
        }
    }

    /// The generator kept up with its schedule, as far as latencies and rates go: blocks when not.
    /// The lag may be a tenth of `limit_ns`, the smallest time that the property tells apart, over
    /// the load as over the operations that are judged: a short window has stalls of its own.
    pub(crate) fn expect_generator(&self, case: &mut Case, limit_ns: u64, judged: &[&Operation]) {
        self.expect_account(case);
        self.expect_no_drops(case, true);
        if let Some(gap) = self.lag_gap(limit_ns, judged) {
            case.blocked(gap);
        }
    }

    /// The generator sent later than a tenth of `limit_ns` allows.
    pub(crate) fn lag_gap(&self, limit_ns: u64, judged: &[&Operation]) -> Option<Gap> {
        let bound_ns = lag_bound(limit_ns);
        let mut lags: Vec<u64> = judged.iter().map(|it| send_lag(it)).collect();
        lags.sort_unstable();
        let of_judged = quantile(&lags, 0.99).unwrap_or(0);
        let lag_ns = self
            .load?
            .send_lag_p99_us
            .saturating_mul(1000)
            .max(of_judged);
        (lag_ns > bound_ns).then(|| {
            Gap::new(
                format!(
                    "the load generator fell behind its schedule: send-lag p99 {}, bound {}",
                    text::span(lag_ns),
                    text::span(bound_ns)
                ),
                "lower `arrivals:` or give the machine more cores",
            )
        })
    }

    /// No ticket was dropped.
    pub(crate) fn expect_no_drops(&self, case: &mut Case, blocks: bool) {
        let dropped = self.load.map_or(0, |load| load.dropped);
        if dropped == 0 {
            return;
        }
        let gap = Gap::new(
            format!("{} found no free user", text::count(dropped, "ticket")),
            // Users are planned for every request to take as long as it may, up to the most.
            match self.plan.load.users_max {
                users @ USERS_MAX.. => format!(
                    "lower `arrivals:`, or shorten `timeout:` under `load:`, so that {users} users \
                     are enough"
                ),
                _ => "lower `arrivals:` or give the machine more cores".into(),
            },
        );
        if blocks {
            case.blocked(gap);
        } else {
            case.missing(gap);
        }
    }

    /// All backlogs were zero for the quiet period.
    pub(crate) fn drain_gap(&self) -> Option<Gap> {
        let Some(drain) = &self.drain else {
            return Some(Gap::new(
                "the run was not drained, so what is missing may still be on its way",
                "add `phases: { drain: { within: 30s, quiet: 6s } }`",
            ));
        };
        if let Some((backlog, why)) = drain.unread.iter().next() {
            return Some(Gap::new(
                format!("the backlog `{backlog}` could not be read: {why}"),
                format!("make `backlogs: {backlog}` answer until the drain ends"),
            ));
        }
        if drain.drained {
            return None;
        }
        Some(match drain.left.is_empty() {
            false => Gap::new(
                format!("the run did not drain: {} left", self.left()),
                "raise `phases: drain: within`, or find out why the backlog stays",
            ),
            true => Gap::new(
                "all backlogs were zero at last, but not for the whole quiet period",
                "raise `phases: drain: within`: the quiet period must fit into it",
            ),
        })
    }

    /// What the drain left: `outbox 12, queues 3`.
    pub(crate) fn left(&self) -> String {
        let left = self.drain.iter().flat_map(|drain| drain.left);
        let left: Vec<String> = left.map(|(name, n)| format!("{name} {n}")).collect();
        text::some_of(left.iter().map(String::as_str))
    }

    /// The source was read to its end and nothing of it is known to be lost.
    pub(crate) fn source_gap(&self, name: &SourceName) -> Option<Gap> {
        let Some(state) = self.evidence.sources.get(name) else {
            return Some(Gap::new(
                format!("evidence `{name}` was never read"),
                format!(
                    "keep its service up until collection ends, and look at `evidence: {name}`"
                ),
            ));
        };
        if let Some(error) = &state.error {
            return Some(Gap::new(
                format!("evidence `{name}` ended early: {error}"),
                match self.plan.source_service(name) {
                    Some(service) => format!("keep `{service}` up until collection ends"),
                    None => format!("repair `evidence: {name}`"),
                },
            ));
        }
        (state.lost > 0).then(|| {
            Gap::new(
                format!("evidence `{name}` lost {}", text::count(state.lost, "row")),
                format!("read it more often (`every:`), or enlarge the ring behind `{name}`"),
            )
        })
    }

    /// Whether the last reading of a source came before that of another: readings do not overlap.
    pub(crate) fn read_before(&self, first: &SourceName, then: &SourceName) -> bool {
        let events = &self.evidence.events;
        let read = |name: &SourceName| {
            events.iter().position(
                |it| matches!(&it.event, Event::SourceRead { source, .. } if source == name),
            )
        };
        matches!((read(first), read(then)), (Some(first), Some(then)) if first < then)
    }

    /// What is known to be missing of a witness of the run itself (the request log, the operations).
    pub(crate) fn known_loss(&self, name: &str) -> Option<Gap> {
        let name = SourceName::new(name);
        let state = self.evidence.sources.get(&name)?;
        let what = match &state.error {
            Some(error) => format!("`{name}` ended early: {error}"),
            None if state.lost > 0 => format!("`{name}` lost {}", text::count(state.lost, "row")),
            None => return None,
        };
        Some(Gap::new(
            what,
            "run it again at a lower rate, or on a machine with room to spare",
        ))
    }

    /// The links of this run's faults that touch a service.
    pub(crate) fn faulted_links_at(&self, service: &ServiceName) -> Vec<LinkName> {
        let mut found = Vec::new();
        for fault in &self.plan.faults {
            if let FaultEffect::Link { links, .. } = &fault.effect {
                let touching =
                    |link: &&LinkName| link.to == service.as_str() || link.from == service.as_str();
                found.extend(links.iter().filter(touching).cloned());
            }
        }
        found
    }
}

/// Stretches in order, those that overlap made one: nothing in them counts twice.
fn merged(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut spans: Vec<Span> = spans.collect();
    spans.sort_by_key(|span| span.from);
    let mut merged: Vec<Span> = Vec::new();
    for span in spans {
        match merged.last_mut().filter(|last| span.from <= last.to) {
            Some(last) => last.to = last.to.max(span.to),
            None => merged.push(span),
        }
    }
    merged
}

/// How late an operation was sent, ns.
pub(crate) fn send_lag(it: &Operation) -> u64 {
    it.sent_ns.saturating_sub(it.intended_ns)
}

/// The lag that leaves a time which is held against a limit what it is, ns.
pub(crate) fn lag_bound(limit_ns: u64) -> u64 {
    (limit_ns / 10).max(5_000_000)
}

/// Whether the effect exists: done or accepted.
pub(crate) fn happened(it: &Operation) -> bool {
    matches!(it.outcome, OutcomeClass::Done | OutcomeClass::Accepted)
}

/// `during psp-silent`.
pub(crate) fn window_name(window: &Window) -> String {
    match window {
        Window::During { faults, and_after } => {
            let names: Vec<&str> = faults.iter().map(FaultName::as_str).collect();
            let names = names.join(", ");
            if and_after.is_zero() {
                format!("during {names}")
            } else {
                let after = crate::plan::quantity::duration_text(*and_after);
                format!("during {names} and {after} after")
            }
        }
        Window::After { fault } => format!("after {fault}"),
        Window::Baseline => "in the baseline".into(),
        Window::Recovery => "in the recovery".into(),
        Window::Whole => "in the whole run".into(),
    }
}

/// How the run ended, and why when it did not come to its end.
pub(crate) fn ended(evidence: &Evidence) -> (StopReason, Option<String>) {
    let stops = evidence.events.iter().filter_map(|it| match &it.event {
        Event::Stopping { reason, why } => Some((*reason, Some(why.clone()))),
        _ => None,
    });
    let worst = stops.max_by_key(|(reason, _)| *reason);
    let torn_down = phase(evidence, Phase::Teardown).is_some()
        || evidence
            .events
            .iter()
            .any(|it| matches!(it.event, Event::TeardownFinished { .. }));
    match worst {
        Some((StopReason::Finished, _)) => (StopReason::Finished, None),
        Some(stopped) => stopped,
        None if torn_down => (StopReason::Finished, None),
        None => (
            StopReason::Failed,
            Some("its events end before its teardown: `chaos` itself was killed".into()),
        ),
    }
}

fn event<'a, T>(evidence: &'a Evidence, pick: impl Fn(&'a Event) -> Option<T>) -> Option<T> {
    evidence.events.iter().find_map(|it| pick(&it.event))
}

fn phase(evidence: &Evidence, wanted: Phase) -> Option<u64> {
    let started = |it: &&crate::evidence::Stamped| matches!(it.event, Event::PhaseStarted { phase, .. } if phase == wanted);
    evidence.events.iter().find(started).map(|it| it.at_ns)
}

fn drain(evidence: &Evidence) -> Option<Drain<'_>> {
    evidence.events.iter().find_map(|it| match &it.event {
        Event::DrainEnded {
            drained,
            left,
            unread,
            ..
        } => Some(Drain {
            drained: *drained,
            left,
            unread,
            at: it.at_ns,
        }),
        _ => None,
    })
}

fn faults_seen<'a>(
    plan: &'a Plan,
    evidence: &'a Evidence,
    load_end: u64,
) -> BTreeMap<&'a FaultName, FaultSeen<'a>> {
    let mut seen: BTreeMap<&FaultName, FaultSeen<'a>> = BTreeMap::new();
    for it in &evidence.events {
        match &it.event {
            Event::FaultApplied {
                fault,
                asked_ns,
                confirmed_ns,
                ..
            } => {
                let Some(fault_plan) = plan.fault(fault) else {
                    continue;
                };
                seen.entry(&fault_plan.name).or_insert(FaultSeen {
                    plan: fault_plan,
                    asked: *asked_ns,
                    on: Span::new(*confirmed_ns, load_end),
                    lift_asked: load_end,
                    lifted: false,
                    bites: &[],
                });
            }
            Event::FaultLifted {
                fault,
                asked_ns,
                confirmed_ns,
                bites,
            } => {
                if let Some(known) = seen.get_mut(fault) {
                    known.on = Span::new(known.on.from, *confirmed_ns);
                    known.lift_asked = *asked_ns;
                    known.lifted = true;
                    known.bites = bites;
                }
            }
            _ => {}
        }
    }
    seen
}
