//! What it takes for a fault to have been a test, by kind of fault.

use std::time::Duration;

use super::super::context::{Context, Span};
use super::super::testing::*;
use crate::evidence::{Call, CallEnd, Event, REQUEST_LOG, SourceState};
use crate::plan::fault::{Distribution, Down};
use crate::plan::property::*;
use crate::plan::system::{Protocol, RecordKind};
use crate::plan::{
    Direction, FaultEffect, LinkEffect, LinkName, ProcessEffect, ServiceName, SourceName,
};

fn errors() -> Property {
    Property::Errors(Errors {
        operation: op(),
        window: during(),
        at_most: 0.01,
        unsettled: false,
        accepted_at_most: None,
    })
}

fn with_latency(delay: u64) -> Run {
    let mut run = no_breaker();
    run.plan.faults[0].effect = FaultEffect::Link {
        links: vec![psp()],
        direction: Direction::Response,
        effect: LinkEffect::Latency {
            latency: Duration::from_millis(400),
            jitter: Duration::ZERO,
            distribution: Distribution::Uniform,
        },
    };
    for it in &mut run.evidence.calls {
        if it.link == psp() && (ON..OFF).contains(&it.at_ns) {
            *it = call(&psp(), it.at_ns, "slow");
            it.first_byte_ns = Some(it.at_ns + 5 * MS + delay);
        }
    }
    run
}

#[test]
fn a_delay_that_is_lost_in_the_links_own_variation_did_not_bite() {
    let mut run = with_latency(0);
    if let FaultEffect::Link { effect, .. } = &mut run.plan.faults[0].effect {
        *effect = LinkEffect::Latency {
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            distribution: Distribution::Uniform,
        };
    }
    // 0 to 99 ms, whatever the fault adds.
    for (n, it) in run
        .evidence
        .calls
        .iter_mut()
        .filter(|it| it.link == psp())
        .enumerate()
    {
        let delayed = u64::from((ON..OFF).contains(&it.at_ns));
        it.first_byte_ns = Some(it.at_ns + (n as u64 % 100 + delayed) * MS);
    }
    run.is_inconclusive(errors(), "did not bite");
}

fn no_breaker() -> Run {
    Run::with(&Sim {
        opens: None,
        ..Sim::default()
    })
}

#[test]
fn a_latency_bites_when_answers_are_that_much_later() {
    with_latency(400 * MS).passes(errors());
    let says = "`psp-silent` did not bite: it touched 0 requests on payments -> psp";
    with_latency(100 * MS).is_inconclusive(errors(), says);
}

#[test]
fn a_request_given_up_while_it_was_held_is_a_bite() {
    let mut run = with_latency(100 * MS);
    let held = |at| (ON..ON + S).contains(&at);
    for it in &mut run.evidence.calls {
        if it.link == psp() && held(it.at_ns) {
            *it = silent(it.clone());
        }
    }
    run.passes(errors());
}

#[test]
fn a_proxy_without_statistics_is_judged_by_the_calls() {
    let mut run = Run::healthy();
    run.change_events(|event| {
        if let Event::FaultLifted { bites, .. } = event {
            bites.clear();
        }
    });
    run.passes(errors());
    for it in &mut run.evidence.calls {
        it.end = CallEnd::Answered;
    }
    run.is_inconclusive(errors(), "did not bite");
}

#[test]
fn a_bite_on_another_link_does_not_count() {
    let mut run = Run::healthy();
    run.change_events(|event| {
        if let Event::FaultLifted { bites, .. } = event {
            bites[0].link = Some(LinkName::new("orders", "payments"));
        }
    });
    run.is_inconclusive(errors(), "did not bite");
}

#[test]
fn a_link_with_a_probe_is_back_when_the_probe_was_answered() {
    let mut run = Run::healthy();
    let link = run.plan.system.links.iter_mut();
    let mut link = link.filter(|it| it.name == psp());
    link.next().unwrap().probe = Some("/health".into());
    run.is_inconclusive(errors(), "the probe of payments -> psp was not answered");
    let probed = |took_ms| Event::LinkProbed {
        fault: fault_name(),
        link: psp(),
        took_ms,
        detail: "status 503".into(),
    };
    run.add(OFF + 10 * S, probed(None));
    run.is_inconclusive(errors(), "was not answered after `psp-silent`");
    run.add(OFF + 11 * S, probed(Some(20)));
    run.passes(errors());
}

/// The same run through somebody's Toxiproxy, which counts nothing: `payments` tells of its calls.
fn through_a_toxiproxy() -> Run {
    let mut run = Run::healthy();
    run.plan.toxiproxy = Some("http://127.0.0.1:8474".into());
    run.change_events(|event| {
        if let Event::FaultLifted { bites, .. } = event {
            bites.clear();
        }
    });
    let attempts = source("payments-attempts", RecordKind::Call, "payments");
    let state = SourceState {
        rows: 1,
        ..SourceState::default()
    };
    run.evidence.sources.insert(attempts.name.clone(), state);
    for it in run.evidence.calls.iter_mut().filter(|it| it.link == psp()) {
        it.source = attempts.name.clone();
    }
    run.plan.system.evidence.push(attempts);
    run
}

#[test]
fn through_a_toxiproxy_the_callers_word_shows_the_bite() {
    let mut run = through_a_toxiproxy();
    run.passes(errors());
    run.source_lost("payments-attempts");
    run.is_inconclusive(errors(), "evidence `payments-attempts` lost 3 rows");
    let mut run = through_a_toxiproxy();
    run.plan.system.evidence.pop();
    run.is_inconclusive(errors(), "nobody tells what crossed `payments -> psp`");
    let mut run = through_a_toxiproxy();
    run.add(
        OFF,
        Event::ServiceSpawned {
            service: ServiceName::new("payments"),
            pid: 7,
            incarnation: 2,
        },
    );
    run.is_inconclusive(errors(), "`payments` was started again and had forgotten");
}

#[test]
fn callers_who_give_up_now_and_then_show_no_bite() {
    let mut run = through_a_toxiproxy();
    let on_link = run.evidence.calls.iter_mut().filter(|it| it.link == psp());
    for (n, it) in on_link.enumerate() {
        it.end = match n % 3 {
            0 => CallEnd::ClosedByCaller,
            _ => CallEnd::Answered,
        };
    }
    run.is_inconclusive(errors(), "did not bite");
}

#[test]
fn two_who_saw_the_same_calls_are_one_witness() {
    let mut run = through_a_toxiproxy();
    let callee = source("psp-arrivals", RecordKind::Call, "psp");
    let mut seen_twice: Vec<_> = run.evidence.calls.clone();
    seen_twice.retain(|it| it.link == psp());
    for it in &mut seen_twice {
        it.source = callee.name.clone();
    }
    run.evidence.calls.extend(seen_twice);
    run.plan.system.evidence.push(callee);
    let retries = Property::Retries(Retries {
        link: psp(),
        window: during(),
        amplification_at_most: Some(1.2),
        peak_at_most: None,
        attempts_at_most: None,
        deadline: Duration::from_secs(5),
        redrives_after: None,
        jitter: false,
        backoff: false,
    });
    let verdict = run.passes(retries);
    assert!(
        verdict.why.contains("(weaker witness: payments-attempts)"),
        "{}",
        verdict.why
    );
}

/// A run whose provider tells of each call that it received, which are those that crossed its link
/// and `bypassing` more in the baseline.
fn told_by_the_provider(mut run: Run, bypassing: u64) -> Run {
    let arrivals = source("psp-arrivals", RecordKind::Call, "psp");
    let mut received: Vec<_> = run.evidence.calls.clone();
    received.retain(|it| it.link == psp());
    received.extend((0..bypassing).map(|n| call(&psp(), BASELINE + S + n * MS, "around")));
    for it in &mut received {
        it.source = arrivals.name.clone();
        it.at_ns += MS;
    }
    run.evidence.calls.extend(received);
    run.plan.system.evidence.push(arrivals);
    run
}

#[test]
fn callee_that_received_more_than_crossed_its_link_was_bypassed() {
    told_by_the_provider(Run::healthy(), 0).passes(errors());
    let mut run = told_by_the_provider(Run::healthy(), 100);
    let verdict = run.is_inconclusive(errors(), "`payments -> psp` was bypassed");
    let told = "`psp-arrivals` tells of";
    assert!(verdict.why.contains(told), "{}", verdict.why);
    // What the log has lost came around no proxy.
    let lost = SourceState {
        lost: 5,
        ..SourceState::default()
    };
    let log = SourceName::new(REQUEST_LOG);
    run.evidence.sources.insert(log, lost);
    run.passes(errors());
    // What a caller sent says nothing of the way it took.
    told_by_the_provider(through_a_toxiproxy(), 100).passes(errors());
}

#[test]
fn where_the_proxy_counts_no_requests_none_can_be_missed() {
    let mut run = told_by_the_provider(Run::healthy(), 100);
    run.plan.system.links[2].protocol = Protocol::Tcp;
    let log = SourceName::new(REQUEST_LOG);
    let counted = |it: &Call| it.link == psp() && it.source == log;
    run.evidence.calls.retain(|it| !counted(it));
    run.passes(errors());
}

#[test]
fn a_request_that_arrives_as_the_baseline_begins_bypassed_nothing() {
    let mut run = told_by_the_provider(Run::healthy(), 0);
    // Given up by its caller before the baseline, received after its begin, more than once.
    for n in 1..=50 {
        let mut gone = silent(call(&psp(), BASELINE - 700 * MS - n * MS, "late"));
        gone.ended_ns = Some(gone.at_ns + 500 * MS);
        let mut late = call(&psp(), BASELINE + n, "late");
        late.source = SourceName::new("psp-arrivals");
        run.evidence.calls.extend([gone, late]);
    }
    run.passes(errors());
}

#[test]
fn only_who_receives_and_never_calls_is_asked_beside_the_run_s_own_proxy() {
    let mut run = told_by_the_provider(through_a_toxiproxy(), 0);
    let read = |run: &Run| -> Vec<String> {
        let sources = run.plan.system.evidence.iter();
        let calls = sources.filter(|it| it.records == RecordKind::Call);
        let read = calls.filter(|it| run.plan.is_read(it));
        read.map(|it| it.name.to_string()).collect()
    };
    assert_eq!(read(&run), ["payments-attempts", "psp-arrivals"]);
    run.plan.toxiproxy = None;
    assert_eq!(read(&run), ["psp-arrivals"]);
}

fn process(effect: ProcessEffect) -> Run {
    let mut run = no_breaker();
    run.plan.faults[0].effect = FaultEffect::Process {
        services: vec![ServiceName::new("payments")],
        effect,
    };
    run
}

fn kill() -> ProcessEffect {
    ProcessEffect::Kill {
        down_for: Duration::from_secs(2),
    }
}

fn exit(run: &mut Run) {
    run.add(
        ON,
        Event::ServiceExited {
            service: ServiceName::new("payments"),
            pid: 1,
            incarnation: 1,
            code: None,
            signal: Some(9),
            by_us: true,
            log_tail: vec![],
        },
    );
}

fn ready(run: &mut Run, incarnation: u32) {
    run.add(
        OFF,
        Event::ServiceReady {
            service: ServiceName::new("payments"),
            incarnation,
            took_ms: 100,
        },
    );
}

#[test]
fn a_kill_needs_an_old_process_gone_a_new_one_ready_and_work_before() {
    let mut run = process(kill());
    run.is_inconclusive(errors(), "`payments` was never seen to end");
    exit(&mut run);
    run.is_inconclusive(errors(), "`payments` was never ready again");
    ready(&mut run, 1);
    run.is_inconclusive(errors(), "`payments` was never ready again");
    ready(&mut run, 2);
    run.passes(errors());
    let idle = LinkName::new("orders", "payments");
    run.evidence.calls.retain(|it| it.link != idle);
    run.is_inconclusive(
        errors(),
        "`payments` had served 0 requests in the 5 s before",
    );
}

#[test]
fn a_pause_needs_calls_that_went_unanswered() {
    let mut run = process(ProcessEffect::Pause);
    run.is_inconclusive(errors(), "0 calls to `payments` went unanswered meanwhile");
    for it in &mut run.evidence.calls {
        if it.link.to == "payments" && (ON..OFF).contains(&it.at_ns) {
            *it = silent(it.clone());
        }
    }
    run.passes(errors());
}

/// The link to payments as one that counts bytes, read once a second: what moved each second until a
/// time and after it.
fn on_bytes(run: &mut Run, each: [u64; 3], until: u64, rest: [u64; 3]) {
    let link = LinkName::new("orders", "payments");
    run.evidence.calls.retain(|it| it.link != link);
    for plan in &mut run.plan.system.links {
        if plan.name == link {
            plan.protocol = Protocol::Tcp;
        }
    }
    let mut counts = [0; 3];
    for at in (0..END).step_by(S as usize) {
        let moved = if at <= until { each } else { rest };
        for (count, moved) in counts.iter_mut().zip(moved) {
            *count += moved;
        }
        let [connections, request_bytes, response_bytes] = counts;
        let event = Event::LinkStats {
            link: link.clone(),
            connections,
            open: 1,
            refused: 0,
            request_bytes,
            response_bytes,
            requests: None,
            opaque: 0,
        };
        run.add(at, event);
    }
}

#[test]
fn a_killed_service_that_only_bytes_reach_had_sent_some_before() {
    let killed = |bytes| {
        let mut run = process(kill());
        exit(&mut run);
        ready(&mut run, 2);
        on_bytes(&mut run, bytes, ON, [0; 3]);
        run
    };
    killed([0, 100, 100]).passes(errors());
    let nothing_back = "`payments` had served 0 requests in the 5 s before";
    killed([1, 100, 0]).is_inconclusive(errors(), nothing_back);
}

#[test]
fn a_paused_service_that_only_bytes_reach_was_asked_meanwhile() {
    let paused = |bytes| {
        let mut run = process(ProcessEffect::Pause);
        on_bytes(&mut run, [1, 100, 100], ON, bytes);
        run
    };
    paused([0, 100, 0]).passes(errors());
    paused([1, 0, 0]).passes(errors());
    let idle = "0 calls to `payments` went unanswered meanwhile";
    paused([0, 0, 0]).is_inconclusive(errors(), idle);
}

#[test]
fn a_paused_service_that_answers_before_its_end_is_confirmed_was_paused_all_the_same() {
    let mut run = process(ProcessEffect::Pause);
    run.change_events(|event| {
        if let Event::FaultLifted { asked_ns, .. } = event {
            *asked_ns = OFF - 5 * MS;
        }
    });
    for it in &mut run.evidence.calls {
        if it.link.to == "payments" && (ON..OFF - 5 * MS).contains(&it.at_ns) {
            it.first_byte_ns = Some(OFF - 2 * MS);
        }
    }
    run.passes(errors());
}

#[test]
fn refused_connections_are_inferred_from_what_their_caller_was_asked_for() {
    let mut run = no_breaker();
    if let FaultEffect::Link { effect, .. } = &mut run.plan.faults[0].effect {
        *effect = LinkEffect::Down { how: Down::Refuse };
    }
    run.did_not_bite();
    run.is_inconclusive(errors(), "did not bite");
    run.evidence
        .calls
        .retain(|it| it.link != psp() || !(ON..OFF).contains(&it.at_ns));
    run.passes(errors());
}

#[test]
fn a_fault_that_could_not_be_applied_says_why() {
    let mut run = Run::healthy();
    let events = &mut run.evidence.events;
    events.retain(|it| !matches!(it.event, Event::FaultApplied { .. }));
    run.add(
        ON,
        Event::FaultFailed {
            fault: fault_name(),
            why: "the proxy answered 404".into(),
        },
    );
    run.is_inconclusive(errors(), "could not be applied: the proxy answered 404");
}

#[test]
fn every_fault_counts_for_a_property_of_the_whole_run() {
    let mut run = Run::healthy();
    run.did_not_bite();
    run.is_inconclusive(Property::StaysUp, "did not bite");
    let baseline = Property::Errors(Errors {
        operation: op(),
        window: crate::plan::Window::Baseline,
        at_most: 0.01,
        unsettled: false,
        accepted_at_most: None,
    });
    run.passes(baseline);
}

#[test]
fn a_route_that_the_baseline_never_used_counts_on_neither_side() {
    let mut run = Run::healthy();
    let upstream = LinkName::new("orders", "payments");
    for n in 0..200 {
        let at = OFF + 2 * S + n * 20 * MS;
        let trace = format!("refund{n}");
        for (link, later) in [(&upstream, 0), (&psp(), MS)] {
            let mut refund = call(link, at + later, &trace);
            refund.path = format!("/payments/o{n}000/refunds");
            run.evidence.calls.push(refund);
        }
    }
    let breaker = Breaker {
        link: psp(),
        when: BreakerWhen::After {
            fault: fault_name(),
            closes_within: Duration::from_secs(6),
        },
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
    let plain = Run::healthy().passes(Property::Breaker(breaker.clone()));
    let with_refunds = run.passes(Property::Breaker(breaker));
    assert_eq!(plain.value, with_refunds.value);
    assert_eq!(plain.n, with_refunds.n);
    let context = Context::new(&run.plan, &run.evidence);
    let demand = context.demand(&psp());
    let span = Span::new(OFF + 2 * S, OFF + 6 * S);
    assert_eq!(demand.wanted(span), 160.0);
    assert_eq!((demand.attempts(span), demand.entered(span)), (160, 360));
}
