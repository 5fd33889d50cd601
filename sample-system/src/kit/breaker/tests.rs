use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::kit::config::Profile;

fn breaker(defects: &str) -> (Breaker, Clock) {
    let clock = Clock::by_hand();
    let policy = BreakerPolicy::of(Profile::Fast);
    let defects = Defects::parse(defects).unwrap();
    (
        Breaker::new("payments -> psp", policy, clock.clone(), &defects),
        clock,
    )
}

fn calls(breaker: &Breaker, outcome: Outcome, times: usize) {
    for _ in 0..times {
        breaker.admit().expect("admitted").record(outcome);
    }
}

#[test]
fn below_the_minimum_of_calls_it_never_opens() {
    let (breaker, _clock) = breaker("");
    calls(&breaker, Outcome::Failure, 9);
    assert_eq!(breaker.state(), State::Closed);
    calls(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.admit().is_none());
}

#[test]
fn a_thousand_successes_do_not_delay_the_opening() {
    let (breaker, _clock) = breaker("");
    calls(&breaker, Outcome::Success, 1_000);
    calls(&breaker, Outcome::Failure, 9);
    assert_eq!(breaker.state(), State::Closed);
    calls(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn what_says_nothing_about_the_callee_counts_as_nothing() {
    let (breaker, _clock) = breaker("");
    calls(&breaker, Outcome::Ignored, 100);
    assert_eq!(breaker.view().window, Counts::default());
}

#[test]
fn half_open_is_seen_without_traffic_at_the_instant_when_it_began() {
    let (breaker, clock) = breaker("");
    calls(&breaker, Outcome::Failure, 10);
    clock.advance(Duration::from_millis(1_999));
    assert_eq!(breaker.state(), State::Open);
    clock.advance(Duration::from_millis(500));
    assert_eq!(breaker.state(), State::HalfOpen);
    let seen: Vec<_> = breaker
        .transitions(0)
        .iter()
        .map(|t| (t.seq, t.to, t.mono_ns))
        .collect();
    assert_eq!(
        seen,
        [(1, State::Open, 0), (2, State::HalfOpen, 2_000_000_000)]
    );
}

#[test]
fn half_open_admits_its_probes_and_no_more_and_closes_when_all_succeed() {
    let (breaker, clock) = breaker("");
    calls(&breaker, Outcome::Failure, 10);
    clock.advance(Duration::from_secs(2));
    let probes: Vec<Permit> = (0..3).map(|_| breaker.admit().expect("a probe")).collect();
    assert!(breaker.admit().is_none());
    for probe in probes {
        assert_eq!(breaker.state(), State::HalfOpen);
        probe.record(Outcome::Success);
    }
    assert_eq!(breaker.state(), State::Closed);
    calls(&breaker, Outcome::Failure, 9);
    assert_eq!(
        breaker.state(),
        State::Closed,
        "failures from before are forgotten"
    );
}

#[test]
fn a_failed_probe_opens_it_for_the_whole_time_again() {
    let (breaker, clock) = breaker("");
    calls(&breaker, Outcome::Failure, 10);
    clock.advance(Duration::from_secs(2));
    calls(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open);
    clock.advance(Duration::from_millis(1_999));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn dropped_probes_give_their_places_back() {
    let (breaker, clock) = breaker("");
    calls(&breaker, Outcome::Failure, 10);
    clock.advance(Duration::from_secs(2));
    for _ in 0..10 {
        drop([breaker.admit(), breaker.admit(), breaker.admit()].map(|p| p.expect("a probe")));
    }
    calls(&breaker, Outcome::Success, 3);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn results_from_before_a_change_of_state_are_ignored() {
    let (breaker, clock) = breaker("");
    let late: Vec<Permit> = (0..5).map(|_| breaker.admit().expect("closed")).collect();
    calls(&breaker, Outcome::Failure, 10);
    clock.advance(Duration::from_secs(2));
    assert_eq!(breaker.state(), State::HalfOpen);
    for permit in late {
        permit.record(Outcome::Failure);
    }
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[test]
fn consecutive_mode_opens_after_that_many_failures_in_a_row() {
    let policy = BreakerPolicy {
        trip: Trip::Consecutive { failures: 5 },
        ..BreakerPolicy::of(Profile::Fast)
    };
    let breaker = Breaker::new("a -> b", policy, Clock::by_hand(), &Defects::default());
    for _ in 0..10 {
        calls(&breaker, Outcome::Failure, 4);
        calls(&breaker, Outcome::Success, 1);
    }
    assert_eq!(breaker.state(), State::Closed);
    calls(&breaker, Outcome::Failure, 5);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn defect_m1_never_becomes_half_open() {
    let (breaker, clock) = breaker("m1");
    calls(&breaker, Outcome::Failure, 10);
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn defect_m2_lets_everybody_through_half_open() {
    let (breaker, clock) = breaker("m2");
    calls(&breaker, Outcome::Failure, 10);
    clock.advance(Duration::from_secs(2));
    let crowd: Vec<_> = (0..100).map(|_| breaker.admit()).collect();
    assert!(crowd.iter().all(Option::is_some));
}

/// The breaker told as a story: every result is kept, and everything is computed from all of them.
struct Model {
    policy: BreakerPolicy,
    now_ms: u64,
    state: State,
    since_ms: u64,
    /// Results of this closed period: when, and whether it failed.
    results: Vec<(u64, bool)>,
    succeeded: u32,
    out: u32,
    era: u64,
}

impl Model {
    fn new(policy: BreakerPolicy) -> Self {
        let (state, results) = (State::Closed, Vec::new());
        Self {
            policy,
            now_ms: 0,
            state,
            since_ms: 0,
            results,
            succeeded: 0,
            out: 0,
            era: 0,
        }
    }

    fn enter(&mut self, state: State, at_ms: u64) {
        (self.state, self.since_ms) = (state, at_ms);
        (self.succeeded, self.out) = (0, 0);
        self.era += 1;
        if state == State::Closed {
            self.results.clear();
        }
    }

    fn look(&mut self) -> State {
        let due_ms = self.since_ms + self.policy.open_for_ms;
        if self.state == State::Open && self.now_ms >= due_ms {
            self.enter(State::HalfOpen, due_ms);
        }
        self.state
    }

    fn admit(&mut self) -> Option<u64> {
        let admitted = match self.look() {
            State::Closed => true,
            State::Open => false,
            State::HalfOpen => self.out + self.succeeded < self.policy.probes,
        };
        self.out += u32::from(admitted && self.state == State::HalfOpen);
        admitted.then_some(self.era)
    }

    fn settle(&mut self, era: u64, outcome: Outcome) {
        // Looking is what the real one does not do here: a result changes nothing about time.
        if era != self.era {
            return;
        }
        match self.state {
            State::Open => {}
            State::Closed if outcome == Outcome::Ignored => {}
            State::Closed => {
                self.results
                    .push((self.now_ms, outcome == Outcome::Failure));
                if self.trips() {
                    self.enter(State::Open, self.now_ms);
                }
            }
            State::HalfOpen => {
                self.out -= 1;
                self.succeeded += u32::from(outcome == Outcome::Success);
                if outcome == Outcome::Failure {
                    self.enter(State::Open, self.now_ms);
                } else if self.succeeded == self.policy.probes {
                    self.enter(State::Closed, self.now_ms);
                }
            }
        }
    }

    fn trips(&self) -> bool {
        let (window, minimum, percent) = match self.policy.trip {
            Trip::Rate {
                window,
                minimum,
                percent,
            } => (window, minimum, percent),
            Trip::Consecutive { failures } => {
                let failed = |(_, failed): &&(u64, bool)| *failed;
                return self.results.iter().rev().take_while(failed).count() >= failures as usize;
            }
        };
        let (recent, minimum): (Vec<bool>, usize) = match window {
            Window::Calls(size) => {
                let recent = self
                    .results
                    .iter()
                    .rev()
                    .take(size)
                    .map(|(_, failed)| *failed);
                (recent.collect(), minimum.min(size))
            }
            Window::Time { bucket_ms, buckets } => {
                let young =
                    |at_ms: u64| self.now_ms / bucket_ms - at_ms / bucket_ms < buckets as u64;
                let recent = self.results.iter().filter(|(at_ms, _)| young(*at_ms));
                (recent.map(|(_, failed)| *failed).collect(), minimum)
            }
        };
        let failures = recent.iter().filter(|failed| **failed).count();
        recent.len() >= minimum && failures * 100 >= recent.len() * percent as usize
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Admit,
    Settle(usize, Outcome),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Failure),
        3 => Just(Outcome::Success),
        1 => Just(Outcome::Ignored),
    ];
    let step = prop_oneof![
        1 => (1_u64..700).prop_map(Step::Wait),
        4 => Just(Step::Admit),
        4 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::Settle(which, outcome)),
    ];
    prop::collection::vec(step, 1..300)
}

fn policies() -> impl Strategy<Value = BreakerPolicy> {
    let window = prop_oneof![
        (1_usize..25).prop_map(Window::Calls),
        (1_u64..500, 1_usize..8).prop_map(|(ms, n)| Window::Time {
            bucket_ms: ms,
            buckets: n
        }),
    ];
    let trip = prop_oneof![
        (window, 1_usize..15, 1_u32..=100).prop_map(|(window, minimum, percent)| Trip::Rate {
            window,
            minimum,
            percent
        }),
        (1_u32..6).prop_map(|failures| Trip::Consecutive { failures }),
    ];
    (trip, 1_u64..1_500, 1_u32..5).prop_map(|(trip, open_for_ms, probes)| BreakerPolicy {
        trip,
        open_for_ms,
        probes,
    })
}

proptest! {
    #[test]
    fn it_does_what_the_naive_model_does(policy in policies(), steps in steps()) {
        let clock = Clock::by_hand();
        let breaker = Breaker::new("a -> b", policy, clock.clone(), &Defects::default());
        let mut model = Model::new(policy);
        let mut out: Vec<(Permit, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(ms) => {
                    clock.advance(Duration::from_millis(ms));
                    model.now_ms += ms;
                }
                Step::Admit => match (breaker.admit(), model.admit()) {
                    (Some(permit), Some(era)) => out.push((permit, era)),
                    (None, None) => {}
                    (real, told) => prop_assert!(false, "admitted: {real:?}, model {told:?}"),
                },
                Step::Settle(which, outcome) if !out.is_empty() => {
                    let (permit, era) = out.swap_remove(which % out.len());
                    permit.record(outcome);
                    model.settle(era, outcome);
                }
                Step::Settle(..) => {}
            }
            prop_assert_eq!(breaker.state(), model.look());
        }
        legal(&breaker.transitions(0))?;
    }
}

/// The transitions are a word of CLOSED → OPEN → HALF_OPEN → {CLOSED, OPEN}, without gaps, in time.
fn legal(transitions: &[Transition]) -> Result<(), TestCaseError> {
    let mut state = State::Closed;
    let mut at = 0;
    for (index, change) in transitions.iter().enumerate() {
        prop_assert_eq!(change.seq, index as u64 + 1);
        prop_assert_eq!(change.from, state);
        prop_assert!(change.mono_ns >= at);
        let allowed = matches!(
            (change.from, change.to),
            (State::Closed | State::HalfOpen, State::Open)
                | (State::Open, State::HalfOpen)
                | (State::HalfOpen, State::Closed)
        );
        prop_assert!(allowed, "{:?}", change);
        (state, at) = (change.to, change.mono_ns);
    }
    Ok(())
}
