//! `breaker`.

use std::time::Duration;

use super::super::testing::*;
use crate::evidence::{Event, REQUEST_LOG, SourceState};
use crate::plan::property::*;
use crate::plan::system::{BreakerPlan, Protocol};
use crate::plan::{FaultEffect, LinkEffect, SourceName, fault::Down};

pub(super) fn breaker(when: BreakerWhen, claims: bool) -> Property {
    Property::Breaker(Breaker {
        link: psp(),
        when,
        breaker: BreakerPlan {
            threshold: 0.5,
            window: 20,
            min_calls: 10,
            open_for: Duration::from_secs(2),
            probes: 3,
            instances: 1,
        },
        transitions: Vec::from_iter(claims.then(|| SourceName::new("breakers"))),
    })
}

pub(super) fn opens() -> Property {
    let when = BreakerWhen::During {
        fault: fault_name(),
        opens_within: Duration::from_secs(4),
        blocks_at_least: 0.95,
    };
    breaker(when, true)
}

pub(super) fn closes() -> Property {
    let when = BreakerWhen::After {
        fault: fault_name(),
        closes_within: Duration::from_secs(6),
    };
    breaker(when, true)
}

pub(super) fn claims(run: &mut Run) {
    let mut seq = 0;
    let mut claim = |at, from: &str, to: &str| {
        seq += 1;
        run.evidence.transitions.push(transition(seq, at, from, to));
    };
    claim(ON + 2 * S, "CLOSED", "OPEN");
    for n in 0..5 {
        let at = ON + 4 * S + n * 4 * S;
        claim(at - MS, "OPEN", "HALF_OPEN");
        if at + 2 * S < OFF {
            claim(at + 2 * S, "HALF_OPEN", "OPEN");
        }
    }
    claim(OFF + S, "HALF_OPEN", "CLOSED");
}

#[test]
fn a_breaker_that_opens_probes_and_closes_passes_both_ways() {
    let mut run = Run::healthy();
    claims(&mut run);
    let verdict = run.passes(opens());
    assert!(verdict.why.contains("at most 3 probes"), "{}", verdict.why);
    let verdict = run.passes(closes());
    assert_eq!(
        verdict.value.as_deref(),
        Some("950ms"),
        "to a step of the search"
    );
}

#[test]
fn a_link_without_any_breaker_fails_with_suppression_zero() {
    let mut run = Run::with(&Sim {
        opens: None,
        ..Sim::default()
    });
    let verdict = run.fails(opens(), "did not open within 4s: at best 0%");
    assert_eq!(verdict.blames, ["payments -> psp"]);
}

#[test]
fn a_breaker_that_never_opened_cannot_pass_for_having_closed() {
    let mut run = Run::with(&Sim {
        opens: None,
        ..Sim::default()
    });
    run.is_inconclusive(closes(), "never opened");
}

#[test]
fn a_breaker_with_too_little_demand_to_be_seen_open_cannot_pass_for_having_closed() {
    let mut run = Run::healthy();
    let mut property = closes();
    if let Property::Breaker(breaker) = &mut property {
        // Of which three quarters are 15 requests.
        breaker.breaker.open_for = Duration::from_millis(500);
    }
    run.is_inconclusive(property, "too little demand on payments -> psp");
}

#[test]
fn lost_rows_of_the_request_log_are_no_blocked_calls() {
    let mut run = Run::healthy();
    claims(&mut run);
    let state = SourceState {
        rows: 1,
        lost: 5,
        ..SourceState::default()
    };
    let name = SourceName::new(REQUEST_LOG);
    run.evidence.sources.insert(name, state);
    run.is_inconclusive(opens(), "`request-log` lost 5 rows");
    run.is_inconclusive(closes(), "`request-log` lost 5 rows");
}

#[test]
fn connections_that_could_not_be_read_are_no_blocked_calls() {
    let mut run = Run::healthy();
    claims(&mut run);
    let stats = |opaque| Event::LinkStats {
        link: psp(),
        connections: 9,
        open: 0,
        refused: 0,
        request_bytes: 1,
        response_bytes: 1,
        requests: Some(1),
        opaque,
    };
    run.add(END - S, stats(0));
    run.passes(opens());
    run.add(END, stats(2));
    let says = "2 connections on `payments -> psp` could not be read as HTTP/1.1";
    run.is_inconclusive(opens(), says);
}

#[test]
fn a_breaker_whose_traffic_stops_only_after_the_limit_fails() {
    let mut run = Run::healthy();
    for n in 0..6 {
        let late = silent(call(&psp(), ON + 2 * S + n * 50 * MS, "late"));
        run.evidence.calls.push(late);
    }
    let when = BreakerWhen::During {
        fault: fault_name(),
        opens_within: Duration::from_millis(2100),
        blocks_at_least: 0.85,
    };
    run.fails(breaker(when, false), "opened only 2.25s after the fault");
}

#[test]
fn a_breaker_that_opens_late_fails() {
    let mut run = Run::with(&Sim {
        opens: Some(6 * S),
        ..Sim::default()
    });
    run.fails(opens(), "did not open within 4s");
}

#[test]
fn a_half_open_breaker_that_lets_everyone_through_fails() {
    let mut run = Run::with(&Sim {
        probes: 40,
        ..Sim::default()
    });
    let verdict = run.fails(
        opens(),
        "half-open lets too many through on payments -> psp: 40",
    );
    assert_eq!(verdict.blames, ["payments -> psp"]);
}

#[test]
fn what_enters_just_before_the_opening_was_not_let_through_by_half_open() {
    let mut run = Run::healthy();
    for n in 0..6 {
        let late = silent(call(&psp(), ON + 2 * S + n * 50 * MS, "late"));
        run.evidence.calls.push(late);
    }
    let when = BreakerWhen::During {
        fault: fault_name(),
        opens_within: Duration::from_secs(4),
        blocks_at_least: 0.85,
    };
    let verdict = run.passes(breaker(when, false));
    assert!(verdict.why.contains("at most 3 probes"), "{}", verdict.why);
}

#[test]
fn a_breaker_that_never_half_opens_fails_to_close_and_is_stuck() {
    let mut run = Run::with(&Sim {
        probes: 0,
        closes: None,
        ..Sim::default()
    });
    let verdict = run.fails(closes(), "did not close within 6s");
    assert!(verdict.why.contains("stuck open"), "{}", verdict.why);
    assert_eq!(verdict.blames, ["payments -> psp"]);
}

#[test]
fn a_flood_after_closing_fails() {
    let mut run = Run::healthy();
    for n in 0..300 {
        let at = OFF + S + n * 3 * MS;
        run.evidence.calls.push(call(&psp(), at, "flood"));
    }
    run.fails(closes(), "flooded payments -> psp");
}

#[test]
fn an_opening_in_the_baseline_is_spurious() {
    let mut run = Run::healthy();
    let at = BASELINE + S;
    run.evidence
        .transitions
        .push(transition(1, at, "CLOSED", "OPEN"));
    run.fails(opens(), "opened in the baseline");
}

#[test]
fn suppression_in_the_baseline_is_spurious() {
    let mut run = Run::healthy();
    let quiet = |at| (BASELINE + 2 * S..BASELINE + 18 * S).contains(&at);
    run.evidence
        .calls
        .retain(|it| it.link != psp() || !quiet(it.at_ns));
    run.fails(opens(), "blocked in the baseline");
}

#[test]
fn an_opening_without_failures_is_spurious() {
    let mut run = Run::healthy();
    for it in &mut run.evidence.calls {
        if it.link == psp() && it.at_ns >= ON && it.at_ns < ON + 2 * S {
            *it = call(&psp(), it.at_ns, "fine");
            it.status = Some(400);
        }
    }
    claims(&mut run);
    run.fails(opens(), "although its callee hardly failed");
}

#[test]
fn a_fault_that_did_not_bite_proves_nothing_about_a_breaker() {
    let mut run = Run::healthy();
    run.did_not_bite();
    run.is_inconclusive(opens(), "did not bite");
}

#[test]
fn an_unused_link_has_no_demand_to_judge_by() {
    let mut run = Run::healthy();
    run.evidence.calls.retain(|it| it.link != psp());
    run.is_inconclusive(opens(), "was not used before the fault");
}

#[test]
fn too_little_demand_under_the_fault_is_inconclusive() {
    let mut run = Run::healthy();
    let mut n = 0;
    run.evidence.calls.retain(|it| {
        n += 1;
        it.at_ns < ON || n % 20 == 0
    });
    run.is_inconclusive(opens(), "too little demand");
}

#[test]
fn a_link_whose_requests_are_not_counted_is_inconclusive() {
    let mut run = Run::healthy();
    run.plan.faults[0].effect = FaultEffect::Link {
        links: vec![psp()],
        direction: crate::plan::Direction::Both,
        effect: LinkEffect::Down { how: Down::Refuse },
    };
    let verdict = run.is_inconclusive(opens(), "cannot be counted");
    assert!(verdict.help.is_some_and(|help| help.contains("how: reset")));
}

#[test]
fn a_starved_caller_is_told_by_its_upstream_link() {
    let mut run = Run::healthy();
    let upstream = crate::plan::LinkName::new("orders", "payments");
    let hidden = |at: u64| (ON + S..OFF).contains(&at);
    run.evidence
        .calls
        .retain(|it| it.link != upstream || !hidden(it.at_ns));
    run.is_inconclusive(opens(), "offered arrived on `orders -> payments`");
}

#[test]
fn a_load_that_ends_too_early_leaves_the_closing_open() {
    let mut run = Run::healthy();
    run.change_events(|event| {
        if let Event::FaultLifted { confirmed_ns, .. } = event {
            *confirmed_ns = END - 3 * S;
        }
    });
    run.is_inconclusive(closes(), "the load ended before 6s were over");
}

#[test]
fn too_little_demand_after_the_fault_says_nothing_of_a_closing() {
    let mut run = Run::healthy();
    claims(&mut run);
    run.passes(closes());
    let upstream = crate::plan::LinkName::new("orders", "payments");
    let mut n = 0;
    run.evidence.calls.retain(|it| {
        let after = it.link == upstream && it.at_ns >= OFF;
        n += u64::from(after);
        !after || n.is_multiple_of(20)
    });
    let verdict = run.is_inconclusive(
        closes(),
        "too little demand on payments -> psp after the fault to tell",
    );
    assert!(verdict.help.is_some_and(|help| help.contains("recovery")));
}

#[test]
fn requests_are_only_counted_on_links_that_are_read_as_http() {
    let mut run = Run::healthy();
    run.plan.system.links[2].protocol = Protocol::Tcp;
    for property in [opens(), closes()] {
        let says = "requests on `payments -> psp` are not counted";
        let verdict = run.is_inconclusive(property, says);
        let help = "declare `protocol: http` on `payments -> psp`";
        assert_eq!(verdict.help.as_deref(), Some(help));
    }
}

/// A caller of two callees: besides what it asks the provider, a journey of its own asks it for
/// rates, ten times a second.
fn with_rates() -> Run {
    let mut run = Run::healthy();
    claims(&mut run);
    let rates = crate::plan::LinkName::new("payments", "rates");
    let mut link = run.plan.system.links[2].clone();
    link.name = rates.clone();
    link.service = crate::plan::ServiceName::new("rates");
    run.plan.system.links.push(link);
    let arrivals = crate::plan::LinkName::new("orders", "payments");
    for n in 0..END / (100 * MS) {
        let at = n * 100 * MS + 7 * MS;
        let trace = format!("r{n}");
        let mut it = operation(10_000 + n, at);
        it.journey = crate::plan::JourneyName::new("browse");
        it.trace = trace.clone();
        run.evidence.operations.push(it);
        for (link, later) in [(&arrivals, MS), (&rates, 2 * MS)] {
            let mut call = call(link, at + later, &trace);
            call.path = "/rates".into();
            run.evidence.calls.push(call);
        }
    }
    run
}

fn is_rates(link: &crate::plan::LinkName) -> bool {
    link.to == "rates"
}

/// Takes calls for rates away while the breaker of the provider is open.
fn block_rates(run: &mut Run, blocked: impl Fn(usize) -> bool) {
    let mut n = 0;
    run.evidence.calls.retain(|it| {
        let open = is_rates(&it.link) && (ON + 2 * S..OFF).contains(&it.at_ns);
        n += usize::from(open);
        !(open && blocked(n))
    });
}

#[test]
fn who_does_not_need_the_callee_goes_on_while_its_breaker_is_open() {
    let mut run = with_rates();
    run.passes(opens());
    block_rates(&mut run, |n| n % 10 < 3);
    run.passes(opens());
}

#[test]
fn a_breaker_that_takes_another_link_with_it_is_spurious_there() {
    let mut run = with_rates();
    block_rates(&mut run, |_| true);
    let says = "100% of the calls on payments -> rates was blocked too (0 of 180 wanted)";
    let verdict = run.fails(opens(), says);
    assert_eq!(verdict.blames, ["payments -> psp", "payments -> rates"]);
}

#[test]
fn calls_of_journeys_that_need_the_callee_may_vanish_with_it() {
    let mut run = with_rates();
    block_rates(&mut run, |_| true);
    // One of the browsers paid.
    run.evidence.calls.push(call(&psp(), OFF + 9 * S, "r540"));
    run.passes(opens());
}

#[test]
fn calls_on_a_link_with_troubles_of_its_own_may_vanish() {
    let mut blocked = with_rates();
    block_rates(&mut blocked, |_| true);
    let mut run = blocked.clone();
    let early = |it: &&mut crate::evidence::Call| {
        is_rates(&it.link) && (ON..ON + 2 * S).contains(&it.at_ns)
    };
    for it in run.evidence.calls.iter_mut().filter(early) {
        it.status = Some(503);
    }
    run.passes(opens());
    let mut run = blocked.clone();
    if let FaultEffect::Link { links, .. } = &mut run.plan.faults[0].effect {
        links.push(crate::plan::LinkName::new("payments", "rates"));
    }
    run.passes(opens());
    // Calls that nobody wrote down.
    let mut run = blocked.clone();
    let lossy = SourceState {
        lost: 1,
        ..SourceState::default()
    };
    let log = SourceName::new(REQUEST_LOG);
    run.evidence.sources.insert(log, lossy);
    run.is_inconclusive(opens(), "lost 1 row");
    // A cache that fills.
    let mut run = blocked;
    let mut n = 0;
    run.evidence.calls.retain(|it| {
        n += u64::from(is_rates(&it.link));
        !is_rates(&it.link) || n < 60 || n.is_multiple_of(2)
    });
    run.passes(opens());
}

#[test]
fn who_needs_the_callee_is_unknown_without_traces() {
    let mut run = with_rates();
    block_rates(&mut run, |_| true);
    for it in &mut run.evidence.calls {
        if it.link == psp() && it.at_ns < ON {
            it.trace = Some(format!("another-{}", it.at_ns));
        }
    }
    let verdict = run.verdict(opens());
    assert!(!verdict.why.contains("rates"), "{}", verdict.why);
}

#[test]
fn a_breaker_that_may_have_closed_after_the_load_is_not_told_open_for_ever() {
    let mut run = Run::with(&Sim {
        closes: None,
        ..Sim::default()
    });
    run.change_events(|event| {
        if let Event::FaultLifted { confirmed_ns, .. } = event {
            *confirmed_ns = END - 6500 * MS;
        }
    });
    for n in 0..130 {
        let at = END - 6500 * MS + n * 50 * MS;
        let iteration = at * RATE / S;
        let half = call(&psp(), at, &format!("t{iteration}"));
        run.evidence.calls.push(half);
    }
    run.is_inconclusive(closes(), "was seen only until 5.5s after the fault's end");
}
