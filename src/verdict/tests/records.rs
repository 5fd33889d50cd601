//! `sagas`, `events`, `catches-up`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::super::testing::*;
use crate::evidence::*;
use crate::plan::load::OutcomeClass;
use crate::plan::property::*;
use crate::plan::system::{DatabasePlan, Fetch};
use crate::plan::{ConsumerName, DatabaseName, SagaName, SourceName, Template};

fn sagas(resumed_at_least: u64) -> Property {
    Property::Sagas(Sagas {
        saga: SagaName::new("order"),
        evidence: SourceName::new("sagas"),
        within: Duration::from_secs(20),
        operation: Some(op()),
        resumed_at_least,
    })
}

fn events() -> Property {
    Property::Events(Events {
        committed: SourceName::new("placed"),
        unknown: Some(SourceName::new("published")),
        lost: 0,
        phantom: 0,
        applied_twice: 0,
        dead_letters: 0,
        dead_letter_evidence: Some(SourceName::new("dead")),
        consumers: BTreeMap::from([(
            ConsumerName::new("notifications"),
            ConsumerEvidence {
                patterns: vec!["order.*".into()],
                effects: SourceName::new("notified"),
                deliveries: Some(SourceName::new("shown")),
            },
        )]),
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
fn every_event_applied_once_passes() {
    let verdict = Run::healthy().passes(events());
    assert!(
        verdict
            .why
            .starts_with("2800 events committed, 2800 applied by 1 consumer, 0 lost")
    );
}

#[test]
fn a_lost_event_fails_and_names_who_committed_it() {
    let mut run = Run::healthy();
    run.evidence
        .effects
        .retain(|it| it.event != "e1200" && it.event != "e1201");
    let says = "2 events committed by `orders` but lost, limit 0: never applied 2 by notifications";
    let verdict = run.fails(events(), says);
    assert_eq!(verdict.blames, ["orders"]);
    assert_eq!(verdict.findings.len(), 2);
}

#[test]
fn the_owner_of_a_database_is_read_from_its_url() {
    let mut run = Run::healthy();
    run.plan.system.databases.push(DatabasePlan {
        name: DatabaseName::new("shop-db"),
        url: Template::parse("sqlite://$(data:orders)/orders.db").unwrap(),
    });
    for source in &mut run.plan.system.evidence {
        if source.name.as_str() == "placed" {
            source.fetch = Fetch::Sql {
                database: DatabaseName::new("shop-db"),
                query: "select 1".into(),
            };
        }
    }
    run.evidence.effects.pop();
    let verdict = run.fails(events(), "but lost");
    assert_eq!(verdict.blames, ["orders"]);
}

#[test]
fn a_lost_event_proves_nothing_when_effects_are_lost_or_in_flight() {
    let mut run = Run::healthy();
    run.evidence.effects.pop();
    run.source_lost("notified");
    run.is_inconclusive(events(), "evidence `notified` lost 3 rows");
    let mut run = Run::healthy();
    run.evidence.effects.pop();
    run.had_no_drain();
    run.is_inconclusive(events(), "the run was not drained");
}

#[test]
fn a_drain_that_ran_out_of_time_fails_with_what_is_missing() {
    let mut run = Run::healthy();
    run.did_not_drain();
    run.is_inconclusive(events(), "the run did not drain: outbox 12 left");
    run.evidence.effects.pop();
    run.fails(
        events(),
        "not drained in time: outbox 12 left, 1 effect still missing",
    );
    run.change_events(|event| {
        if let Event::DrainEnded { left, .. } = event {
            left.clear();
        }
    });
    run.is_inconclusive(events(), "not for the whole quiet period");
}

#[test]
fn an_unread_backlog_is_not_an_empty_one() {
    let mut run = Run::healthy();
    run.change_events(|event| {
        if let Event::DrainEnded { unread, .. } = event {
            unread.insert("outbox".into(), "answered 503".into());
        }
    });
    run.is_inconclusive(
        events(),
        "the backlog `outbox` could not be read: answered 503",
    );
}

fn extra_effect(run: &mut Run, event: &str, key: &str) {
    let mut effect = run.evidence.effects[0].clone();
    effect.event = event.into();
    effect.key = Some(key.into());
    run.evidence.effects.push(effect);
}

#[test]
fn an_effect_of_nothing_is_a_phantom_unless_it_may_have_been_committed() {
    let mut run = Run::healthy();
    extra_effect(&mut run, "ghost", "o-ghost");
    let verdict = run.fails(
        events(),
        "1 effect of events that were never committed: ghost",
    );
    assert_eq!(verdict.blames, ["notifications"]);
    let mut unknown = run.evidence.committed[0].clone();
    unknown.source = SourceName::new("published");
    unknown.id = "k-ghost".into();
    unknown.key = "o-ghost".into();
    run.evidence.committed.push(unknown);
    run.passes(events());
}

#[test]
fn an_unknown_operation_has_effects_only_together_with_its_event() {
    let operations = |source: &str| {
        let mut run = Run::healthy();
        extra_effect(&mut run, "half", "o-half");
        let mut unknown = run.evidence.committed[0].clone();
        unknown.source = SourceName::new("published");
        (unknown.id, unknown.key) = ("k-half".into(), "o-half".into());
        run.evidence.committed.push(unknown);
        for it in &mut run.plan.system.evidence {
            if it.name.as_str() == "published" || it.name.as_str() == source {
                it.fetch = Fetch::Operations {
                    operation: op(),
                    outcomes: vec![OutcomeClass::Unknown],
                };
            }
        }
        run
    };
    let says = "1 effect of events that were never committed: half, 1 of them by operations of \
                unknown outcome, which happened by half";
    let mut run = operations("published");
    run.fails(events(), says);
    // All of it happened.
    let mut event = run.evidence.committed[0].clone();
    (event.id, event.key) = ("half".into(), "o-half".into());
    run.evidence.committed.push(event);
    run.passes(events());
    // What clients were told is no word on what is stored.
    operations("placed").passes(events());
}

#[test]
fn a_phantom_proves_nothing_when_commits_were_lost() {
    let mut run = Run::healthy();
    extra_effect(&mut run, "ghost", "o-ghost");
    run.source_lost("placed");
    run.is_inconclusive(events(), "evidence `placed` lost 3 rows");
}

/// Tells in which order sources were read.
fn were_read(run: &mut Run, sources: [&str; 3]) {
    for (at, source) in (END + 9 * S..).zip(sources) {
        let read = Event::SourceRead {
            source: SourceName::new(source),
            rows: 1,
            lost: 0,
            error: None,
            clock_error_ns: 0,
        };
        run.add(at, read);
    }
}

#[test]
fn an_event_that_may_have_come_between_two_readings_is_no_phantom() {
    let mut undrained = Run::healthy();
    extra_effect(&mut undrained, "late", "o-late");
    undrained.had_no_drain();
    undrained.is_inconclusive(events(), "the run was not drained");
    for order in [
        ["placed", "published", "notified"],
        ["placed", "notified", "published"],
        ["published", "notified", "placed"],
    ] {
        let mut run = undrained.clone();
        were_read(&mut run, order);
        run.is_inconclusive(events(), "the run was not drained");
    }
    were_read(&mut undrained, ["notified", "published", "placed"]);
    undrained.fails(
        events(),
        "1 effect of events that were never committed: late",
    );
}

#[test]
fn an_event_applied_twice_fails_even_when_evidence_was_lost() {
    let mut run = Run::healthy();
    let effect = run.evidence.effects[5].clone();
    run.evidence.effects.push(effect);
    run.source_lost("notified");
    let verdict = run.fails(events(), "1 event applied more than once: e5");
    assert_eq!(verdict.blames, ["notifications"]);
    let mut run = Run::healthy();
    run.evidence.effects[5].count = 2;
    run.fails(events(), "1 event applied more than once: e5");
}

#[test]
fn a_delivery_again_is_legal_and_counted() {
    let mut run = Run::healthy();
    for _ in 0..2 {
        run.evidence.deliveries.push(Delivery {
            source: SourceName::new("shown"),
            consumer: ConsumerName::new("notifications"),
            event: "e5".into(),
            at_ns: None,
        });
    }
    let verdict = run.passes(events());
    assert!(
        verdict.why.contains("1 delivered again (legal)"),
        "{}",
        verdict.why
    );
}

#[test]
fn dead_letters_have_a_budget_and_no_effect() {
    let mut run = Run::healthy();
    run.evidence.dead_letters.push(DeadLetter {
        source: SourceName::new("dead"),
        consumer: ConsumerName::new("notifications"),
        event: "e5".into(),
        reason: "poison".into(),
        at_ns: None,
    });
    let verdict = run.fails(events(), "1 dead letter, at most 0 allowed");
    assert!(
        verdict.why.contains("given up on and applied"),
        "{}",
        verdict.why
    );
    run.evidence.effects.retain(|it| it.event != "e5");
    let Property::Events(mut allowed) = events() else {
        return;
    };
    allowed.dead_letters = 1;
    run.passes(Property::Events(allowed));
}

#[test]
fn versions_of_a_key_never_fall() {
    let mut run = Run::healthy();
    let mut committed = run.evidence.committed[5].clone();
    committed.id = "e5-b".into();
    committed.version = Some(2);
    run.evidence.committed.push(committed);
    let mut effect = run.evidence.effects[5].clone();
    effect.event = "e5-b".into();
    effect.version = Some(2);
    effect.at_ns = effect.at_ns.map(|at| at - MS);
    run.evidence.effects.push(effect);
    run.fails(
        events(),
        "notifications applied versions of o5 out of order",
    );
}

#[test]
fn two_events_of_a_key_do_not_share_a_version() {
    let mut run = Run::healthy();
    let again = |run: &mut Run, event: &str| {
        let mut effect = run.evidence.effects[5].clone();
        effect.event = event.into();
        effect.at_ns = effect.at_ns.map(|at| at + MS);
        run.evidence.effects.push(effect);
    };
    let mut committed = run.evidence.committed[5].clone();
    committed.id = "e5-b".into();
    run.evidence.committed.push(committed);
    again(&mut run, "e5-b");
    run.fails(
        events(),
        "notifications applied two events of o5 as version 1",
    );
    // One event twice is no matter of its version.
    let mut run = Run::healthy();
    again(&mut run, "e5");
    let verdict = run.fails(events(), "1 event applied more than once: e5");
    assert!(!verdict.why.contains("version"), "{}", verdict.why);
}

#[test]
fn two_events_with_one_id_fail() {
    let mut run = Run::healthy();
    let mut other = run.evidence.committed[5].clone();
    other.key = "another".into();
    run.evidence.committed.push(other);
    run.fails(events(), "1 event with the id of another one: e5");
}

#[test]
fn nothing_committed_for_a_consumer_is_inconclusive() {
    let mut run = Run::healthy();
    for it in &mut run.evidence.committed {
        it.kind = "payment.done".into();
    }
    run.is_inconclusive(events(), "no committed event was for notifications");
    run.evidence.committed.clear();
    run.is_inconclusive(events(), "holds no committed event");
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
