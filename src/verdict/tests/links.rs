//! `breaker` and `retries`.

use std::time::Duration;

use super::super::testing::*;
use crate::evidence::{Event, REQUEST_LOG, SourceState};
use crate::plan::property::*;
use crate::plan::system::BreakerPlan;
use crate::plan::{FaultEffect, LinkEffect, SourceName, fault::Down};

fn breaker(when: BreakerWhen, claims: bool) -> Property {
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

fn opens() -> Property {
    let when = BreakerWhen::During {
        fault: fault_name(),
        opens_within: Duration::from_secs(4),
        blocks_at_least: 0.95,
    };
    breaker(when, true)
}

fn closes() -> Property {
    let when = BreakerWhen::After {
        fault: fault_name(),
        closes_within: Duration::from_secs(6),
    };
    breaker(when, true)
}

fn claims(run: &mut Run) {
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
        error: None,
    };
    let name = SourceName::new(REQUEST_LOG);
    run.evidence.sources.insert(name, state);
    run.is_inconclusive(opens(), "`request-log` lost 5 rows");
    run.is_inconclusive(closes(), "`request-log` lost 5 rows");
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
    run.is_inconclusive(closes(), "");
}

fn retries(deadline_s: u64) -> Retries {
    Retries {
        link: psp(),
        window: Window::During {
            faults: vec![fault_name()],
            and_after: Duration::ZERO,
        },
        amplification_at_most: Some(1.2),
        peak_at_most: None,
        attempts_at_most: Some(3),
        deadline: Duration::from_secs(deadline_s),
        jitter: false,
    }
}

use crate::plan::Window;

fn again(run: &mut Run, tries: u64, gap: u64, rename: bool) {
    let first: Vec<_> = run
        .evidence
        .calls
        .iter()
        .filter(|it| it.link == psp() && (ON..ON + 2 * S).contains(&it.at_ns))
        .cloned()
        .collect();
    for (n, mut it) in first.into_iter().enumerate() {
        let start = it.at_ns;
        for k in 1..tries {
            it.at_ns = start
                + k * gap
                + if rename {
                    0
                } else {
                    n as u64 % 7 * 20 * MS * k
                };
            if rename {
                it.key = Some(format!("other-{n}-{k}"));
            }
            run.evidence.calls.push(it.clone());
        }
    }
}

fn no_probes() -> Run {
    Run::with(&Sim {
        probes: 0,
        ..Sim::default()
    })
}

#[test]
fn requests_that_are_tried_once_pass() {
    no_probes().passes(Property::Retries(retries(4)));
}

#[test]
fn amplification_beyond_the_budget_fails_and_names_the_link() {
    let mut run = no_probes();
    again(&mut run, 3, 100 * MS, false);
    let verdict = run.fails(Property::Retries(retries(4)), "3.00 attempts per request");
    assert_eq!(verdict.blames, ["payments -> psp"]);
}

#[test]
fn paced_redrives_beyond_the_deadline_are_no_amplification() {
    let mut run = no_probes();
    again(&mut run, 3, 5 * S, false);
    run.passes(Property::Retries(retries(4)));
}

#[test]
fn more_attempts_than_allowed_fail() {
    let mut run = no_probes();
    again(&mut run, 5, 100 * MS, false);
    let mut property = retries(4);
    property.amplification_at_most = None;
    run.fails(
        Property::Retries(property),
        "took more than 3 attempts, one took 5",
    );
}

#[test]
fn a_post_sent_again_under_another_key_fails() {
    let mut run = no_probes();
    again(&mut run, 2, 100 * MS, true);
    run.fails(
        Property::Retries(retries(4)),
        "without the key of the first",
    );
}

#[test]
fn trying_again_after_a_refusal_fails() {
    let mut run = no_probes();
    again(&mut run, 2, 100 * MS, false);
    for it in &mut run.evidence.calls {
        if it.link == psp() && it.at_ns >= ON {
            it.status = Some(402);
        }
    }
    let mut property = retries(4);
    property.amplification_at_most = None;
    run.fails(Property::Retries(property), "after an answer of 4xx");
}

#[test]
fn a_peak_of_attempts_fails_where_the_mean_holds() {
    let mut run = no_probes();
    again(&mut run, 3, 100 * MS, false);
    let mut property = retries(4);
    property.amplification_at_most = None;
    property.peak_at_most = Some(1.5);
    run.fails(Property::Retries(property), "in the second from");
}

#[test]
fn retries_without_jitter_fail_and_too_few_prove_nothing() {
    let mut property = retries(4);
    property.amplification_at_most = None;
    property.jitter = true;
    let mut run = no_probes();
    run.is_inconclusive(Property::Retries(property.clone()), "to judge jitter by");
    again(&mut run, 2, 2100 * MS, false);
    run.passes(Property::Retries(property.clone()));
    let mut run = no_probes();
    again(&mut run, 2, 2100 * MS, true);
    for it in &mut run.evidence.calls {
        if let Some(key) = it.key.as_mut().filter(|key| key.starts_with("other")) {
            *key = format!("key-{}", it.trace.as_deref().unwrap_or_default());
        }
    }
    run.fails(Property::Retries(property), "no jitter");
}

#[test]
fn nothing_to_retry_and_too_few_requests_are_inconclusive() {
    let mut run = no_probes();
    for it in &mut run.evidence.calls {
        let (at, trace) = (it.at_ns, it.trace.clone().unwrap_or_default());
        *it = call(&it.link.clone(), at, &trace);
    }
    run.is_inconclusive(Property::Retries(retries(4)), "nothing to retry");
    run.evidence
        .calls
        .retain(|it| it.at_ns < ON || it.at_ns > OFF);
    run.is_inconclusive(Property::Retries(retries(4)), "only 0 requests with a key");
}
