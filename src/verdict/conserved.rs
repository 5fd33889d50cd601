//! `conserved`: two ledgers agree, key by key, then in total, once everything is at rest.
//!
//! A difference rests on both ledgers being complete and at rest: when one was read in part it
//! proves nothing, and while work is in flight it may still go away, whichever way the unknown
//! operations turn out. At rest these are resolved by their keys: what happened is in both ledgers,
//! what did not is in neither.
//!
//! What no resolution explains fails without rest too: see [`once`] (a key written twice) and
//! [`floor`] (a running sum that fell below `never-below`).

mod asked;
mod floor;
mod once;

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence::Entry;
use crate::plan::SourceName;
use crate::plan::property::Conserved;

use super::Status;
use super::case::{Case, Gap};
use super::context::Context;
use super::text;

/// A key and its unit.
type Key<'a> = (&'a str, &'a str);
/// Sums by key.
type Ledger<'a> = BTreeMap<Key<'a>, i128>;

pub(crate) fn check(context: &Context<'_>, property: &Conserved) -> Case {
    let mut case = Case::new("keys");
    context.expect_exercised(&mut case);
    let moving = context.drain_gap();
    case.missing_all(moving.clone());
    let faults = context.plan.faults.iter();
    case.missing_all(faults.flat_map(|fault| context.fault_gaps(fault, None)));
    let (left, right) = (&property.left, &property.right);
    let gaps = [context.source_gap(left), context.source_gap(right)];
    for gap in gaps.into_iter().flatten() {
        case.blocked(gap);
    }
    let (ours, theirs) = (ledger(context, left), ledger(context, right));
    for (name, ledger) in [(left, &ours), (right, &theirs)] {
        if ledger.is_empty() {
            case.missing(Gap::new(
                format!("the ledger `{name}` is empty"),
                "drive load that writes to it, or repair its `select:`",
            ));
        }
    }
    if let Some(limit) = property.never_below {
        floor::judge(context, &mut case, property, limit);
    }
    if moving.is_some() {
        once::judge(context, &mut case, property, &ours, &theirs);
    }
    compare(context, &mut case, property, &ours, &theirs);
    blame(context, &mut case, property);
    case
}

/// The rows of a ledger, in order of collection.
fn rows<'a>(context: &'a Context<'_>, name: &SourceName) -> impl Iterator<Item = &'a Entry> {
    let entries = context.evidence.entries.iter();
    entries.filter(move |it| it.source == *name)
}

fn ledger<'a>(context: &'a Context<'_>, name: &SourceName) -> Ledger<'a> {
    let mut sums = Ledger::new();
    for it in rows(context, name) {
        *sums.entry((&it.key, &it.unit)).or_default() += i128::from(it.amount);
    }
    sums
}

/// Where they differ: a violation at rest, else only what was seen so far.
fn compare(
    context: &Context<'_>,
    case: &mut Case,
    property: &Conserved,
    ours: &Ledger<'_>,
    theirs: &Ledger<'_>,
) {
    let at_rest = context.drain_gap().is_none();
    let (left, right) = (&property.left, &property.right);
    let keys: BTreeSet<&Key<'_>> = ours.keys().chain(theirs.keys()).collect();
    let different: Vec<&Key<'_>> = keys
        .iter()
        .copied()
        .filter(|key| of(ours, key) != of(theirs, key))
        .collect();
    case.n = keys.len() as u64;
    case.value = Some(text::count(different.len() as u64, "key"));
    case.limit = Some("0 keys".into());
    let totals = totals(ours, theirs, left, right);
    case.measured = format!("{} agree, {totals}", text::count(case.n, "key"));
    let Some(first) = different.first() else {
        return;
    };
    let (pattern, help) = pattern(&different, ours, theirs, property);
    let again = repeated(first, ours, theirs, property)
        .and_then(|ledger| asked::again(context, ledger, first.0));
    let told = format!(
        "{} of {} differ{pattern}: `{}` has {left} {} and {right} {} {}{}; {totals}",
        different.len(),
        text::count(keys.len() as u64, "key"),
        first.0,
        of(ours, first),
        of(theirs, first),
        first.1,
        asked::told(again)
    );
    if let Some((link, _)) = again {
        case.blame(link.to_string());
    }
    let status = if at_rest {
        case.violated(told);
        Status::Fail
    } else {
        case.measured = told;
        Status::Inconclusive
    };
    if let Some(help) = help.filter(|_| at_rest) {
        case.advise(help);
    }
    for key in &different {
        let text = format!(
            "{left} {}, {right} {} {}",
            of(ours, key),
            of(theirs, key),
            key.1
        );
        case.find(status, None, key.0, text);
    }
}

/// What most of the differing keys have in common, and what usually mends that.
fn pattern(
    different: &[&Key<'_>],
    ours: &Ledger<'_>,
    theirs: &Ledger<'_>,
    property: &Conserved,
) -> (String, Option<&'static str>) {
    let (left, right) = (&property.left, &property.right);
    let count = |holds: &dyn Fn(i128, i128) -> bool| {
        different
            .iter()
            .filter(|key| holds(of(ours, key), of(theirs, key)))
            .count()
    };
    let again = |key: &&&Key<'_>| repeated(key, ours, theirs, property).is_some();
    let repeated = different.iter().filter(again).count();
    let kept = count(&|a, b| a != 0 && b == 0);
    let missing = count(&|a, b| a == 0 && b != 0);
    let most = different.len().div_ceil(2);
    if repeated >= most {
        (
            format!(", {repeated} of them by a whole multiple"),
            Some("make every try of the write carry the same idempotency key, and honour it"),
        )
    } else if kept >= most {
        (
            format!(", {kept} of them still in {left} though {right} says nothing"),
            Some("repeat what undoes the write until it has succeeded"),
        )
    } else if missing >= most {
        (
            format!(", {missing} of them in {right} but never in {left}"),
            Some("repeat the write until it has succeeded, under the same key"),
        )
    } else {
        (String::new(), None)
    }
}

/// The ledger that holds twice what the other one does, or three times, or more: what is written
/// again is written whole.
fn repeated<'a>(
    key: &Key<'_>,
    ours: &Ledger<'_>,
    theirs: &Ledger<'_>,
    property: &'a Conserved,
) -> Option<&'a SourceName> {
    match (of(ours, key), of(theirs, key)) {
        (a, b) if b != 0 && a % b == 0 && a / b > 1 => Some(&property.left),
        (a, b) if a != 0 && b % a == 0 && b / a > 1 => Some(&property.right),
        _ => None,
    }
}

fn of(ledger: &Ledger<'_>, key: &Key<'_>) -> i128 {
    ledger.get(key).copied().unwrap_or(0)
}

/// Sums by unit: `charges 159200 = owed 159200 EUR-cent`.
fn totals(ours: &Ledger<'_>, theirs: &Ledger<'_>, left: &SourceName, right: &SourceName) -> String {
    let units: BTreeSet<&str> = ours.keys().chain(theirs.keys()).map(|key| key.1).collect();
    let sum = |ledger: &Ledger<'_>, unit: &str| -> i128 {
        let of_unit = ledger.iter().filter(|(key, _)| key.1 == unit);
        of_unit.map(|(_, amount)| amount).sum()
    };
    let told = units.iter().map(|unit| {
        let (a, b) = (sum(ours, unit), sum(theirs, unit));
        let sign = if a == b { "=" } else { "≠" };
        format!("{left} {a} {sign} {right} {b} {unit}")
    });
    format!("total {}", told.collect::<Vec<_>>().join(", "))
}

/// Both services whose books these are, and the faulted links between which they parted.
fn blame(context: &Context<'_>, case: &mut Case, property: &Conserved) {
    for source in [&property.left, &property.right] {
        let Some(service) = context.plan.source_service(source) else {
            case.blame(source.as_str());
            continue;
        };
        case.blame(service.as_str());
        for link in context.faulted_links_at(&service) {
            case.blame(link.to_string());
        }
    }
}
