//! Windows of properties: which part of the run they look at, and how long that is.

use std::time::Duration;

use crate::diagnostic::Span;
use crate::diagnostic::meaning::{self, Noun};
use crate::plan::{FaultName, FaultPlan, OperationName, Plan, Window};
use crate::scenario::property_file::{InFile, WindowFile};
use crate::scenario::text::Text;

use super::Builder;
use super::traffic::{journeys_between, share_of};

impl Builder<'_> {
    /// The window of a property that must have one.
    pub(super) fn window(&mut self, file: &WindowFile, span: Span, plan: &Plan) -> Option<Window> {
        let keys = [
            ("during", file.during.is_some()),
            ("after", file.after.is_some()),
            ("in", file.within.is_some()),
        ];
        if keys.iter().all(|(_, given)| !given) {
            self.mistake(meaning::window_missing(span));
            return None;
        }
        self.choose(span, "the window", &keys);
        if let Some(and_after) = file.and_after.as_ref().filter(|_| file.during.is_none()) {
            let what = "`and-after`";
            self.mistake(meaning::out_of_range(
                and_after.0.span,
                what,
                "beside `during:`",
            ));
        }
        let window = match file {
            WindowFile {
                during: Some(faults),
                and_after,
                ..
            } => {
                let named = faults.0.iter();
                let faults: Vec<FaultName> = named
                    .filter_map(|fault| self.fault_named(fault, plan))
                    .map(|fault| fault.name.clone())
                    .collect();
                let and_after = self.time_or(and_after.as_ref(), Duration::ZERO);
                (!faults.is_empty()).then_some(Window::During { faults, and_after })?
            }
            WindowFile {
                after: Some(fault), ..
            } => Window::After {
                fault: self.fault_named(fault, plan)?.name.clone(),
            },
            WindowFile {
                within: Some(part), ..
            } => match part {
                InFile::Baseline => Window::Baseline,
                InFile::Recovery => Window::Recovery,
                InFile::Whole => Window::Whole,
            },
            _ => return None,
        };
        if spans_of(&window, plan).iter().all(|(from, to)| from >= to) {
            let why = match window {
                Window::During { .. } => "the fault is over at once; add `and-after: 10s`",
                _ => "the scenario has no recovery; add `recovery: 20s` under `phases:`",
            };
            self.mistake(meaning::window_empty(span, why));
            return None;
        }
        Some(window)
    }

    /// A fault that the user names, if it exists and could be planned.
    pub(super) fn fault_named<'p>(&mut self, name: &Text, plan: &'p Plan) -> Option<&'p FaultPlan> {
        let declared = &self.scenario_file().faults;
        if declared.get(&name.value).is_none() {
            let names = declared.names();
            self.mistake(meaning::unknown(Noun::Fault, name.span, &name.value, names));
        }
        plan.fault(&FaultName::new(&name.value))
    }
}

/// The stretches of the run that a window covers, from T0, without overlap.
pub(super) fn spans_of(window: &Window, plan: &Plan) -> Vec<(Duration, Duration)> {
    let phases = &plan.phases;
    let mut spans = match window {
        Window::During { faults, and_after } => faults
            .iter()
            .filter_map(|name| plan.fault(name))
            .map(|fault| (fault.start, (fault.end() + *and_after).min(phases.load_end)))
            .collect(),
        Window::After { fault } => {
            let fault = plan.fault(fault);
            fault
                .map(|fault| (fault.end(), phases.load_end))
                .into_iter()
                .collect()
        }
        Window::Baseline => vec![(phases.baseline_start, phases.baseline_end)],
        Window::Recovery => vec![(phases.recovery_start, phases.load_end)],
        Window::Whole => vec![(phases.baseline_start, phases.load_end)],
    };
    spans.sort();
    let mut merged: Vec<(Duration, Duration)> = Vec::new();
    for (from, to) in spans {
        match merged.last_mut() {
            Some((_, end)) if from <= *end => *end = (*end).max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// How many operations a window should hold; `None` is all journeys.
pub(super) fn operations_in(
    plan: &Plan,
    window: &Window,
    operation: Option<&OperationName>,
) -> u64 {
    let journeys: f64 = spans_of(window, plan)
        .into_iter()
        .map(|(from, to)| journeys_between(&plan.load, from, to))
        .sum();
    let share = operation.map_or(1.0, |operation| share_of(&plan.load, operation));
    (journeys * share).round() as u64
}
