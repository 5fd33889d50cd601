//! The algebra of verdicts, by property-based tests: whatever the evidence, these hold.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::case::{Case, Gap};
use super::super::testing::*;
use super::super::{Status, Verdicts, judge};
use crate::evidence::StopReason;
use crate::plan::property::*;
use crate::plan::{ConsumerName, PropertyName, SagaName, SourceName, SourceRef};

/// One property of each kind that rests on records.
fn properties() -> Vec<Property> {
    let breaker = |when| Breaker {
        link: psp(),
        when,
        breaker: crate::plan::system::BreakerPlan {
            threshold: 0.5,
            window: 20,
            min_calls: 10,
            open_for: Duration::from_secs(2),
            probes: 3,
            instances: 1,
        },
        transitions: Vec::new(),
    };
    vec![
        Property::Errors(Errors {
            operation: op(),
            window: during(),
            at_most: 0.01,
            unsettled: true,
            accepted_at_most: None,
        }),
        Property::Breaker(breaker(BreakerWhen::During {
            fault: fault_name(),
            opens_within: Duration::from_secs(4),
            blocks_at_least: 0.95,
        })),
        Property::Sagas(Sagas {
            saga: SagaName::new("order"),
            evidence: SourceName::new("sagas"),
            within: Duration::from_secs(20),
            operation: Some(op()),
            resumed_at_least: 0,
            undone_at_least: 0,
        }),
        Property::Events(Events {
            committed: SourceName::new("placed"),
            unknown: None,
            lost: 0,
            phantom: 0,
            applied_twice: 0,
            dead_letters: 0,
            dead_letter_evidence: None,
            consumers: BTreeMap::from([(
                ConsumerName::new("notifications"),
                ConsumerEvidence {
                    patterns: vec!["#".into()],
                    effects: SourceName::new("notified"),
                    deliveries: None,
                },
            )]),
        }),
        Property::Conserved(Conserved {
            left: SourceName::new("charges"),
            right: SourceName::new("owed"),
            never_below: None,
        }),
    ]
}

fn judged(run: &Run) -> Vec<Status> {
    let mut run = run.clone();
    run.plan.properties = properties()
        .into_iter()
        .enumerate()
        .map(|(n, property)| PropertyPlan {
            name: PropertyName::new(format!("p{n}")),
            source: SourceRef {
                file: String::new(),
                line: 1,
                column: 1,
            },
            property,
            expected: Expected::default(),
        })
        .collect();
    let verdicts = judge(&run.plan, &run.evidence).verdicts;
    verdicts.iter().map(|it| it.status).collect()
}

/// A run with a few things gone wrong.
fn some_run(errors: usize, lost: usize, open: usize) -> Run {
    let mut run = Run::healthy();
    for it in run.operations_in(ON, OFF).into_iter().take(errors) {
        time_out(it);
    }
    run.evidence.effects.truncate(2800 - lost);
    for saga in run.evidence.sagas.iter_mut().take(open) {
        saga.state = crate::evidence::SagaState::Stuck;
    }
    run
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Pass),
        Just(Status::Inconclusive),
        Just(Status::Fail)
    ]
}

/// What can be said in a case.
#[derive(Clone, Debug)]
enum Word {
    Violated,
    Missing,
    Blocked,
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        Just(Word::Violated),
        Just(Word::Missing),
        Just(Word::Blocked)
    ]
}

fn say(case: &mut Case, word: &Word) {
    match word {
        Word::Violated => case.violated("broken"),
        Word::Missing => case.missing(Gap::new("missing", "add it")),
        Word::Blocked => case.blocked(Gap::new("blocked", "unblock it")),
    }
}

fn status_of(words: &[Word]) -> Status {
    let mut case = Case::new("things");
    for word in words {
        say(&mut case, word);
    }
    case.status()
}

proptest! {
    #[test]
    fn a_case_passes_only_when_nothing_was_said_against_it(words in prop::collection::vec(word(), 0..6)) {
        prop_assert_eq!(status_of(&words) == Status::Pass, words.is_empty());
    }

    #[test]
    fn a_violation_more_never_turns_a_failure_into_anything_else(
        words in prop::collection::vec(word(), 0..6),
    ) {
        let mut more = words.clone();
        more.push(Word::Violated);
        prop_assert!(status_of(&more) >= status_of(&words));
        prop_assert_ne!(status_of(&more), Status::Pass);
    }

    #[test]
    fn a_gap_more_never_makes_a_pass(words in prop::collection::vec(word(), 0..6), gap in word()) {
        let mut more = words;
        more.push(gap);
        prop_assert_ne!(status_of(&more), Status::Pass);
    }

    #[test]
    fn the_order_of_words_does_not_matter(words in prop::collection::vec(word(), 0..6)) {
        let turned: Vec<Word> = words.iter().rev().cloned().collect();
        prop_assert_eq!(status_of(&words), status_of(&turned));
    }

    #[test]
    fn verdicts_compose_by_their_maximum(statuses in prop::collection::vec(status(), 0..6)) {
        let mut run = Run::healthy();
        let one = run.verdict(Property::StaysUp);
        let with = |status: &Status| {
            let mut verdict = one.clone();
            verdict.status = *status;
            verdict
        };
        let mut verdicts = Verdicts {
            ended: StopReason::Finished,
            ended_why: None,
            verdicts: statuses.iter().map(with).collect(),
        };
        let worst = statuses.iter().copied().max().unwrap_or(Status::Inconclusive);
        prop_assert_eq!(verdicts.status(), worst);
        verdicts.ended = StopReason::Interrupt;
        prop_assert_eq!(verdicts.status(), worst.max(Status::Inconclusive));
    }
}

proptest! {
    // Each case judges whole runs: fewer of them.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn the_order_of_records_does_not_matter(
        errors in 0usize..30, lost in 0usize..3, open in 0usize..3, turn in 1usize..2000,
    ) {
        let run = some_run(errors, lost, open);
        let mut turned = run.clone();
        let evidence = &mut turned.evidence;
        evidence.operations.rotate_left(turn);
        evidence.calls.rotate_left(turn);
        evidence.sagas.rotate_left(turn);
        evidence.committed.reverse();
        evidence.effects.reverse();
        evidence.entries.rotate_left(turn);
        prop_assert_eq!(judged(&run), judged(&turned));
    }

    #[test]
    fn more_evidence_of_a_violation_never_helps(
        errors in 0usize..30, lost in 0usize..3, open in 0usize..3, more in 1usize..30,
    ) {
        let before = judged(&some_run(errors, lost, open));
        let after = judged(&some_run(errors + more, lost + more, open + more));
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(after >= before, "{before:?} became {after:?}");
        }
    }

    #[test]
    fn less_evidence_never_makes_a_pass(
        errors in 0usize..30, lost in 0usize..3, kept in 0usize..2800, kind in 0usize..7,
    ) {
        let run = some_run(errors, lost, 0);
        let mut less = run.clone();
        let evidence = &mut less.evidence;
        match kind {
            0 => evidence.committed.truncate(kept),
            1 => evidence.effects.truncate(kept),
            2 => evidence.entries.truncate(kept),
            3 => evidence.sagas.truncate(kept),
            4 => evidence.sources.clear(),
            5 => evidence.calls.truncate(kept),
            _ => evidence.events.truncate(kept % 12),
        }
        let lacks_truth = kind == 0;
        for (n, (before, after)) in judged(&run).iter().zip(judged(&less)).enumerate() {
            // Without the commits nobody can know what was lost; the source's own word that it was
            // read in full (`lost`, `error`) is what guards them.
            let exempt = lacks_truth && n == 3;
            prop_assert!(exempt || after != Status::Pass || *before == Status::Pass);
        }
    }
}

#[test]
fn a_checker_that_panics_is_inconclusive_and_says_so() {
    let case = super::super::guarded(|| panic!("index out of bounds"));
    assert_eq!(case.status(), Status::Inconclusive);
    let plan = PropertyPlan {
        name: PropertyName::new("it"),
        source: SourceRef {
            file: String::new(),
            line: 1,
            column: 1,
        },
        property: Property::StaysUp,
        expected: Expected::default(),
    };
    let verdict = case.close(&plan);
    assert_eq!(verdict.why, "its checker crashed: index out of bounds");
}

#[test]
fn findings_are_bounded_and_the_rest_is_counted() {
    let mut case = Case::new("things");
    for n in 0..60 {
        case.find(Status::Fail, Some(n), "it", "broken");
    }
    case.violated("broken");
    let mut run = Run::healthy();
    run.verdict(Property::StaysUp);
    let verdict = case.close(&run.plan.properties[0]);
    assert_eq!((verdict.findings.len(), verdict.findings_more), (50, 10));
}
