//! What is wrong with the log of one saga that is final.

use std::collections::BTreeMap;

use crate::evidence::records::SagaStep;
use crate::evidence::{Saga, SagaState, StepPhase};
use crate::plan::system::SagaPlan;

use super::step_of;

/// Something wrong with one saga.
pub(super) struct LogFault {
    /// Completes "3 sagas …".
    pub(super) kind: &'static str,
    pub(super) at_ns: Option<u64>,
    pub(super) text: String,
}

/// Everything wrong with a final saga.
pub(super) fn faults(saga: &Saga, plan: &SagaPlan) -> Vec<LogFault> {
    let mut faults = Vec::new();
    for step in &plan.steps {
        let lines: Vec<&SagaStep> = saga
            .steps
            .iter()
            .filter(|line| step_of(plan, &line.name) == step)
            .collect();
        match saga.state {
            SagaState::Committed => committed(step, &lines, &mut faults),
            _ => compensated(step, &lines, plan, &mut faults),
        }
        hanging(step, &lines, &mut faults);
    }
    past_pivot(saga, plan, &mut faults);
    undo_order(saga, plan, &mut faults);
    faults
}

fn is(phase: StepPhase) -> impl Fn(&&&SagaStep) -> bool {
    move |line| line.phase == phase
}

fn committed(step: &str, lines: &[&SagaStep], faults: &mut Vec<LogFault>) {
    let done = lines.iter().filter(is(StepPhase::Done)).count();
    if done == 0 {
        faults.push(LogFault {
            kind: "committed with a step missing",
            at_ns: None,
            text: format!("committed, but `{step}` was never done"),
        });
    }
    if done > 1 {
        faults.push(LogFault {
            kind: "did a step more than once",
            at_ns: lines.iter().rfind(is(StepPhase::Done)).map(|it| it.at_ns),
            text: format!("`{step}` was done {done} times"),
        });
    }
    if let Some(undone) = lines.iter().find(is(StepPhase::Undone)) {
        faults.push(LogFault {
            kind: "committed with a step undone",
            at_ns: Some(undone.at_ns),
            text: format!("committed, but `{step}` was undone"),
        });
    }
}

/// A step may have had an effect unless each of its attempts is known to have done nothing: a
/// refusal says nothing about an earlier attempt that was never answered.
fn may_have_happened(lines: &[&SagaStep]) -> bool {
    // By owner and attempt: whether it is known to have done nothing.
    let mut attempts: BTreeMap<(u64, u32), bool> = BTreeMap::new();
    for line in lines {
        let harmless = match line.phase {
            StepPhase::Done => return true,
            StepPhase::Started | StepPhase::Unknown => false,
            StepPhase::Failed => true,
            StepPhase::UndoStarted | StepPhase::Undone | StepPhase::UndoFailed => continue,
        };
        attempts.insert((line.epoch, line.attempt), harmless);
    }
    attempts.values().any(|harmless| !harmless)
}

fn compensated(step: &str, lines: &[&SagaStep], plan: &SagaPlan, faults: &mut Vec<LogFault>) {
    let undoable = plan.undo.contains_key(step);
    let undone = lines.iter().any(|line| line.phase == StepPhase::Undone);
    if undoable && may_have_happened(lines) && !undone {
        faults.push(LogFault {
            kind: "compensated with an effect left",
            at_ns: lines.last().map(|line| line.at_ns),
            text: format!("compensated, but `{step}` was never undone"),
        });
    }
}

/// An undone step that was done afterwards.
fn hanging(step: &str, lines: &[&SagaStep], faults: &mut Vec<LogFault>) {
    let Some(undone) = lines.iter().find(is(StepPhase::Undone)) else {
        return;
    };
    let after = |line: &&&SagaStep| line.phase == StepPhase::Done && line.at_ns > undone.at_ns;
    if let Some(done) = lines.iter().find(after) {
        faults.push(LogFault {
            kind: "did a step after its undo",
            at_ns: Some(done.at_ns),
            text: format!("`{step}` was done after it had been undone"),
        });
    }
}

fn past_pivot(saga: &Saga, plan: &SagaPlan, faults: &mut Vec<LogFault>) {
    let Some(pivot) = &plan.pivot else { return };
    let passed = |line: &&SagaStep| line.name == *pivot && line.phase == StepPhase::Done;
    let Some(passed) = saga.steps.iter().find(passed) else {
        return;
    };
    let undone = |line: &&SagaStep| line.phase == StepPhase::Undone && line.at_ns >= passed.at_ns;
    if let Some(undone) = saga.steps.iter().find(undone) {
        faults.push(LogFault {
            kind: "undid a step past the pivot",
            at_ns: Some(undone.at_ns),
            text: format!("`{}` was undone after `{pivot}`", undone.name),
        });
    }
}

/// A step that was undone before a later one that was built on it, which is one that began when the
/// step was done. What certainly did nothing may be undone at any time, or never.
fn undo_order(saga: &Saga, plan: &SagaPlan, faults: &mut Vec<LogFault>) {
    let first = |step: &str, phase: StepPhase| {
        let lines = saga.steps.iter();
        let lines = lines.filter(|line| line.phase == phase && step_of(plan, &line.name) == step);
        lines.map(|line| line.at_ns).min()
    };
    let happened = |step: &str| {
        let lines = saga.steps.iter();
        let lines = lines.filter(|line| step_of(plan, &line.name) == step);
        may_have_happened(&lines.collect::<Vec<_>>())
    };
    for (place, step) in plan.steps.iter().enumerate() {
        let (Some(done), Some(undone)) =
            (first(step, StepPhase::Done), first(step, StepPhase::Undone))
        else {
            continue;
        };
        let kept_on = |later: &&String| {
            let built_on = first(later, StepPhase::Started).is_some_and(|began| done <= began);
            let outlived = first(later, StepPhase::Undone).is_some_and(|at| undone < at);
            built_on && outlived && happened(later)
        };
        if let Some(later) = plan.steps[place + 1..].iter().find(kept_on) {
            faults.push(LogFault {
                kind: "undid a step before what was built on it",
                at_ns: Some(undone),
                text: format!("`{step}` was undone before `{later}`, which had begun after it"),
            });
        }
    }
}

/// From the first undo to the last, ns.
pub(super) fn undo_took(saga: &Saga) -> Option<u64> {
    let undo = |line: &&SagaStep| matches!(line.phase, StepPhase::UndoStarted | StepPhase::Undone);
    let first = saga
        .steps
        .iter()
        .filter(undo)
        .map(|line| line.at_ns)
        .min()?;
    let last = saga
        .steps
        .iter()
        .filter(undo)
        .map(|line| line.at_ns)
        .max()?;
    Some(last - first)
}

/// `, last line: charge unknown`.
pub(super) fn ending(saga: &Saga) -> String {
    saga.steps.last().map_or(String::new(), |line| {
        let phase = format!("{:?}", line.phase).to_lowercase();
        format!(
            ", last line: {} {phase}, attempt {}",
            line.name, line.attempt
        )
    })
}
