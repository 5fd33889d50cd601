//! `conserved`.

use serde_json::json;

use super::super::testing::*;
use crate::evidence::Entry;
use crate::plan::SourceName;
use crate::plan::property::*;

fn conserved() -> Property {
    Property::Conserved(Conserved {
        left: SourceName::new("charges"),
        right: SourceName::new("owed"),
        never_below: None,
    })
}

#[test]
fn ledgers_that_agree_key_by_key_pass() {
    let verdict = Run::healthy().passes(conserved());
    let says = "2800 keys agree, total charges 5572000 = owed 5572000 EUR-cent";
    assert_eq!(verdict.why, says);
}

#[test]
fn a_charge_that_nobody_owes_fails_with_both_sides() {
    let mut run = Run::healthy();
    let owed = |it: &&mut Entry| it.source.as_str() == "owed" && it.key == "o7";
    if let Some(it) = run.evidence.entries.iter_mut().find(owed) {
        it.amount = 0;
    }
    let says = "1 of 2800 keys differ, 1 of them still in charges though owed says nothing: `o7` has \
                charges 1990 and owed 0 EUR-cent";
    let verdict = run.fails(conserved(), says);
    assert!(verdict.help.is_some_and(|help| help.contains("undoes")));
    assert_eq!(verdict.blames, ["psp", "payments -> psp", "orders"]);
    assert_eq!(verdict.findings[0].text, "charges 1990, owed 0 EUR-cent");
}

#[test]
fn equal_totals_of_different_keys_fail() {
    let mut run = Run::healthy();
    run.evidence.entries[0].key = "elsewhere".into();
    run.fails(conserved(), "2 of 2801 keys differ");
}

#[test]
fn a_double_charge_fails_and_a_refund_settles_it() {
    let mut run = Run::healthy();
    let mut again = run.evidence.entries[0].clone();
    run.evidence.entries.push(again.clone());
    let verdict = run.fails(
        conserved(),
        "by a whole multiple: `o0` has charges 3980 and owed 1990",
    );
    assert!(
        verdict
            .help
            .is_some_and(|help| help.contains("idempotency key"))
    );
    again.amount = -1990;
    run.evidence.entries.push(again);
    run.passes(conserved());
}

#[test]
fn a_difference_proves_nothing_while_things_move_or_a_ledger_is_cut_short() {
    let mut run = Run::healthy();
    run.evidence.entries.pop();
    let mut moving = run.clone();
    moving.did_not_drain();
    moving.is_inconclusive(conserved(), "the run did not drain");
    let mut undrained = run.clone();
    undrained.had_no_drain();
    undrained.is_inconclusive(conserved(), "the run was not drained");
    run.source_lost("owed");
    run.is_inconclusive(conserved(), "evidence `owed` lost 3 rows");
    run.evidence.sources.clear();
    run.is_inconclusive(conserved(), "evidence `charges` was never read");
}

#[test]
fn empty_ledgers_agree_about_nothing() {
    let mut run = Run::healthy();
    run.evidence.entries.clear();
    run.is_inconclusive(conserved(), "the ledger `charges` is empty");
}

fn never_below(limit: i64) -> Property {
    Property::Conserved(Conserved {
        left: SourceName::new("charges"),
        right: SourceName::new("owed"),
        never_below: Some(limit),
    })
}

/// A charge and two rows that cancel each other out, in an order or none.
fn with_rows(seqs: [Option<u64>; 3]) -> Run {
    let mut run = Run::healthy();
    let mut first = run.evidence.entries[0].clone();
    first.seq = seqs[0];
    let row = |amount, seq| {
        let mut row = first.clone();
        (row.amount, row.seq) = (amount, seq);
        row
    };
    let rows = [row(-1990, seqs[1]), row(1990, seqs[2])];
    run.evidence.entries[0].seq = seqs[0];
    run.evidence.entries.extend(rows);
    run
}

#[test]
fn a_running_sum_that_stays_above_its_limit_passes() {
    with_rows([Some(1), Some(2), Some(3)]).passes(never_below(0));
    // Rows without an order, none of them negative, cannot fall.
    Run::healthy().passes(never_below(0));
    // In the worst order it falls to -1990.
    with_rows([None, None, None]).passes(never_below(-1990));
}

#[test]
fn a_running_sum_that_fell_below_fails_though_the_ledgers_agree_and_before_a_drain() {
    let mut run = with_rows([Some(3), Some(1), Some(2)]);
    run.passes(conserved());
    let says = "1 key of charges fell below 0: `o0` to -1990 EUR-cent";
    let verdict = run.fails(never_below(0), says);
    assert_eq!(
        verdict.findings[0].text,
        "charges fell to -1990 EUR-cent, limit 0"
    );
    run.did_not_drain();
    run.fails(never_below(0), says);
    run.source_lost("charges");
    run.is_inconclusive(never_below(0), "evidence `charges` lost 3 rows");
}

#[test]
fn a_running_sum_without_an_order_is_inconclusive_unless_every_order_falls() {
    let mut run = with_rows([None, None, None]);
    let says = "`charges` does not say in which order the rows of 1 key were written (o0)";
    let verdict = run.is_inconclusive(never_below(0), says);
    assert!(
        verdict
            .help
            .is_some_and(|help| help.contains("yield `seq`"))
    );
    run.fails(never_below(1991), "2800 keys of charges fell below 1991");
}

#[test]
fn times_order_rows_where_numbers_do_not_and_equal_ones_may_be_either_way() {
    let mut run = with_rows([None, None, None]);
    let mut rows: Vec<&mut Entry> = run.evidence.entries.iter_mut().collect();
    rows.retain(|it| it.source.as_str() == "charges" && it.key == "o0");
    for (row, at) in rows.iter_mut().zip([5, 6, 7]) {
        row.at_ns = Some(at);
    }
    run.passes(never_below(0));
    for it in &mut run.evidence.entries {
        it.at_ns = it.at_ns.map(|_| 5);
    }
    run.is_inconclusive(never_below(0), "in which order");
}

fn charge_again(run: &mut Run) {
    let charge = |it: &&Entry| it.source.as_str() == "charges" && it.key == "o7";
    let again = run.evidence.entries.iter().find(charge).cloned().unwrap();
    run.evidence.entries.push(again);
}

/// Charges order 7 once more, while the run is still under way.
fn charged_twice() -> Run {
    let mut run = Run::healthy();
    charge_again(&mut run);
    run.did_not_drain();
    run
}

#[test]
fn a_double_charge_fails_before_a_drain_too() {
    let says = "1 key written more than once in charges, which no work in flight explains: `o7` 2 \
                times";
    let verdict = charged_twice().fails(conserved(), says);
    assert_eq!(verdict.blames, ["psp", "payments -> psp", "orders"]);
    assert!(
        verdict
            .help
            .is_some_and(|help| help.contains("idempotency key"))
    );
    // The other ledger knows of it even less.
    let mut run = charged_twice();
    let owed = |it: &Entry| it.source.as_str() == "owed" && it.key == "o7";
    run.evidence.entries.retain(|it| !owed(it));
    run.fails(conserved(), "`o7` 2 times");
    time_out(&mut run.evidence.operations[7]);
    run.fails(conserved(), "`o7` 2 times");
    run.source_lost("charges");
    run.is_inconclusive(conserved(), "evidence `charges` lost 3 rows");
}

#[test]
fn a_double_charge_names_the_link_on_which_it_was_asked_for_twice() {
    let mut run = charged_twice();
    // The order service repeated the request, and the fault was elsewhere.
    if let crate::plan::FaultEffect::Link { links, .. } = &mut run.plan.faults[0].effect {
        *links = vec![crate::plan::LinkName::new("load", "orders")];
    }
    let at = run.evidence.operations[7].intended_ns;
    let mut other = call(&psp(), at + 40 * MS, "t7");
    other.path = "/refunds".into();
    run.evidence.calls.push(other.clone());
    other.method = "GET".into();
    run.evidence.calls.extend([other.clone(), other]);
    let verdict = run.fails(conserved(), "`o7` 2 times");
    assert!(!verdict.why.contains("asked"), "{}", verdict.why);
    assert_eq!(verdict.blames, ["psp", "orders", "load -> orders"]);
    run.evidence.calls.push(call(&psp(), at + 50 * MS, "t7"));
    let says = "`o7` 2 times; it was asked for 2 times on payments -> psp";
    let verdict = run.fails(conserved(), says);
    let blamed = ["payments -> psp", "psp", "orders", "load -> orders"];
    assert_eq!(verdict.blames, blamed);
    run.change_events(|event| {
        if let crate::evidence::Event::DrainEnded { drained, left, .. } = event {
            (*drained, *left) = (true, Default::default());
        }
    });
    let says = "`o7` has charges 3980 and owed 1990 EUR-cent; it was asked for 2 times on \
                payments -> psp; total";
    run.fails(conserved(), says);
    // Once more is no other defect.
    charge_again(&mut run);
    run.evidence.calls.push(call(&psp(), at + 60 * MS, "t7"));
    let says = "by a whole multiple: `o7` has charges 5970 and owed 1990 EUR-cent; it was asked for \
                3 times on payments -> psp; total";
    run.fails(conserved(), says);
}

#[test]
fn what_work_in_flight_may_explain_is_inconclusive_before_a_drain() {
    let undrained = |change: &dyn Fn(&mut Run)| {
        let mut run = charged_twice();
        change(&mut run);
        run.is_inconclusive(conserved(), "the run did not drain")
    };
    // A refund brings it back to what may be owed.
    undrained(&|run| {
        let owed = |it: &Entry| it.source.as_str() == "owed" && it.key == "o7";
        run.evidence.entries.retain(|it| !owed(it));
        let mut refund = run.evidence.entries.last().cloned().unwrap();
        refund.amount = -1990;
        run.evidence.entries.push(refund);
    });
    // Two rows of two sizes are no repetition.
    undrained(&|run| run.evidence.entries.last_mut().unwrap().amount = 2500);
    // One row as large as two: a sum, or another price.
    undrained(&|run| {
        let again = run.evidence.entries.pop().unwrap();
        let charge = |it: &&mut Entry| it.source == again.source && it.key == again.key;
        run.evidence.entries.iter_mut().find(charge).unwrap().amount = 3980;
    });
    // Others have two rows of one size too, and agree.
    undrained(&|run| {
        for source in ["charges", "owed"] {
            let mut row = run.evidence.entries[0].clone();
            row.source = SourceName::new(source);
            run.evidence.entries.push(row);
        }
    });
}

#[test]
fn a_key_of_many_or_of_nobody_may_be_written_twice_before_a_drain() {
    let mut shared = charged_twice();
    for n in [8, 9] {
        let captured = &mut shared.evidence.operations[n].captured;
        captured.insert("order".into(), json!("o7"));
    }
    shared.is_inconclusive(conserved(), "the run did not drain");
    let mut nobodys = charged_twice();
    for it in &mut nobodys.evidence.operations {
        it.captured.clear();
    }
    nobodys.fails(conserved(), "`o7` 2 times");
    nobodys.evidence.sagas.clear();
    nobodys.is_inconclusive(conserved(), "the run did not drain");
}

#[test]
fn too_few_keys_that_agree_teach_nothing() {
    let mut run = charged_twice();
    let owed = |it: &Entry| it.source.as_str() == "owed" && it.key != "o7";
    let mut kept = 0;
    run.evidence.entries.retain(|it| {
        kept += u64::from(owed(it));
        !owed(it) || kept < 20
    });
    run.is_inconclusive(conserved(), "the run did not drain");
}
