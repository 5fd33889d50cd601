//! `retries`.

use std::time::Duration;

use super::super::testing::*;
use crate::evidence::{Call, CallEnd, Event};
use crate::plan::property::*;
use crate::plan::{FaultEffect, FaultName, ProcessEffect, ServiceName, Window};

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
        redrives_after: None,
        jitter: false,
        backoff: false,
    }
}

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

/// A hundred requests every five seconds of the fault, which fail at once and are tried again after
/// each of `pauses`. `n` counts the requests.
fn retried(pauses: impl Fn(u64) -> Vec<u64>) -> Run {
    let mut run = no_probes();
    let under = |it: &Call| it.link == psp() && (ON..OFF).contains(&it.at_ns);
    run.evidence.calls.retain(|it| !under(it));
    for n in 0..400 {
        let mut at = ON + n / 100 * 5 * S + n % 100 * MS / 100;
        let key = format!("tried-{n}");
        for pause in [vec![0], pauses(n)].concat() {
            let mut it = call(&psp(), at + pause, &key);
            it.end = CallEnd::Cut;
            (it.status, it.first_byte_ns) = (None, None);
            at = it.ended_ns.unwrap();
            run.evidence.calls.push(it);
        }
    }
    run
}

/// Of requests that are tried as often as they like.
fn pace(change: impl Fn(&mut Retries)) -> Property {
    let mut property = retries(4);
    property.amplification_at_most = None;
    property.attempts_at_most = None;
    change(&mut property);
    Property::Retries(property)
}

/// A draw from 0 to 1, the same for the same numbers.
fn draw(n: u64, k: u64) -> f64 {
    let mixed = (n * 7 + k + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

fn between(low_ms: f64, high_ms: f64, drawn: f64) -> u64 {
    ((low_ms + (high_ms - low_ms) * drawn) * MS as f64) as u64
}

#[test]
fn jittered_retries_of_requests_that_failed_together_are_no_storm() {
    let jitter = |property: &mut Retries| property.jitter = true;
    let full = |n| vec![between(50.0, 1000.0, draw(n, 0))];
    retried(full).passes(pace(jitter));
    let equal = |n| vec![between(500.0, 1000.0, draw(n, 0))];
    retried(equal).passes(pace(jitter));
    let plus_or_minus = |n| vec![between(800.0, 1200.0, draw(n, 0))];
    retried(plus_or_minus).passes(pace(jitter));
    // Some are driven again, much later.
    let redriven = |n| match n % 10 {
        0..2 => vec![between(2000.0, 3000.0, draw(n, 0))],
        _ => vec![between(50.0, 300.0, draw(n, 0))],
    };
    retried(redriven).passes(pace(jitter));
}

#[test]
fn retries_in_step_after_a_common_failure_fail_though_their_gaps_vary() {
    let either = |n| vec![if n % 4 < 2 { 500 * MS } else { 1000 * MS }];
    let property = pace(|property| property.jitter = true);
    let says = "come in step: 100 requests failed together at +0.0s, and 50 retries came within the \
                same 100 ms";
    let verdict = retried(either).fails(property.clone(), says);
    assert_eq!(verdict.blames, ["payments -> psp"]);
    assert!(!verdict.why.contains("no jitter"), "{}", verdict.why);
    // Twenty and twenty of forty may be chance.
    let mut few = retried(either);
    few.evidence.calls.retain(|it| {
        let tried = it.trace.as_deref().and_then(|it| it.strip_prefix("tried-"));
        tried.is_none_or(|n| n.parse::<u64>().unwrap() % 100 < 40)
    });
    few.passes(property);
}

#[test]
fn pauses_too_short_for_the_resolution_are_in_step_with_nothing() {
    let short = |n| vec![if n % 4 < 2 { 50 * MS } else { 150 * MS }];
    retried(short).passes(pace(|property| property.jitter = true));
}

#[test]
fn pauses_that_grow_jittered_or_stay_at_their_cap_back_off() {
    let backoff = |property: &mut Retries| property.backoff = true;
    retried(|_| vec![100 * MS, 200 * MS, 400 * MS]).passes(pace(backoff));
    retried(|_| vec![100 * MS, 100 * MS, 100 * MS]).passes(pace(backoff));
    let full = |n| {
        let ceilings = [200.0, 400.0, 400.0, 400.0].into_iter().zip(0..);
        ceilings
            .map(|(ms, k)| between(0.0, ms, draw(n, k)))
            .collect()
    };
    retried(full).passes(pace(backoff));
}

#[test]
fn pauses_that_shrink_do_not_back_off() {
    let shrinking = |_| vec![100 * MS, 400 * MS, 100 * MS];
    let says = "do not back off: after attempt 3 400 of 400 requests waited shorter than after \
                attempt 2 (median 100ms after 400ms)";
    let property = pace(|property| property.backoff = true);
    let verdict = retried(shrinking).fails(property, says);
    assert_eq!(verdict.blames, ["payments -> psp"]);
    // Not named, not judged.
    retried(shrinking).passes(pace(|property| property.jitter = false));
}

#[test]
fn backing_off_takes_requests_that_came_back_twice_of_their_own_accord() {
    let backoff = pace(|property| property.backoff = true);
    let says = "only 0 requests came back twice without being told when";
    retried(|_| vec![100 * MS]).is_inconclusive(backoff.clone(), says);
    let mut run = retried(|_| vec![400 * MS, 100 * MS]);
    for it in run.evidence.calls.iter_mut().filter(|it| it.link == psp()) {
        if (ON..OFF).contains(&it.at_ns) {
            it.status = Some(503);
        }
    }
    run.is_inconclusive(backoff.clone(), says);
    let few = |n| match n {
        0..19 => vec![400 * MS, 100 * MS],
        _ => vec![400 * MS],
    };
    retried(few).is_inconclusive(backoff, "only 19 requests came back twice");
}

#[test]
fn a_retry_after_the_deadline_fails_where_pauses_tell_it_from_a_redrive() {
    let late = |n| match n {
        7 => vec![500 * MS, 1500 * MS, 2500 * MS],
        _ => vec![500 * MS],
    };
    let held = |redrives_after| pace(move |property| property.redrives_after = redrives_after);
    retried(late).passes(held(None));
    let says = "1 request on payments -> psp tried again later than the caller's deadline of 4s";
    let verdict = retried(late).fails(held(Some(Duration::from_secs(3))), says);
    let text = "tried again 4.51s after its first attempt";
    assert_eq!(verdict.findings[0].text, text);
    // After a pause of two seconds it is a re-drive.
    retried(late).passes(held(Some(Duration::from_secs(2))));
}

#[test]
fn a_redrive_that_is_paced_begins_a_request_of_its_own() {
    let redriven = |_| vec![100 * MS, 1000 * MS, 100 * MS];
    let at_most_two = |redrives_after| {
        pace(move |property| {
            property.attempts_at_most = Some(2);
            property.redrives_after = redrives_after;
        })
    };
    retried(redriven).fails(at_most_two(None), "took more than 2 attempts, one took 4");
    retried(redriven).passes(at_most_two(Some(Duration::from_secs(1))));
}

#[test]
fn what_follows_an_answer_or_does_not_wait_for_one_is_no_retry() {
    let property = pace(|property| {
        (property.jitter, property.backoff) = (true, true);
        property.redrives_after = Some(Duration::from_secs(3));
    });
    let polled = |_| vec![2000 * MS, 250 * MS, 2500 * MS];
    let lacks = "only 0 retries to judge jitter by";
    let mut polls = retried(polled);
    let tried = |it: &&mut Call| {
        it.trace
            .as_deref()
            .is_some_and(|it| it.starts_with("tried"))
    };
    for it in polls.evidence.calls.iter_mut().filter(tried) {
        (it.end, it.status) = (CallEnd::Answered, Some(200));
    }
    let failed = silent(call(&psp(), OFF - S, "failed"));
    polls.evidence.calls.push(failed.clone());
    polls.is_inconclusive(property.clone(), lacks);
    let mut abreast = retried(|_| vec![20 * MS, 10 * MS]);
    for it in abreast.evidence.calls.iter_mut().filter(tried) {
        it.ended_ns = Some(it.at_ns + S);
    }
    abreast.is_inconclusive(property, lacks);
}

#[test]
fn attempts_after_the_callers_death_are_redrives() {
    let mut run = retried(|_| vec![1000 * MS]);
    let property = pace(|property| property.attempts_at_most = Some(1));
    run.fails(property.clone(), "took more than 1 attempts");
    // One whole outage for each of the four crowds, and the provider's besides.
    for n in 0..4 {
        let name = FaultName::new(format!("crash-{n}"));
        let mut fault = run.plan.faults[0].clone();
        fault.name = name.clone();
        fault.effect = FaultEffect::Process {
            services: vec![ServiceName::new("payments")],
            effect: ProcessEffect::Pause,
        };
        run.plan.faults.push(fault);
        let at = ON + n * 5 * S + 300 * MS;
        let (asked_ns, confirmed_ns) = (at, at);
        let applied = Event::FaultApplied {
            fault: name.clone(),
            asked_ns,
            confirmed_ns,
            detail: String::new(),
        };
        run.add(at, applied);
        let (asked_ns, confirmed_ns) = (at + 100 * MS, at + 100 * MS);
        let lifted = Event::FaultLifted {
            fault: name,
            asked_ns,
            confirmed_ns,
            bites: vec![],
        };
        run.add(at + 100 * MS, lifted);
    }
    run.passes(property);
}

#[test]
fn attempts_without_a_name_are_missing_evidence() {
    let mut run = no_probes();
    run.passes(Property::Retries(retries(4)));
    again(&mut run, 3, 100 * MS, false);
    let mut seen = std::collections::BTreeSet::new();
    for it in &mut run.evidence.calls {
        if it.link == psp() && !seen.insert(it.key.clone()) {
            (it.key, it.trace) = (None, None);
        }
    }
    let says = "160 of 240 requests on payments -> psp carry neither key nor trace";
    run.is_inconclusive(Property::Retries(retries(4)), says);
}
