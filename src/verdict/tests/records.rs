//! `sagas`, `catches-up`.

use std::time::Duration;

use serde_json::json;

use super::super::testing::*;
use crate::evidence::*;
use crate::plan::load::OutcomeClass;
use crate::plan::property::*;
use crate::plan::{SagaName, SourceName};

fn sagas(resumed_at_least: u64) -> Property {
    Property::Sagas(Sagas {
        saga: SagaName::new("order"),
        evidence: SourceName::new("sagas"),
        within: Duration::from_secs(20),
        operation: Some(op()),
        resumed_at_least,
        undone_at_least: 0,
    })
}

fn catches_up() -> Property {
    Property::CatchesUp(CatchesUp {
        view: SourceName::new("view"),
        source: SourceName::new("truth"),
        after: Some(fault_name()),
        within: Duration::from_secs(5),
    })
}

/// Makes saga `n` a compensated one, with an operation that was accepted.
fn compensate(run: &mut Run, n: usize) -> &mut Saga {
    run.evidence.operations[n].outcome = OutcomeClass::Accepted;
    let saga = &mut run.evidence.sagas[n];
    let at = saga.started_ns;
    saga.state = SagaState::Compensated;
    saga.steps = vec![
        step("reserve", StepPhase::Started, at, 1),
        step("reserve", StepPhase::Done, at + MS, 1),
        step("charge", StepPhase::Started, at + 2 * MS, 1),
        step("charge", StepPhase::Unknown, at + 3 * MS, 1),
        step("refund", StepPhase::UndoStarted, at + 4 * MS, 1),
        step("refund", StepPhase::Undone, at + 5 * MS, 1),
        step("reserve", StepPhase::UndoStarted, at + 6 * MS, 1),
        step("reserve", StepPhase::Undone, at + 7 * MS, 1),
    ];
    saga
}

#[test]
fn sagas_that_are_all_final_pass() {
    let mut run = Run::healthy();
    compensate(&mut run, 1200);
    let verdict = run.passes(sagas(0));
    assert!(
        verdict
            .why
            .contains("2800 sagas final: 2799 committed, 1 compensated")
    );
}

#[test]
fn a_saga_that_is_open_stuck_or_late_fails_and_names_its_service() {
    let mut run = Run::healthy();
    run.evidence.sagas[1200].state = SagaState::Running;
    let read = Event::SourceRead {
        source: SourceName::new("sagas"),
        rows: 1,
        lost: 0,
        error: None,
        clock_error_ns: 0,
    };
    run.add(END + 31 * S, read);
    let verdict = run.fails(
        sagas(0),
        "1 of 2800 sagas not final 31s after the load's end: o1200",
    );
    assert_eq!(verdict.blames, ["orders"]);
    run.evidence.sagas[1200].state = SagaState::Stuck;
    run.fails(sagas(0), "1 saga stuck: o1200");
    run.evidence.sagas[1200].state = SagaState::Committed;
    run.evidence.sagas[1200].ended_ns = Some(END + 25 * S);
    run.fails(sagas(0), "became final later than 20s");
}

#[test]
fn a_saga_that_does_not_say_when_it_ended_is_dated_by_its_log_or_not_at_all() {
    let mut run = Run::healthy();
    let read = Event::SourceRead {
        source: SourceName::new("sagas"),
        rows: 1,
        lost: 0,
        error: None,
        clock_error_ns: 0,
    };
    run.add(END + 31 * S, read);
    run.passes(sagas(0));
    let saga = &mut run.evidence.sagas[1200];
    saga.ended_ns = None;
    saga.steps.last_mut().unwrap().at_ns = END + 25 * S;
    run.fails(sagas(0), "1 saga became final later than 20s");
    run.evidence.sagas[1200].steps.clear();
    run.evidence.sagas[1200].state = SagaState::Compensated;
    let Property::Sagas(mut unjoined) = sagas(0) else {
        unreachable!()
    };
    unjoined.operation = None;
    run.is_inconclusive(
        Property::Sagas(unjoined),
        "1 saga final, but not since when",
    );
}

#[test]
fn a_saga_that_had_too_little_time_is_inconclusive() {
    let mut run = Run::healthy();
    run.evidence.sagas[1200].state = SagaState::Compensating;
    let verdict = run.is_inconclusive(sagas(0), "not final 8s after the load's end");
    assert!(
        verdict
            .help
            .is_some_and(|help| help.contains("drain: within` to 20s"))
    );
}

#[test]
fn a_committed_saga_does_each_step_once_and_undoes_none() {
    let mut run = Run::healthy();
    run.evidence.sagas[7].steps.retain(|it| it.name != "charge");
    run.fails(sagas(0), "1 saga committed with a step missing: o7");
    let mut run = Run::healthy();
    let twice = run.evidence.sagas[7].steps[3].clone();
    run.evidence.sagas[7].steps.push(twice);
    run.fails(sagas(0), "did a step more than once: o7");
    let mut run = Run::healthy();
    let undone = step("refund", StepPhase::Undone, 0, 1);
    run.evidence.sagas[7].steps.insert(0, undone);
    run.fails(sagas(0), "committed with a step undone: o7");
}

#[test]
fn a_compensated_saga_leaves_no_effect() {
    let mut run = Run::healthy();
    let saga = compensate(&mut run, 1200);
    saga.steps.retain(|it| it.name != "refund");
    run.fails(sagas(0), "compensated with an effect left: o1200");
}

#[test]
fn a_step_that_definitely_failed_needs_no_undo() {
    let mut run = Run::healthy();
    let saga = compensate(&mut run, 1200);
    saga.steps.retain(|it| it.name != "refund");
    saga.steps[3].phase = StepPhase::Failed;
    run.passes(sagas(0));
}

#[test]
fn a_refusal_says_nothing_about_an_earlier_attempt_that_was_never_answered() {
    let mut run = Run::healthy();
    let saga = compensate(&mut run, 1200);
    saga.steps.retain(|it| it.name != "refund");
    let at = saga.steps[3].at_ns;
    saga.steps[3].phase = StepPhase::Unknown;
    saga.steps
        .insert(4, step("charge", StepPhase::Started, at, 2));
    saga.steps
        .insert(5, step("charge", StepPhase::Failed, at, 2));
    run.fails(sagas(0), "1 saga compensated with an effect left: o1200");
    // The same attempt, asked about and refused after all, is another matter.
    for line in &mut run.evidence.sagas[1200].steps {
        line.epoch = 1;
    }
    run.passes(sagas(0));
}

#[test]
fn a_step_done_after_its_undo_and_an_undo_past_the_pivot_fail() {
    let mut run = Run::healthy();
    let saga = compensate(&mut run, 1200);
    let at = saga.started_ns + 20 * MS;
    saga.steps.push(step("charge", StepPhase::Done, at, 1));
    run.fails(sagas(0), "did a step after its undo: o1200");
    let mut run = Run::healthy();
    let saga = compensate(&mut run, 1200);
    let at = saga.started_ns;
    saga.steps
        .insert(4, step("confirm", StepPhase::Done, at, 1));
    run.fails(sagas(0), "undid a step past the pivot: o1200");
}

#[test]
fn a_step_is_undone_after_what_was_built_on_it() {
    // Reserved, charged, released, and only then refunded.
    let released_first = || {
        let mut run = Run::healthy();
        let saga = compensate(&mut run, 1200);
        for line in &mut saga.steps[4..6] {
            line.at_ns += 10 * MS;
        }
        run
    };
    let verdict = released_first().fails(
        sagas(0),
        "1 saga undid a step before what was built on it: o1200",
    );
    let text = "`reserve` was undone before `charge`, which had begun after it";
    assert_eq!(verdict.findings[0].text, text);
    // Side by side, neither was built on the other.
    let mut run = released_first();
    run.evidence.sagas[1200].steps[1].at_ns += 2 * MS;
    run.passes(sagas(0));
    // Where nothing was charged, nothing was built.
    let mut run = released_first();
    run.evidence.sagas[1200].steps[3].phase = StepPhase::Failed;
    run.passes(sagas(0));
}

#[test]
fn what_the_client_was_told_must_be_true() {
    let mut run = Run::healthy();
    compensate(&mut run, 1200);
    run.evidence.operations[1200].outcome = OutcomeClass::Done;
    run.fails(
        sagas(0),
        "1 x the client was told done, the saga was compensated",
    );
    let mut run = Run::healthy();
    run.evidence.operations[9].outcome = OutcomeClass::Refused;
    run.fails(sagas(0), "the client was refused, the saga was committed");
    let mut run = Run::healthy();
    run.evidence.sagas.remove(9);
    run.fails(sagas(0), "1 client told done or accepted have no saga");
    run.source_lost("sagas");
    run.is_inconclusive(sagas(0), "evidence `sagas` lost 3 rows");
}

#[test]
fn an_unknown_operation_may_have_gone_either_way() {
    let mut run = Run::healthy();
    compensate(&mut run, 1200);
    time_out(&mut run.evidence.operations[1200]);
    time_out(&mut run.evidence.operations[1201]);
    time_out(&mut run.evidence.operations[1202]);
    run.evidence.sagas.remove(1202);
    run.passes(sagas(0));
}

#[test]
fn sagas_are_joined_by_the_clients_key_when_nothing_was_captured() {
    let mut run = Run::healthy();
    for it in &mut run.evidence.operations {
        it.captured.clear();
    }
    run.passes(sagas(0));
}

#[test]
fn resumed_sagas_are_counted_by_their_epochs() {
    let mut run = Run::healthy();
    for saga in &mut run.evidence.sagas[1200..1219] {
        for line in &mut saga.steps[3..] {
            line.epoch = 2;
        }
    }
    run.passes(sagas(19));
    run.is_inconclusive(
        sagas(20),
        "only 19 sagas were resumed by a later owner, 20 wanted",
    );
}

#[test]
fn compensated_sagas_are_counted_where_they_are_wanted() {
    let mut run = Run::healthy();
    let compensated = |it: &&Saga| it.state == SagaState::Compensated;
    let undone = run.evidence.sagas.iter().filter(compensated).count() as u64;
    let wanted = |at_least| match sagas(0) {
        Property::Sagas(sagas) => Property::Sagas(Sagas {
            undone_at_least: at_least,
            ..sagas
        }),
        other => other,
    };
    run.passes(wanted(undone));
    let verdict = run.is_inconclusive(wanted(undone + 1), "compensated");
    assert!(verdict.why.contains(&format!("{} wanted", undone + 1)));
}

#[test]
fn no_saga_at_all_and_a_source_cut_short_are_inconclusive() {
    let mut run = Run::healthy();
    let state = run.evidence.sources.get_mut(&SourceName::new("sagas"));
    state.unwrap().error = Some("row 310: answered 503".into());
    let verdict = run.is_inconclusive(sagas(0), "`sagas` ended early: row 310: answered 503");
    let help = "keep `orders` up until collection ends";
    assert_eq!(verdict.help.as_deref(), Some(help));
    let mut run = Run::healthy();
    run.evidence.sagas.clear();
    run.is_inconclusive(sagas(0), "holds no saga");
}

#[test]
fn a_saga_closer_to_its_limit_than_its_clock_is_known_is_inconclusive() {
    let mut run = Run::healthy();
    let clock = |run: &mut Run, error_ns| {
        let state = run.evidence.sources.get_mut(&SourceName::new("sagas"));
        state.unwrap().clock_error_ns = error_ns;
    };
    run.evidence.sagas[1200].ended_ns = Some(END + 20 * S + MS);
    run.fails(sagas(0), "became final later than 20s");
    clock(&mut run, 2 * MS);
    let says = "1 saga became final about 20s after the load's end, which is the limit, and the \
                wall clock of `sagas` is only known to 2ms";
    let verdict = run.is_inconclusive(sagas(0), says);
    assert!(verdict.help.is_some_and(|help| help.contains("at-mono-ns")));
    run.evidence.sagas[1200].ended_ns = Some(END + 20 * S - MS);
    run.is_inconclusive(sagas(0), says);
    run.evidence.sagas[1200].ended_ns = Some(END + 20 * S - 3 * MS);
    run.passes(sagas(0));
    run.evidence.sagas[1200].ended_ns = Some(END + 20 * S + 3 * MS);
    run.fails(sagas(0), "became final later than 20s");
}

fn version(source: &str, version: u64, at_ns: u64) -> Version {
    Version {
        source: SourceName::new(source),
        key: "o1".into(),
        version: json!(version),
        at_ns,
    }
}

fn with_view(caught_up_at: Option<u64>) -> Run {
    let mut run = Run::healthy();
    for second in 0..80 {
        let at = second * S;
        let behind = at >= ON && caught_up_at.is_none_or(|caught| at < caught);
        let truth = if at >= ON { 5 } else { 4 };
        let view = if behind { 4 } else { truth };
        run.evidence.versions.push(version("truth", truth, at));
        run.evidence.versions.push(version("view", view, at));
    }
    run
}

#[test]
fn a_view_that_catches_up_in_time_passes_later_fails_never_fails() {
    let verdict = with_view(Some(OFF + 3 * S)).passes(catches_up());
    assert_eq!(verdict.value.as_deref(), Some("3s"));
    let verdict = with_view(Some(OFF + 8 * S)).fails(catches_up(), "caught up only 8s later");
    assert_eq!(verdict.blames, ["notifications"]);
    with_view(None).fails(catches_up(), "never caught up");
}

#[test]
fn a_version_that_goes_back_fails() {
    let mut run = with_view(Some(OFF));
    run.evidence
        .versions
        .push(version("view", 3, OFF + 500 * MS));
    run.fails(catches_up(), "`o1` went back from 5 to 3");
}

#[test]
fn a_view_read_once_or_not_at_all_or_of_nothing_is_inconclusive() {
    let mut run = with_view(Some(OFF));
    run.evidence.versions.retain(|it| it.at_ns >= 79 * S);
    run.is_inconclusive(catches_up(), "it had caught up, but nobody knows when");
    run.source_lost("view");
    run.is_inconclusive(catches_up(), "evidence `view` lost 3 rows");
    let mut run = with_view(Some(OFF));
    run.evidence.versions.clear();
    run.is_inconclusive(catches_up(), "holds no version");
    let mut run = with_view(None);
    run.evidence.versions.retain(|it| it.at_ns < OFF + 2 * S);
    run.is_inconclusive(catches_up(), "was not read late enough");
}

#[test]
fn a_view_closer_to_the_limit_than_its_clock_is_known_is_inconclusive() {
    let mut run = with_view(Some(OFF + 5 * S));
    let verdict = run.passes(catches_up());
    assert_eq!(verdict.value.as_deref(), Some("5s"));
    let state = run.evidence.sources.get_mut(&SourceName::new("view"));
    state.unwrap().clock_error_ns = 2 * MS;
    run.is_inconclusive(
        catches_up(),
        "about 5s later, the limit, and the wall clock of `view`",
    );
    let state = run.evidence.sources.get_mut(&SourceName::new("view"));
    state.unwrap().clock_error_ns = 0;
    run.passes(catches_up());
}

#[test]
fn a_saga_is_what_its_last_reading_says() {
    let mut run = Run::healthy();
    let mut again = run.evidence.sagas[1200].clone();
    again.state = SagaState::Compensating;
    again.ended_ns = None;
    run.evidence.sagas.push(again);
    run.is_inconclusive(sagas(0), "1 of 2800 sagas not final");
}

/// A view with a second row, which `has` it at a second of the run.
fn with_second_row(has: impl Fn(u64) -> bool) -> Run {
    let mut run = with_view(Some(OFF));
    for second in (0..80).filter(|second| has(*second)) {
        let mut row = version("view", 1, second * S);
        row.key = "o2".into();
        run.evidence.versions.push(row);
    }
    run
}

fn row_of_truth(run: &mut Run, seconds: std::ops::Range<u64>) {
    for second in seconds {
        let mut row = version("truth", 1, second * S);
        row.key = "o2".into();
        run.evidence.versions.push(row);
    }
}

#[test]
fn a_row_that_a_view_lost_again_is_missing() {
    let mut run = with_second_row(|second| second < 60);
    row_of_truth(&mut run, 0..80);
    run.fails(catches_up(), "never caught up");
    let mut run = with_second_row(|_| true);
    row_of_truth(&mut run, 0..80);
    run.passes(catches_up());
}

#[test]
fn a_row_that_both_have_dropped_is_not_waited_for() {
    let mut run = with_second_row(|second| second < 60);
    row_of_truth(&mut run, 0..60);
    run.passes(catches_up());
}

#[test]
fn a_view_that_is_empty_at_the_end_has_not_caught_up() {
    let mut run = with_view(Some(OFF));
    run.evidence
        .versions
        .retain(|it| it.source.as_str() == "truth" || it.at_ns < END);
    run.add(
        END + 9 * S,
        Event::SourceRead {
            source: SourceName::new("view"),
            rows: 70,
            lost: 0,
            error: None,
            clock_error_ns: 0,
        },
    );
    run.fails(catches_up(), "never caught up");
}

#[test]
fn between_two_readings_nobody_knows_when_a_view_caught_up() {
    let mut run = with_view(Some(OFF + 3 * S));
    let seldom = |it: &Version| it.at_ns % (4 * S) == 3 * S;
    run.evidence
        .versions
        .retain(|it| it.source.as_str() == "truth" || seldom(it));
    run.is_inconclusive(catches_up(), "caught up 2s to 6s later, the limit is 5s");
}

/// A source that goes on for ever, and a view that is `behind` it by so many seconds.
fn under_writes(behind: impl Fn(u64) -> u64) -> Run {
    let mut run = Run::healthy();
    for second in 0..80u64 {
        let truth = second.min(70);
        let seen = second.saturating_sub(behind(second)).min(70);
        let at = second * S;
        run.evidence.versions.push(version("truth", truth, at));
        run.evidence.versions.push(version("view", seen, at));
    }
    run
}

#[test]
fn under_writes_a_view_has_caught_up_with_what_was_known_at_the_faults_end() {
    let verdict = under_writes(|_| 1).passes(catches_up());
    assert_eq!(verdict.value.as_deref(), Some("1s"));
    under_writes(|_| 8).fails(catches_up(), "caught up only 8s later");
    let mut hashes = under_writes(|_| 1);
    for it in &mut hashes.evidence.versions {
        it.version = json!(format!("hash of {}", it.version));
    }
    hashes.is_inconclusive(catches_up(), "nobody knows what `truth` held before");
    let mut once = under_writes(|_| 1);
    once.evidence
        .versions
        .retain(|it| it.source.as_str() == "view" || it.at_ns == 79 * S);
    once.is_inconclusive(catches_up(), "nobody knows what `truth` held before");
}
