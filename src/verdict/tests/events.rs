//! `events`.

use std::collections::BTreeMap;

use super::super::testing::*;
use crate::evidence::*;
use crate::plan::load::OutcomeClass;
use crate::plan::property::*;
use crate::plan::system::{DatabasePlan, Fetch};
use crate::plan::{ConsumerName, DatabaseName, SourceName, Template};

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
fn a_row_that_counts_no_effect_applied_nothing() {
    let mut run = Run::healthy();
    run.evidence.effects[1200].count = 0;
    run.fails(events(), "1 event committed by `orders` but lost");
    run.evidence.dead_letters.push(DeadLetter {
        source: SourceName::new("dead"),
        consumer: ConsumerName::new("notifications"),
        event: "e1200".into(),
        reason: "poison".into(),
        at_ns: None,
    });
    let Property::Events(mut property) = events() else {
        unreachable!()
    };
    property.dead_letters = 1;
    run.passes(Property::Events(property));
}

/// The same of two consumers, of which one event may be lost.
fn two_consumers(run: &mut Run) -> Property {
    let Property::Events(mut property) = events() else {
        unreachable!()
    };
    let other = ConsumerName::new("archive");
    let mut evidence = property.consumers.values().next().unwrap().clone();
    evidence.deliveries = None;
    property.consumers.insert(other.clone(), evidence);
    property.lost = 1;
    let mut effects = run.evidence.effects.clone();
    for it in &mut effects {
        it.consumer = other.clone();
    }
    run.evidence.effects.extend(effects);
    Property::Events(property)
}

#[test]
fn an_event_that_two_consumers_miss_is_one_lost_event() {
    let mut run = Run::healthy();
    let property = two_consumers(&mut run);
    run.evidence.effects.retain(|it| it.event != "e1200");
    run.passes(property.clone());
    run.evidence.effects.retain(|it| it.event != "e1201");
    run.fails(property, "2 events committed by `orders` but lost, limit 1");
}

#[test]
fn what_may_be_lost_may_be_missing_after_a_drain_that_ran_out() {
    let mut run = Run::healthy();
    let property = two_consumers(&mut run);
    run.evidence.effects.retain(|it| it.event != "e1200");
    run.did_not_drain();
    run.is_inconclusive(property.clone(), "the run did not drain");
    run.evidence.effects.retain(|it| it.event != "e1201");
    run.fails(property, "not drained in time");
}
