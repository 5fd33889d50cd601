//! `sagas`: every saga ends, one way or the other, and the client was told the truth.
//!
//! - *complete*: final within the given time of the load's end; committed ⇒ each step done once, no
//!   undo; compensated ⇒ every step that may have had an effect is undone; none stuck.
//! - *client agreement*: done ⇒ committed; accepted ⇒ exists and final; refused ⇒ compensated or
//!   never started; unknown ⇒ either.
//! - *no hanging action* (no step done after its undo), nothing undone past the pivot, and *order*:
//!   a step is undone after what was built on it.
//! - that an undo without its step, or a second one, changes nothing is not in a saga's log:
//!   ledgers show it (`conserved`).
//! - A saga that became final closer to the limit than its source's clock is known is neither late
//!   nor in time.
//! - exercised: at least `resumed-at-least` sagas have log lines of two epochs, at least
//!   `undone-at-least` were compensated.

mod log;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::evidence::{Event, Operation, Saga, SagaState};
use crate::plan::load::OutcomeClass;
use crate::plan::property::Sagas;
use crate::plan::system::SagaPlan;

use super::Status;
use super::case::{Case, Gap};
use super::context::Context;
use super::text;

pub(crate) fn check(context: &Context<'_>, property: &Sagas) -> Case {
    let mut case = Case::new("sagas");
    context.expect_exercised(&mut case);
    let faults = context.plan.faults.iter();
    case.missing_all(faults.flat_map(|fault| context.fault_gaps(fault, None)));
    let lost = context.source_gap(&property.evidence);
    case.missing_all(lost.clone());
    if let Some(service) = context.plan.source_service(&property.evidence) {
        case.blame(service.as_str());
    }
    let sagas = latest(context, property);
    case.n = sagas.len() as u64;
    if sagas.is_empty() {
        case.blocked(Gap::new(
            format!("evidence `{}` holds no saga", property.evidence),
            "drive load that starts sagas, or repair its `select:`",
        ));
        return case;
    }
    judge_final(context, &mut case, property, &sagas);
    judge_near(context, &mut case, property, &sagas);
    judge_logs(context, &mut case, property, &sagas);
    if let Some(operation) = &property.operation {
        let told = context.evidence.operations.iter();
        let told: Vec<&Operation> = told.filter(|it| it.op == *operation).collect();
        judge_agreement(&mut case, &sagas, &told, lost.as_ref());
    }
    judge_branches(&mut case, property, &sagas);
    case.limit = Some("0 sagas".into());
    case.measured = measured(&sagas);
    case
}

/// Each saga once, as it was last read.
fn latest<'a>(context: &'a Context<'_>, property: &Sagas) -> Vec<&'a Saga> {
    let mut by_id: BTreeMap<&str, &Saga> = BTreeMap::new();
    for saga in &context.evidence.sagas {
        if saga.source == property.evidence {
            by_id.insert(&saga.id, saga);
        }
    }
    by_id.into_values().collect()
}

fn is_final(saga: &Saga) -> bool {
    matches!(saga.state, SagaState::Committed | SagaState::Compensated)
}

/// When a final saga became so: as it says, else with the last line of its log.
fn ended(saga: &Saga) -> Option<u64> {
    let last = || saga.steps.iter().map(|line| line.at_ns).max();
    saga.ended_ns.or_else(last).filter(|_| is_final(saga))
}

fn judge_final(context: &Context<'_>, case: &mut Case, property: &Sagas, sagas: &[&Saga]) {
    let within = property.within.as_nanos() as u64;
    let bound = context.load_end + within;
    let read_at = read_at(context, property);
    let stuck: Vec<&&Saga> = sagas
        .iter()
        .filter(|it| it.state == SagaState::Stuck)
        .collect();
    let open = |it: &&&Saga| matches!(it.state, SagaState::Running | SagaState::Compensating);
    let open: Vec<&&Saga> = sagas.iter().filter(open).collect();
    let error = context.clock_error(&property.evidence);
    let late = |it: &&&Saga| ended(it).is_some_and(|at| at > bound + error);
    let late: Vec<&&Saga> = sagas.iter().filter(late).collect();
    let names = |them: &[&&Saga]| {
        let keys: Vec<&str> = them.iter().map(|it| it.key.as_str()).collect();
        text::some_of(keys)
    };
    let bad = stuck.len() + open.len() + late.len();
    case.value = Some(text::count(bad as u64, "saga"));
    if !stuck.is_empty() {
        case.violated(format!(
            "{} stuck: {}",
            text::count(stuck.len() as u64, "saga"),
            names(&stuck)
        ));
    }
    if !open.is_empty() {
        let told = format!(
            "{} of {} not final {} after the load's end: {}",
            open.len(),
            text::count(sagas.len() as u64, "saga"),
            text::span(read_at.saturating_sub(context.load_end)),
            names(&open)
        );
        if read_at >= bound {
            case.violated(told);
        } else {
            case.missing(Gap::new(
                told,
                format!(
                    "raise `phases: drain: within` to {} or more",
                    text::span(within)
                ),
            ));
        }
    }
    if !late.is_empty() {
        let last = late
            .iter()
            .filter_map(|it| ended(it))
            .max()
            .unwrap_or(bound);
        case.violated(format!(
            "{} became final later than {} after the load's end, the last after {}",
            text::count(late.len() as u64, "saga"),
            text::span(within),
            text::span(last - context.load_end)
        ));
    }
    // What was read in time was final in time, whenever that was.
    let undated = sagas
        .iter()
        .filter(|it| is_final(it) && ended(it).is_none());
    let undated = undated.count() as u64;
    if undated > 0 && read_at > bound {
        case.missing(Gap::new(
            format!("{} final, but not since when", text::count(undated, "saga")),
            format!(
                "let `select:` of `evidence: {}` yield `ended-ns`",
                property.evidence
            ),
        ));
    }
    for it in stuck.iter().chain(&open).chain(&late) {
        let state = format!("{:?}", it.state).to_lowercase();
        case.find(
            Status::Fail,
            ended(it),
            &it.key,
            format!("{state}{}", log::ending(it)),
        );
    }
}

/// Sagas that became final no further from the limit than their source's clock is known.
fn judge_near(context: &Context<'_>, case: &mut Case, property: &Sagas, sagas: &[&Saga]) {
    let within = property.within.as_nanos() as u64;
    let error = context.clock_error(&property.evidence);
    let bound = context.load_end + within;
    let near = |it: &&&Saga| error > 0 && ended(it).is_some_and(|at| at.abs_diff(bound) <= error);
    let near = sagas.iter().filter(near).count() as u64;
    if near > 0 {
        let what = format!(
            "{} became final about {} after the load's end, which is the limit",
            text::count(near, "saga"),
            text::span(within)
        );
        case.missing(context.clock_gap(&property.evidence, &what));
    }
}

/// When the sagas were read: the last word on those that are not final.
fn read_at(context: &Context<'_>, property: &Sagas) -> u64 {
    let read = context.evidence.events.iter().filter(
        |it| matches!(&it.event, Event::SourceRead { source, .. } if *source == property.evidence),
    );
    let read = read.map(|it| it.at_ns).max();
    read.or(context.drain.as_ref().map(|drain| drain.at))
        .unwrap_or(context.load_end)
}

fn judge_logs(context: &Context<'_>, case: &mut Case, property: &Sagas, sagas: &[&Saga]) {
    let plans = &context.plan.system.sagas;
    let Some(plan) = plans.iter().find(|it| it.name == property.saga) else {
        return;
    };
    let mut kinds: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
    for saga in sagas.iter().filter(|it| is_final(it)) {
        for fault in log::faults(saga, plan) {
            kinds.entry(fault.kind).or_default().push(&saga.key);
            case.find(Status::Fail, fault.at_ns, &saga.key, fault.text);
        }
    }
    for (kind, keys) in kinds {
        let n = keys.len() as u64;
        case.violated(format!(
            "{} {kind}: {}",
            text::count(n, "saga"),
            text::some_of(keys)
        ));
    }
}

/// What the client was told against what became of the saga.
fn judge_agreement(case: &mut Case, sagas: &[&Saga], told: &[&Operation], lost: Option<&Gap>) {
    let mut index: HashMap<&str, &Saga> = HashMap::new();
    for saga in sagas {
        index.insert(&saga.id, saga);
        index.insert(&saga.key, saga);
        if let Some(key) = &saga.client_key {
            index.insert(key, saga);
        }
    }
    let mut missing = 0;
    let mut lies: BTreeMap<String, u64> = BTreeMap::new();
    for it in told {
        let captured = it.captured.values().filter_map(|value| value.as_str());
        let mut names = captured.chain([it.key.as_str()]);
        let saga = names.find_map(|name| index.get(name));
        let exists = matches!(it.outcome, OutcomeClass::Done | OutcomeClass::Accepted);
        match saga {
            None if exists => {
                missing += 1;
                let text = format!("told {:?}, but there is no saga", it.outcome).to_lowercase();
                case.find(Status::Fail, Some(it.ended_ns), &it.key, text);
            }
            Some(saga) => {
                if let Some(lie) = lie(it.outcome, saga.state) {
                    *lies.entry(lie.into()).or_default() += 1;
                    case.find(Status::Fail, Some(it.ended_ns), &saga.key, lie);
                }
            }
            None => {}
        }
    }
    for (lie, n) in lies {
        case.violated(format!("{n} x {lie}"));
    }
    if missing > 0 {
        let told = format!(
            "{} told done or accepted have no saga",
            text::count(missing, "client")
        );
        case.violated_by_absence(told, lost);
    }
}

fn lie(outcome: OutcomeClass, state: SagaState) -> Option<&'static str> {
    match (outcome, state) {
        (OutcomeClass::Done, SagaState::Compensated) => {
            Some("the client was told done, the saga was compensated")
        }
        (OutcomeClass::Refused, SagaState::Committed) => {
            Some("the client was refused, the saga was committed")
        }
        _ => None,
    }
}

/// Whether enough sagas went the ways that the scenario is about.
fn judge_branches(case: &mut Case, property: &Sagas, sagas: &[&Saga]) {
    let resumed = sagas.iter().filter(|it| epochs(it) >= 2).count() as u64;
    let is_undone = |it: &&&Saga| it.state == SagaState::Compensated;
    let undone = sagas.iter().filter(is_undone).count() as u64;
    for (found, wanted, what, help) in [
        (
            resumed,
            property.resumed_at_least,
            "resumed by a later owner",
            "kill the service while more sagas are in flight: raise `arrivals:` or slow a step",
        ),
        (
            undone,
            property.undone_at_least,
            "compensated",
            "let a step fail for longer, or more of them: raise `for:` of the fault or `arrivals:`",
        ),
    ] {
        if found < wanted {
            let were = match found {
                1 => "1 saga was".into(),
                n => format!("{n} sagas were"),
            };
            let told = format!("only {were} {what}, {wanted} wanted");
            case.missing(Gap::new(told, help));
        }
    }
}

fn epochs(saga: &Saga) -> usize {
    let epochs: BTreeSet<u64> = saga.steps.iter().map(|it| it.epoch).collect();
    epochs.len()
}

fn measured(sagas: &[&Saga]) -> String {
    let count = |state| sagas.iter().filter(|it| it.state == state).count();
    let resumed = sagas.iter().filter(|it| epochs(it) >= 2).count();
    let mut told = format!(
        "{} final: {} committed, {} compensated",
        text::count(sagas.len() as u64, "saga"),
        count(SagaState::Committed),
        count(SagaState::Compensated)
    );
    if resumed > 0 {
        told.push_str(&format!(", {resumed} resumed by a later owner"));
    }
    let undoing = sagas.iter().filter(|it| it.state == SagaState::Compensated);
    if let Some(longest) = undoing.filter_map(|it| log::undo_took(it)).max() {
        told.push_str(&format!(", slowest compensation {}", text::span(longest)));
    }
    told
}

/// The step that a log line is about, whether it names the step or its undo.
fn step_of<'a>(plan: &'a SagaPlan, name: &'a str) -> &'a str {
    let undone = plan.undo.iter().find(|(_, undo)| *undo == name);
    undone.map_or(name, |(step, _)| step)
}
