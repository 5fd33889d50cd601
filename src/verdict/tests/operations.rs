//! Properties of operations, `recovers` and `stays-up`.

use std::time::Duration;

use super::super::testing::*;
use crate::evidence::{Event, Phase, StopReason};
use crate::plan::load::OutcomeClass;
use crate::plan::property::*;
use crate::plan::{OperationName, ServiceName, Window};

pub(super) fn errors(at_most: f64) -> Property {
    Property::Errors(Errors {
        operation: op(),
        window: during(),
        at_most,
        unsettled: false,
        accepted_at_most: None,
    })
}

pub(super) fn latency(quantile: f64, limit_ms: u64) -> Property {
    Property::Latency(Latency {
        operation: op(),
        window: during(),
        limits: vec![QuantileLimit {
            quantile,
            limit: Duration::from_millis(limit_ms),
        }],
        of_done: false,
    })
}

pub(super) fn goodput(at_least: f64, of: GoodputOf) -> Property {
    Property::Goodput(Goodput {
        operation: op(),
        window: during(),
        at_least,
        of,
    })
}

pub(super) fn hangs(longer_than_ms: u64) -> Property {
    Property::Hangs(Hangs {
        operation: None,
        window: during(),
        longer_than: Duration::from_millis(longer_than_ms),
    })
}

pub(super) fn recovers() -> Property {
    Property::Recovers(Recovers {
        operation: op(),
        after: fault_name(),
        goodput: 0.95,
        quantile: 0.9,
        latency: 1.5,
        within: Duration::from_secs(15),
        hold: Duration::from_secs(5),
    })
}

#[test]
fn no_errors_pass_and_say_what_that_shows() {
    let verdict = Run::healthy().passes(errors(0.01));
    assert!(
        verdict
            .why
            .starts_with("0 of 800 during psp-silent; shows ≤")
    );
    assert_eq!((verdict.n, verdict.n_of.as_str()), (800, "operations"));
    Run::healthy().passes(errors(0.0));
}

#[test]
fn errors_above_the_limit_fail_and_say_which_and_when() {
    let mut run = Run::healthy();
    for (n, it) in run
        .operations_in(ON + 400 * MS, OFF)
        .into_iter()
        .enumerate()
    {
        match n {
            0..44 => time_out(it),
            44..51 => {
                it.outcome = OutcomeClass::Unknown;
                it.status = Some(503);
                it.error = Some("status 503".into());
            }
            _ => {}
        }
    }
    let verdict = run.fails(
        errors(0.01),
        "6.4% (51 of 800) during psp-silent, limit 1%: 44 time-outs, 7 x 503, first at +0.4s",
    );
    assert_eq!(verdict.blames, ["payments -> psp"]);
    assert_eq!(verdict.margin.as_deref(), Some("-5.4%"));
    assert_eq!((verdict.findings.len(), verdict.findings_more), (50, 1));
}

#[test]
fn refused_and_accepted_are_answers_and_accepted_can_be_limited() {
    let mut run = Run::healthy();
    for (n, it) in run.operations_in(ON, OFF).into_iter().enumerate() {
        it.outcome = [OutcomeClass::Refused, OutcomeClass::Accepted][n % 2];
    }
    run.passes(errors(0.01));
    let limited = Property::Errors(Errors {
        operation: op(),
        window: during(),
        at_most: 0.01,
        unsettled: false,
        accepted_at_most: Some(0.2),
    });
    run.fails(limited, "50% (400 of 800) were merely accepted, limit 20%");
}

#[test]
fn what_never_settled_is_above_every_limit_of_latency() {
    let mut run = Run::healthy();
    for it in run.operations_in(ON, OFF) {
        it.outcome = OutcomeClass::Unsettled;
    }
    let property = Property::Latency(Latency {
        operation: op(),
        window: during(),
        limits: vec![QuantileLimit {
            quantile: 0.9,
            limit: Duration::from_secs(2),
        }],
        of_done: false,
    });
    run.fails(property, "limit 2s");
}

#[test]
fn unsettled_is_an_error_when_asked() {
    let mut run = Run::healthy();
    for it in run.operations_in(ON, OFF) {
        it.outcome = OutcomeClass::Unsettled;
    }
    run.passes(errors(0.01));
    let asked = Property::Errors(Errors {
        operation: op(),
        window: during(),
        at_most: 0.01,
        unsettled: true,
        accepted_at_most: None,
    });
    run.fails(asked, "100% (800 of 800)");
}

#[test]
fn an_operation_that_crosses_into_the_fault_belongs_to_it() {
    let mut run = Run::healthy();
    for it in run.operations_in(ON - 50 * MS, ON) {
        time_out(it);
    }
    run.fails(errors(0.0), "(2 of 802)");
    let Property::Errors(mut baseline) = errors(0.01) else {
        return;
    };
    baseline.window = Window::Baseline;
    let verdict = run.passes(Property::Errors(baseline));
    assert_eq!(verdict.n, 798);
}

#[test]
fn a_share_of_too_few_operations_is_inconclusive_unless_it_is_hopeless() {
    let mut run = Run::healthy();
    run.evidence.operations.retain(|it| it.iteration % 10 == 0);
    let verdict = run.is_inconclusive(errors(0.01), "only 80 operations during psp-silent");
    assert!(verdict.why.contains("needs 300"), "{}", verdict.why);
    for it in run.operations_in(ON, OFF) {
        time_out(it);
    }
    run.fails(errors(0.01), "100% (80 of 80)");
}

#[test]
fn a_fault_that_did_not_bite_did_not_end_or_never_came_proves_nothing() {
    let mut run = Run::healthy();
    run.did_not_bite();
    run.is_inconclusive(
        errors(0.01),
        "`psp-silent` did not bite: it touched 0 requests",
    );
    let mut run = Run::healthy();
    let events = &mut run.evidence.events;
    events.retain(|it| !matches!(it.event, Event::FaultLifted { .. }));
    run.is_inconclusive(errors(0.01), "never seen to end");
    let events = &mut run.evidence.events;
    events.retain(|it| !matches!(it.event, Event::FaultApplied { .. }));
    run.is_inconclusive(errors(0.01), "never applied");
}

#[test]
fn a_link_that_does_not_come_back_leaves_the_fault_without_an_end() {
    let mut run = Run::with(&Sim {
        closes: None,
        ..Sim::default()
    });
    run.is_inconclusive(
        errors(0.01),
        "only 0 calls after `psp-silent` ended look like the baseline",
    );
}

#[test]
fn a_violation_fails_although_the_fault_did_not_bite() {
    let mut run = Run::healthy();
    run.did_not_bite();
    for it in run.operations_in(ON, OFF) {
        time_out(it);
    }
    run.fails(errors(0.01), "100% (800 of 800)");
}

#[test]
fn an_operation_that_never_happened_keeps_everything_from_passing() {
    let mut run = Run::healthy();
    let mut step = run.plan.load.journeys[0].steps[0].clone();
    step.name = OperationName::new("see-order");
    run.plan.load.journeys[0].steps.push(step);
    run.is_inconclusive(errors(0.01), "no `see-order` was ever done or accepted");
}

#[test]
fn an_unreadable_line_keeps_from_passing() {
    let mut run = Run::healthy();
    run.evidence.damage.push(crate::evidence::Damage {
        file: "call.jsonl".into(),
        lines: 1,
        first_line: 7,
        why: "eof".into(),
    });
    run.is_inconclusive(errors(0.01), "1 line of `call.jsonl`");
}

#[test]
fn a_percentile_inside_its_limit_passes_and_beyond_fails() {
    let mut run = Run::healthy();
    let verdict = run.passes(latency(0.99, 100));
    assert_eq!(verdict.value.as_deref(), Some("20ms"));
    assert_eq!(verdict.margin.as_deref(), Some("80ms"));
    for it in run.operations_in(ON, ON + S) {
        it.ended_ns = it.intended_ns + 3 * S;
    }
    let verdict = run.fails(latency(0.99, 2500), "p99 3s, limit 2.5s during psp-silent");
    assert_eq!(verdict.findings.len(), 40);
    run.passes(latency(0.9, 2500));
}

#[test]
fn a_time_out_is_above_every_limit() {
    let mut run = Run::healthy();
    for it in run.operations_in(ON, ON + S) {
        time_out(it);
    }
    run.fails(latency(0.99, 10_000), "p99 beyond the time-out");
}

#[test]
fn fast_refusals_do_not_flatter_a_percentile() {
    let mut run = Run::healthy();
    for (n, it) in run.operations_in(ON, OFF).into_iter().enumerate() {
        if n % 2 == 0 {
            it.outcome = OutcomeClass::Refused;
        } else {
            it.ended_ns = it.intended_ns + 3 * S;
        }
    }
    run.fails(latency(0.5, 1000), "p50 3s");
}

#[test]
fn a_percentile_of_too_few_or_of_a_late_generator_is_inconclusive_even_when_broken() {
    let mut run = Run::healthy();
    run.evidence.operations.retain(|it| it.iteration % 2 == 0);
    run.is_inconclusive(
        latency(0.99, 1),
        "only 400 operations during psp-silent, p99 needs 500",
    );
    let mut run = Run::healthy();
    run.generator_was_late();
    run.is_inconclusive(
        latency(0.99, 1),
        "fell behind its schedule: send-lag p99 900ms",
    );
    run.is_inconclusive(goodput(0.9, GoodputOf::Offered), "fell behind its schedule");
    run.is_inconclusive(recovers(), "fell behind its schedule");
}

#[test]
fn goodput_is_held_against_what_was_offered_or_the_baseline() {
    let mut run = Run::healthy();
    run.passes(goodput(0.95, GoodputOf::Offered));
    run.passes(goodput(0.95, GoodputOf::Baseline));
    for it in run.operations_in(ON, ON + 4 * S) {
        it.outcome = OutcomeClass::Refused;
    }
    let verdict = run.fails(
        goodput(0.95, GoodputOf::Offered),
        "80% (640 of 800) of offered",
    );
    assert_eq!(verdict.blames, ["payments -> psp"]);
    run.evidence
        .operations
        .retain(|it| it.outcome == OutcomeClass::Done);
    run.passes(goodput(0.95, GoodputOf::Offered));
    run.fails(goodput(0.95, GoodputOf::Baseline), "80% (640 of 800)");
}

#[test]
fn goodput_of_too_few_is_inconclusive() {
    let mut run = Run::healthy();
    run.evidence.operations.retain(|it| it.iteration % 100 == 0);
    run.is_inconclusive(goodput(0.95, GoodputOf::Offered), "only 8 operations");
}

#[test]
fn an_operation_that_hangs_fails_and_growing_work_in_flight_too() {
    let mut run = Run::healthy();
    run.passes(hangs(1000));
    time_out(run.operations_in(ON + S, OFF).remove(0));
    run.fails(hangs(1000), "1 of 800 operations lasted longer than 1s");
    let mut run = Run::healthy();
    for it in run.operations_in(ON, OFF) {
        it.ended_ns = OFF + 30 * S;
    }
    run.fails(hangs(60_000), "operations in flight grew during psp-silent");
}

#[test]
fn too_few_operations_prove_no_absence_of_hangs() {
    let mut run = Run::healthy();
    run.evidence.operations.retain(|it| it.iteration % 200 == 0);
    run.is_inconclusive(hangs(1000), "it takes 10");
}

#[test]
fn a_system_that_comes_back_recovers_and_tells_the_damage() {
    let mut run = Run::healthy();
    for it in run.operations_in(ON + 2 * S, OFF + 3 * S) {
        time_out(it);
    }
    let verdict = run.passes(recovers());
    assert!(
        verdict.why.contains("recovered 2.75s after"),
        "{}",
        verdict.why
    );
    assert!(
        verdict.why.contains("outside its band from +2.0s"),
        "{}",
        verdict.why
    );
}

#[test]
fn one_that_stays_slow_or_refuses_never_recovers() {
    let mut run = Run::healthy();
    for it in run.operations_in(ON, END) {
        it.ended_ns = it.intended_ns + 500 * MS;
    }
    let verdict = run.fails(recovers(), "did not recover within 15s");
    assert_eq!(verdict.blames, ["payments -> psp"]);
    assert_eq!(verdict.value.as_deref(), Some("never"));
    let mut run = Run::healthy();
    for (n, it) in run.operations_in(ON, END).into_iter().enumerate() {
        if n % 4 == 0 {
            it.outcome = OutcomeClass::Refused;
        }
    }
    run.fails(recovers(), "goodput 75% of the baseline's");
}

#[test]
fn recovery_needs_load_long_enough_and_operations_enough() {
    let mut run = Run::healthy();
    for it in run.operations_in(ON, END) {
        time_out(it);
    }
    for it in &mut run.evidence.events {
        if matches!(
            it.event,
            Event::PhaseStarted {
                phase: Phase::Drain,
                ..
            }
        ) {
            it.at_ns = OFF + 10 * S;
        }
    }
    run.is_inconclusive(
        recovers(),
        "the load ended before 15s and 5s of hold were over",
    );
    let mut run = Run::healthy();
    run.evidence.operations.retain(|it| it.iteration % 10 == 0);
    run.is_inconclusive(recovers(), "p90 needs 50");
}

#[test]
fn without_an_answer_in_the_baseline_there_is_nothing_to_recover_to() {
    let mut run = Run::healthy();
    for it in run.operations_in(BASELINE, ON) {
        it.outcome = OutcomeClass::Refused;
    }
    let says = "`place-order` was never answered in the baseline";
    let verdict = run.is_inconclusive(recovers(), says);
    assert!(verdict.help.is_some_and(|help| help.contains("baseline")));
}

fn exited(signal: Option<i32>, code: Option<i32>, by_us: bool) -> Event {
    Event::ServiceExited {
        service: ServiceName::new("orders"),
        pid: 4711,
        incarnation: 1,
        code,
        signal,
        by_us,
        log_tail: vec!["panicked at main.rs".into()],
    }
}

#[test]
fn a_service_that_ends_by_itself_fails_and_is_named() {
    let mut run = Run::healthy();
    run.add(ON, exited(None, Some(0), true));
    run.passes(Property::StaysUp);
    run.add(ON, exited(None, Some(101), false));
    let says = "`orders` exited with 101 at +25.0s: panicked at main.rs";
    let verdict = run.fails(Property::StaysUp, says);
    assert_eq!(verdict.blames, ["orders"]);
}

#[test]
fn a_service_that_somebody_else_killed_makes_the_run_inconclusive() {
    let mut run = Run::healthy();
    run.add(ON, exited(Some(9), None, false));
    run.is_inconclusive(Property::StaysUp, "somebody else killed `orders`");
    run.is_inconclusive(errors(0.01), "somebody else killed `orders`");
}

#[test]
fn an_interrupted_run_is_inconclusive_whatever_it_saw() {
    let mut run = Run::healthy();
    for it in run.operations_in(ON, OFF) {
        time_out(it);
    }
    run.add(
        END,
        Event::Stopping {
            reason: StopReason::Interrupt,
            why: "interrupted".into(),
        },
    );
    run.is_inconclusive(errors(0.01), "the run did not come to its end: interrupted");
    run.add(ON, exited(None, Some(101), false));
    run.is_inconclusive(Property::StaysUp, "did not come to its end");
}

#[test]
fn a_run_that_failed_because_a_service_died_still_fails_stays_up() {
    let mut run = Run::healthy();
    run.add(ON, exited(None, Some(1), false));
    run.add(
        ON,
        Event::Stopping {
            reason: StopReason::Failed,
            why: "service `orders` exited with 1".into(),
        },
    );
    run.fails(Property::StaysUp, "exited with 1");
    run.is_inconclusive(errors(0.01), "did not come to its end: service `orders`");
}

#[test]
fn a_killed_coordinator_leaves_an_inconclusive_run() {
    let mut run = Run::healthy();
    run.evidence.events.retain(|it| it.at_ns < OFF);
    run.is_inconclusive(errors(0.01), "`chaos` itself was killed");
}

#[test]
fn nothing_recovers_to_a_baseline_that_was_broken_already() {
    let mut run = Run::healthy();
    for it in run.operations_in(BASELINE, END) {
        it.outcome = OutcomeClass::Unknown;
        it.status = Some(503);
    }
    run.is_inconclusive(recovers(), "was never done or accepted in the baseline");
    let mut run = Run::healthy();
    for it in run.operations_in(BASELINE, END) {
        if it.iteration % 5 == 0 {
            time_out(it);
        }
    }
    let says = "the p90 of `place-order` was a time-out in the baseline already";
    run.is_inconclusive(recovers(), says);
}

#[test]
fn a_share_of_accepted_takes_operations_as_well() {
    let mut run = Run::healthy();
    run.evidence.operations.retain(|it| it.iteration % 40 == 0);
    let limited = |accepted_at_most| {
        Property::Errors(Errors {
            operation: op(),
            window: during(),
            at_most: 0.5,
            unsettled: false,
            accepted_at_most: Some(accepted_at_most),
        })
    };
    run.passes(limited(0.5));
    let says = "only 20 operations, a limit of 1% for those merely accepted needs 300";
    run.is_inconclusive(limited(0.01), says);
    for it in run.operations_in(ON, OFF) {
        it.outcome = OutcomeClass::Accepted;
    }
    run.fails(limited(0.01), "100% (20 of 20) were merely accepted");
}

#[test]
fn a_window_of_overlapping_faults_counts_nothing_twice() {
    let mut run = Run::healthy();
    let name = crate::plan::FaultName::new("other");
    let mut other = run.plan.faults[0].clone();
    other.name = name.clone();
    run.plan.faults.push(other);
    let seen = run.evidence.events.clone();
    for it in seen {
        let (mut event, later) = (it.event, 5 * S);
        match &mut event {
            Event::FaultApplied {
                fault,
                confirmed_ns,
                ..
            }
            | Event::FaultLifted {
                fault,
                confirmed_ns,
                ..
            } => {
                *fault = name.clone();
                *confirmed_ns += later;
                run.add(it.at_ns + later, event);
            }
            _ => {}
        }
    }
    let verdict = run.passes(Property::Goodput(Goodput {
        operation: op(),
        window: Window::During {
            faults: vec![name, fault_name()],
            and_after: Duration::ZERO,
        },
        at_least: 0.9,
        of: GoodputOf::Baseline,
    }));
    assert_eq!(verdict.value.as_deref(), Some("100%"), "{}", verdict.why);
}

#[test]
fn a_baselines_rate_is_that_of_all_its_seconds() {
    let mut run = Run::healthy();
    for it in &mut run.evidence.operations {
        it.ended_ns = it.intended_ns + 2 * S;
    }
    let verdict = run.passes(goodput(0.95, GoodputOf::Baseline));
    assert_eq!(verdict.value.as_deref(), Some("100%"), "{}", verdict.why);
}

#[test]
fn operations_that_the_fault_found_hanging_keep_the_baseline_from_passing() {
    let in_baseline = |at_most| {
        Property::Errors(Errors {
            operation: op(),
            window: Window::Baseline,
            at_most,
            unsettled: false,
            accepted_at_most: None,
        })
    };
    let mut run = Run::healthy();
    run.passes(in_baseline(0.01));
    for it in run.operations_in(ON - 10 * S, ON) {
        if it.iteration % 20 == 0 {
            time_out(it);
            it.ended_ns = it.intended_ns + 10 * S;
        }
    }
    let says = "20 operations of the baseline had not ended when the fault came";
    run.is_inconclusive(in_baseline(0.01), says);
}
