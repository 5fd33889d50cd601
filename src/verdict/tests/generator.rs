//! What is said of operations when the load itself went wrong.

use super::super::testing::*;
use super::operations::{errors, goodput, hangs, latency, recovers};
use crate::evidence::Event;
use crate::plan::property::*;

#[test]
fn dropped_tickets_keep_from_passing() {
    let mut run = Run::healthy();
    run.tickets_were_dropped();
    run.is_inconclusive(errors(0.01), "7 tickets found no free user");
    run.is_inconclusive(latency(0.99, 100), "7 tickets found no free user");
    let verdict = run.is_inconclusive(hangs(1000), "7 tickets found no free user");
    let help = "lower `arrivals:` or give the machine more cores";
    assert_eq!(verdict.help.as_deref(), Some(help));
    run.plan.load.users_max = crate::plan::load::USERS_MAX;
    let verdict = run.is_inconclusive(hangs(1000), "7 tickets found no free user");
    let help =
        "lower `arrivals:`, or shorten `timeout:` under `load:`, so that 2000 users are enough";
    assert_eq!(verdict.help.as_deref(), Some(help));
}

fn all_of_the_load() -> [Property; 5] {
    [
        errors(0.01),
        latency(0.99, 100),
        goodput(0.9, GoodputOf::Offered),
        hangs(1000),
        recovers(),
    ]
}

#[test]
fn a_load_that_does_not_add_up_says_nothing_about_it() {
    let mut run = Run::healthy();
    let account = |run: &mut Run, issued| {
        run.change_events(|event| {
            if let Event::LoadFinished(load) = event {
                (load.issued, load.completed, load.failed) = (issued, 2700, 90);
            }
        });
    };
    let says = "the load does not add up: 2800 tickets issued, but 2700 completed + 90 failed + 0 \
                dropped";
    for property in all_of_the_load() {
        account(&mut run, 2790);
        run.passes(property.clone());
        account(&mut run, 2800);
        run.is_inconclusive(property, says);
    }
    // Nor can it fail: what is missing may have gone well.
    for it in run.operations_in(ON, OFF) {
        time_out(it);
    }
    run.is_inconclusive(errors(0.01), says);
}

#[test]
fn a_late_generator_does_not_make_operations_hang() {
    let mut run = Run::healthy();
    run.generator_was_late();
    run.is_inconclusive(
        hangs(1000),
        "fell behind its schedule: send-lag p99 900ms, bound 100ms",
    );
    run.passes(hangs(10_000));
    for it in run.operations_in(ON, OFF) {
        (it.sent_ns, it.ended_ns) = (OFF + 2 * S, OFF + 2 * S + 20 * MS);
    }
    run.is_inconclusive(
        hangs(1000),
        "the longest of 800 operations during psp-silent took 20ms",
    );
    time_out(run.operations_in(ON + S, OFF).remove(0));
    let it = run.operations_in(ON + S, OFF).remove(0);
    it.sent_ns = it.intended_ns;
    run.fails(hangs(1000), "1 of 800 operations lasted longer than 1s");
}

#[test]
fn a_worker_without_an_account_proves_nothing_of_the_load() {
    let mut run = Run::healthy();
    let events = &mut run.evidence.events;
    events.retain(|it| !matches!(it.event, Event::LoadFinished(_)));
    for property in all_of_the_load() {
        run.is_inconclusive(property, "no account of the load");
    }
}

#[test]
fn a_generator_that_stalled_in_the_window_says_nothing_of_it() {
    let mut run = Run::healthy();
    for it in run.operations_in(ON, ON + S) {
        it.sent_ns = it.intended_ns + S;
        it.ended_ns = it.sent_ns + 20 * MS;
    }
    let says = "the load generator fell behind its schedule: send-lag p99 1s, bound 50ms";
    run.is_inconclusive(latency(0.99, 500), says);
    run.is_inconclusive(goodput(0.9, GoodputOf::Offered), "fell behind its schedule");
    run.is_inconclusive(hangs(500), "fell behind its schedule");
}

#[test]
fn an_operation_that_was_sent_late_did_not_hang_for_that() {
    let mut run = Run::healthy();
    for it in run.operations_in(ON, ON + 100 * MS) {
        it.sent_ns = it.intended_ns + S;
        it.ended_ns = it.sent_ns + 20 * MS;
    }
    run.passes(hangs(500));
    for it in run.operations_in(ON, ON + 100 * MS) {
        it.ended_ns = it.sent_ns + 600 * MS;
    }
    run.fails(hangs(500), "4 of 800 operations lasted longer than 500ms");
}
