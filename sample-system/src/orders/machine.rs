//! The saga as a function: what its log says and what time it is → what to do next.
//!
//! Pure: no clock, no database, no network; the driver (`drive.rs`) does what this says and writes down how it went.
//! Garcia-Molina & Salem 1987, with three things that practice adds: a step that started and has no end is *unknown*
//! and is undone like one that was done; a step that certainly did nothing needs no undo; past the pivot there is
//! only forward.

use super::aggregate::Reason;

/// One step of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// Read the user and the prices.
    Validate,
    /// Hold stock; undone by releasing it.
    Reserve,
    /// Take the money; undone by a refund.
    Charge,
    /// The pivot, local: the order is confirmed.
    Confirm,
    /// Turn held stock into sold stock; repeated for ever, it cannot be refused.
    Commit,
}

impl Step {
    const ALL: [Self; 5] = [
        Self::Validate,
        Self::Reserve,
        Self::Charge,
        Self::Confirm,
        Self::Commit,
    ];

    /// The name in the log and in the evidence.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Reserve => "reserve",
            Self::Charge => "charge",
            Self::Confirm => "confirm",
            Self::Commit => "commit",
        }
    }

    /// The step of that name.
    #[must_use]
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }

    /// The word for undoing it, part of its idempotency key; `None` if there is nothing to undo.
    #[must_use]
    pub(super) fn undo(self) -> Option<&'static str> {
        match self {
            Self::Reserve => Some("release"),
            Self::Charge => Some("refund"),
            Self::Validate | Self::Confirm | Self::Commit => None,
        }
    }
}

/// What the log says about one attempt at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// About to be tried; written before the call.
    Start,
    /// It happened.
    Ok,
    /// It certainly did not happen.
    Fail,
    /// Nobody knows: no answer, or one that does not say.
    Unknown,
    /// About to be undone; written before the call.
    UndoStart,
    /// It has no effect any more, and never will.
    UndoOk,
    /// Not undone yet.
    UndoFail,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Start,
        Self::Ok,
        Self::Fail,
        Self::Unknown,
        Self::UndoStart,
        Self::UndoOk,
        Self::UndoFail,
    ];

    /// The name in the log, such as `UNDO_START`.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Ok => "OK",
            Self::Fail => "FAIL",
            Self::Unknown => "UNKNOWN",
            Self::UndoStart => "UNDO_START",
            Self::UndoOk => "UNDO_OK",
            Self::UndoFail => "UNDO_FAIL",
        }
    }

    /// The phase of that name.
    #[must_use]
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// The word in the evidence, such as `undo-started`.
    #[must_use]
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Ok => "done",
            Self::Fail => "failed",
            Self::Unknown => "unknown",
            Self::UndoStart => "undo-started",
            Self::UndoOk => "undone",
            Self::UndoFail => "undo-failed",
        }
    }
}

/// Where a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Going forward.
    Running,
    /// Being undone.
    Compensating,
    /// Every step done.
    Done,
    /// Everything undone.
    Aborted,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Running, Self::Compensating, Self::Done, Self::Aborted];

    /// The name in the table, such as `RUNNING`.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Compensating => "COMPENSATING",
            Self::Done => "DONE",
            Self::Aborted => "ABORTED",
        }
    }

    /// The state of that name.
    #[must_use]
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Whether there is work left.
    #[must_use]
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Compensating)
    }

    /// The word in the evidence: `running`, `compensating`, `committed`, `compensated`.
    #[must_use]
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Done => "committed",
            Self::Aborted => "compensated",
        }
    }
}

/// What the log says about one step so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Attempts forward.
    pub(super) tries: i64,
    /// Attempts to undo.
    pub(super) undo_tries: i64,
    in_flight: bool,
    uncertain: bool,
    done: bool,
    undone: bool,
}

impl Standing {
    fn note(&mut self, phase: Phase) {
        match phase {
            Phase::Start => {
                // A start that follows a start without an end: the process died in between.
                self.uncertain |= self.in_flight;
                self.in_flight = true;
                self.tries += 1;
            }
            Phase::Ok => (self.in_flight, self.done) = (false, true),
            Phase::Fail => self.in_flight = false,
            Phase::Unknown => (self.in_flight, self.uncertain) = (false, true),
            Phase::UndoStart => self.undo_tries += 1,
            Phase::UndoOk => self.undone = true,
            Phase::UndoFail => {}
        }
    }

    /// Whether it may have an effect that is still there.
    fn may_hold(self) -> bool {
        !self.undone && (self.done || self.uncertain || self.in_flight)
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Try a step (again), with the key it always has.
    Run(Step),
    /// Stop going forward; start to undo.
    GiveUp(Reason),
    /// Undo a step (again).
    Undo(Step),
    /// Nothing is left to do: it ends as `Done` or `Aborted`.
    Finish(Mode),
    /// It has ended already.
    Rest,
}

/// A saga as its row and its log tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Saga {
    /// Where it stands.
    pub(super) mode: Mode,
    /// Its steps in order; data, so that `charge` may come before `reserve`.
    pub(super) plan: Vec<Step>,
    /// When it is given up if it has not passed the pivot, in wall-clock ms.
    pub(super) deadline_ms: i64,
    standings: [Standing; 5],
}

impl Saga {
    /// A saga without a log yet.
    #[must_use]
    pub(super) fn new(mode: Mode, plan: Vec<Step>, deadline_ms: i64) -> Self {
        Self {
            mode,
            plan,
            deadline_ms,
            standings: Default::default(),
        }
    }

    /// Takes one row of the log in; rows come in the order they were written.
    pub(super) fn note(&mut self, step: Step, phase: Phase) {
        self.standings[step as usize].note(phase);
    }

    /// What is known about a step.
    #[must_use]
    pub(super) fn standing(&self, step: Step) -> Standing {
        self.standings[step as usize]
    }

    /// Whether the order is confirmed: from here there is only forward.
    #[must_use]
    pub(super) fn past_pivot(&self) -> bool {
        self.standing(Step::Confirm).done
    }

    /// What to do next at `now_ms`.
    #[must_use]
    pub(super) fn next(&self, now_ms: i64) -> Action {
        match self.mode {
            Mode::Done | Mode::Aborted => Action::Rest,
            Mode::Running => self.forward(now_ms),
            Mode::Compensating => self
                .plan
                .iter()
                .rev()
                .find(|step| step.undo().is_some() && self.standing(**step).may_hold())
                .map_or(Action::Finish(Mode::Aborted), |step| Action::Undo(*step)),
        }
    }

    fn forward(&self, now_ms: i64) -> Action {
        let Some(step) = self.plan.iter().find(|step| !self.standing(**step).done) else {
            return Action::Finish(Mode::Done);
        };
        if !self.past_pivot() && now_ms >= self.deadline_ms {
            return Action::GiveUp(Reason::Deadline);
        }
        Action::Run(*step)
    }
}

/// Reads a plan such as `reserve,charge`: the compensatable steps in order; the rest is fixed around them.
///
/// # Errors
/// The text, when it is not `reserve` and `charge`, each once.
pub(super) fn plan(text: &str) -> Result<Vec<Step>, String> {
    let middle: Vec<_> = text
        .split(',')
        .filter_map(|name| Step::named(name.trim()))
        .collect();
    match middle[..] {
        [Step::Reserve, Step::Charge] | [Step::Charge, Step::Reserve] => {
            let mut steps = vec![Step::Validate];
            steps.extend(middle);
            steps.extend([Step::Confirm, Step::Commit]);
            Ok(steps)
        }
        _ => Err(format!(
            "`{text}` is not a plan: name `reserve` and `charge`, each once"
        )),
    }
}

#[cfg(test)]
mod tests {
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
                        let end = end.map(|end| if world.effects.contains(&step) && end == Phase::Fail { Phase::Ok } else { end });
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
                Mode::Aborted => prop_assert!(undoable.iter().all(|step| !world.effects.contains(step))),
                other => prop_assert!(false, "still {:?}", other),
            }
        }
    }
}
