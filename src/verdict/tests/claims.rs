//! What breakers claim about themselves, against the traffic.

use std::time::Duration;

use super::super::testing::*;
use super::links::{breaker, claims, closes, opens};
use crate::evidence::*;
use crate::plan::SourceName;
use crate::plan::property::*;

#[test]
fn a_claim_out_of_order_or_against_the_traffic_fails() {
    let mut run = Run::healthy();
    let claims = [
        transition(1, ON + 2 * S, "CLOSED", "OPEN"),
        transition(2, ON + 3 * S, "OPEN", "CLOSED"),
    ];
    run.evidence.transitions.extend(claims);
    run.fails(opens(), "claims OPEN -> CLOSED after CLOSED -> OPEN");
    let mut run = Run::with(&Sim {
        opens: None,
        ..Sim::default()
    });
    let open = transition(1, ON + 2 * S, "CLOSED", "OPEN");
    run.evidence.transitions.push(open);
    run.fails(opens(), "claims OPEN for 18s, but");
}

#[test]
fn silence_of_a_source_about_a_breaker_that_moved_is_missing_evidence() {
    let mut run = Run::healthy();
    run.is_inconclusive(opens(), "`breakers` says nothing of it");
    let Property::Breaker(mut unspoken) = opens() else {
        unreachable!()
    };
    unspoken.transitions.clear();
    run.passes(Property::Breaker(unspoken));
}

#[test]
fn a_gap_in_the_ring_is_lost_evidence_not_a_lie() {
    let mut run = Run::healthy();
    let claims = [
        transition(1, ON + 2 * S, "CLOSED", "OPEN"),
        transition(9, OFF - S, "HALF_OPEN", "OPEN"),
    ];
    run.evidence.transitions.extend(claims);
    run.passes(opens());
    run.source_lost("breakers");
    run.is_inconclusive(opens(), "evidence `breakers` lost 3 rows");
}

#[test]
fn a_breaker_that_flaps_fails() {
    let mut run = Run::healthy();
    for n in 0..3 {
        let at = OFF + 10 * S + n * S;
        let flap = transition(20 + 2 * n, at, "CLOSED", "OPEN");
        run.evidence.transitions.push(flap);
    }
    run.fails(closes(), "opened 3 times again");
}

fn wall_clock(run: &mut Run, source: &str, error_ns: u64) {
    let state = run.evidence.sources.get_mut(&SourceName::new(source));
    state.unwrap().clock_error_ns = error_ns;
}

#[test]
fn a_claim_closer_to_the_fault_than_its_clock_is_known_proves_nothing() {
    let mut run = Run::with(&Sim {
        opens: Some(200 * MS),
        ..Sim::default()
    });
    let opening = transition(1, ON - 300 * MS, "CLOSED", "OPEN");
    run.evidence.transitions.push(opening);
    run.fails(opens(), "opened in the baseline");
    wall_clock(&mut run, "breakers", 500 * MS);
    let verdict = run.is_inconclusive(opens(), "opened as the fault began, and the wall clock");
    assert!(verdict.help.is_some_and(|help| help.contains("at-mono-ns")));
    wall_clock(&mut run, "breakers", 200 * MS);
    run.fails(opens(), "opened in the baseline");
}

#[test]
fn claims_by_a_wall_clock_have_its_error_for_room() {
    let mut run = Run::healthy();
    claims(&mut run);
    for it in &mut run.evidence.transitions {
        it.at_ns -= 700 * MS;
    }
    run.fails(opens(), "claims OPEN for");
    wall_clock(&mut run, "breakers", 800 * MS);
    run.passes(opens());
    for n in 0..2 {
        let mut claim = |later: u64, from: &str, to: &str| {
            let flap = transition(20 + 3 * n + later, OFF + 100 * MS, from, to);
            run.evidence.transitions.push(flap);
        };
        claim(0, "CLOSED", "OPEN");
        claim(1, "OPEN", "HALF_OPEN");
        claim(2, "HALF_OPEN", "CLOSED");
    }
    run.passes(closes());
    wall_clock(&mut run, "breakers", 0);
    run.fails(closes(), "opened 2 times again");
}

#[test]
fn an_opening_told_by_a_wall_clock_at_the_limit_proves_nothing() {
    let mut run = Run::healthy();
    run.plan.toxiproxy = Some("http://127.0.0.1:8474".into());
    for service in ["payments", "orders"] {
        let name = format!("{service}-attempts");
        let calls = source(&name, crate::plan::system::RecordKind::Call, service);
        let state = SourceState::default();
        run.evidence.sources.insert(calls.name.clone(), state);
        run.plan.system.evidence.push(calls);
    }
    for it in &mut run.evidence.calls {
        let teller = if it.link == psp() {
            "payments"
        } else {
            "orders"
        };
        it.source = SourceName::new(format!("{teller}-attempts"));
    }
    let within = |opens_within| {
        let when = BreakerWhen::During {
            fault: fault_name(),
            opens_within,
            blocks_at_least: 0.95,
        };
        breaker(when, false)
    };
    let verdict = run.passes(within(Duration::from_secs(4)));
    let opened = verdict.findings.iter().find(|it| it.text == "opened");
    let opened = opened.and_then(|it| it.at_ns).unwrap() - ON;
    let just_before = Duration::from_nanos(opened + 3 * MS);
    run.passes(within(just_before));
    wall_clock(&mut run, "payments-attempts", 5 * MS);
    run.is_inconclusive(within(just_before), "the wall clock of `payments-attempts`");
    wall_clock(&mut run, "payments-attempts", 2 * MS);
    run.passes(within(just_before));
}

#[test]
fn a_claim_ends_with_the_process_that_made_it() {
    let mut run = Run::healthy();
    let open = transition(1, ON + 2 * S, "CLOSED", "OPEN");
    run.evidence.transitions.push(open);
    run.fails(closes(), "claims OPEN for 25s");
    let mut reborn = run.clone();
    let mut next = transition(1, OFF + 2 * S, "CLOSED", "OPEN");
    next.incarnation = "2".into();
    let mut closed = transition(3, OFF + 4 * S, "HALF_OPEN", "CLOSED");
    closed.incarnation = "2".into();
    reborn.evidence.transitions.extend([next, closed]);
    reborn.passes(closes());
    run.add(
        OFF + S,
        Event::ServiceExited {
            service: crate::plan::ServiceName::new("payments"),
            pid: 4711,
            incarnation: 1,
            code: None,
            signal: Some(9),
            by_us: true,
            log_tail: vec![],
        },
    );
    run.passes(closes());
}

#[test]
fn a_caller_that_answers_nobody_may_hang_rather_than_have_opened() {
    let mut run = Run::healthy();
    let upstream = crate::plan::LinkName::new("orders", "payments");
    for it in &mut run.evidence.calls {
        if it.link == upstream && (ON + 2 * S..OFF).contains(&it.at_ns) {
            *it = silent(it.clone());
        }
    }
    let untold = match opens() {
        Property::Breaker(mut property) => {
            property.transitions.clear();
            Property::Breaker(property)
        }
        other => other,
    };
    let says = "payments answered only 0% of what it was asked while payments -> psp was silent";
    run.is_inconclusive(untold.clone(), says);
    Run::healthy().passes(untold);
    claims(&mut run);
    run.passes(opens());
}
