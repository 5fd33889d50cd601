use super::*;
use proptest::prelude::*;

const DEADLINE: i64 = 8_000;

fn saga() -> Saga {
    Saga::new(Mode::Running, plan("reserve,charge").unwrap(), DEADLINE)
}

fn after(rows: &[(Step, Phase)]) -> Saga {
    let mut saga = saga();
    for (step, phase) in rows {
        saga.note(*step, *phase);
    }
    saga
}

#[test]
fn steps_run_in_the_order_of_the_plan() {
    assert_eq!(saga().next(0), Action::Run(Step::Validate));
    let saga = after(&[(Step::Validate, Phase::Start), (Step::Validate, Phase::Ok)]);
    assert_eq!(saga.next(0), Action::Run(Step::Reserve));
}

#[test]
fn an_unknown_charge_is_repeated_before_the_deadline_and_refunded_after_it() {
    let mut saga = after(&[
        (Step::Validate, Phase::Ok),
        (Step::Reserve, Phase::Ok),
        (Step::Charge, Phase::Start),
        (Step::Charge, Phase::Unknown),
    ]);
    assert_eq!(saga.next(DEADLINE - 1), Action::Run(Step::Charge));
    assert_eq!(saga.next(DEADLINE), Action::GiveUp(Reason::Deadline));
    saga.mode = Mode::Compensating;
    assert_eq!(saga.next(DEADLINE), Action::Undo(Step::Charge));
    saga.note(Step::Charge, Phase::UndoOk);
    assert_eq!(saga.next(DEADLINE), Action::Undo(Step::Reserve));
    saga.note(Step::Reserve, Phase::UndoOk);
    assert_eq!(saga.next(DEADLINE), Action::Finish(Mode::Aborted));
}

#[test]
fn a_charge_that_was_only_ever_refused_needs_no_refund() {
    let mut saga = after(&[
        (Step::Reserve, Phase::Ok),
        (Step::Charge, Phase::Start),
        (Step::Charge, Phase::Fail),
    ]);
    saga.mode = Mode::Compensating;
    assert_eq!(saga.next(0), Action::Undo(Step::Reserve));
}

#[test]
fn a_refusal_does_not_clear_an_earlier_unknown() {
    let mut saga = after(&[
        (Step::Charge, Phase::Start),
        (Step::Charge, Phase::Unknown),
        (Step::Charge, Phase::Start),
        (Step::Charge, Phase::Fail),
    ]);
    saga.mode = Mode::Compensating;
    assert_eq!(saga.next(0), Action::Undo(Step::Charge));
}

#[test]
fn a_start_without_an_end_counts_as_unknown_even_after_a_later_refusal() {
    let mut saga = after(&[
        (Step::Charge, Phase::Start),
        (Step::Charge, Phase::Start),
        (Step::Charge, Phase::Fail),
    ]);
    saga.mode = Mode::Compensating;
    assert_eq!(saga.next(0), Action::Undo(Step::Charge));
}

#[test]
fn past_the_pivot_no_deadline_gives_up() {
    let saga = after(&[
        (Step::Validate, Phase::Ok),
        (Step::Reserve, Phase::Ok),
        (Step::Charge, Phase::Ok),
        (Step::Confirm, Phase::Ok),
    ]);
    assert_eq!(saga.next(i64::MAX), Action::Run(Step::Commit));
}

#[test]
fn a_plan_is_data_and_a_wrong_one_is_refused() {
    assert_eq!(plan("charge, reserve").unwrap()[1], Step::Charge);
    assert!(plan("reserve").is_err());
    assert!(plan("reserve,reserve").is_err());
}

/// How one attempt goes: what the log will say, or that the process dies before it says anything.
fn any_end() -> impl Strategy<Value = Option<Phase>> {
    prop_oneof![
        4 => Just(Some(Phase::Ok)),
        2 => Just(Some(Phase::Fail)),
        2 => Just(Some(Phase::Unknown)),
        1 => Just(None),
    ]
}

/// The world: which steps have an effect. An unknown attempt may or may not have had one.
#[derive(Default)]
struct World {
    effects: std::collections::HashSet<Step>,
}

proptest! {
    #[test]
    fn however_attempts_go_the_end_is_all_or_nothing(
        ends in proptest::collection::vec((any_end(), any::<bool>()), 0..60),
        order in prop_oneof![Just("reserve,charge"), Just("charge,reserve")],
    ) {
        let mut saga = Saga::new(Mode::Running, plan(order).unwrap(), DEADLINE);
        let mut world = World::default();
        let mut ends = ends.into_iter();
        for turn in 0..400 {
            // After the last scripted end everything answers, as after a heal.
            let (end, happened) = ends.next().unwrap_or((Some(Phase::Ok), true));
            match saga.next(turn * 300) {
                Action::Run(step) => {
                    prop_assert_eq!(saga.mode, Mode::Running);
                    saga.note(step, Phase::Start);
                    if end == Some(Phase::Ok) || (end != Some(Phase::Fail) && happened) {
                        world.effects.insert(step);
                    }
                    // An effect under the step's key is there for good: a repeat finds it.
                    let found = world.effects.contains(&step);
                    let end = end.map(|end| match end {
                        Phase::Fail if found => Phase::Ok,
                        other => other,
                    });
                    end.into_iter().for_each(|end| saga.note(step, end));
                }
                Action::GiveUp(_) => {
                    prop_assert!(!saga.past_pivot());
                    saga.mode = Mode::Compensating;
                }
                Action::Undo(step) => {
                    prop_assert!(!saga.past_pivot());
                    saga.note(step, Phase::UndoStart);
                    if end == Some(Phase::Ok) {
                        world.effects.remove(&step);
                        saga.note(step, Phase::UndoOk);
                    }
                }
                Action::Finish(mode) => saga.mode = mode,
                Action::Rest => break,
            }
        }
        let undoable = [Step::Reserve, Step::Charge];
        match saga.mode {
            Mode::Done => prop_assert!(Step::ALL.iter().all(|step| world.effects.contains(step))),
            Mode::Aborted => {
                prop_assert!(undoable.iter().all(|step| !world.effects.contains(step)));
            }
            other => prop_assert!(false, "still {:?}", other),
        }
    }
}
