//! `never-below`: after no row is the running sum of a key below the limit, in either ledger.
//!
//! Rows are in order by `seq`, else by time; rows of which neither says which came first may have
//! come in any order. The limit is broken when it is in the best of those orders and kept when it is
//! in the worst; in between the order is evidence that is missing. So a key with one row, or with
//! none below 0, needs no order at all.
//!
//! A sum that fell below once is a violation whatever comes later, and so before a drain too.

use std::collections::BTreeMap;

use crate::evidence::Entry;
use crate::plan::SourceName;
use crate::plan::property::Conserved;

use super::super::Status;
use super::super::case::{Case, Gap};
use super::super::context::Context;
use super::super::text;
use super::{Key, rows};

pub(super) fn judge(context: &Context<'_>, case: &mut Case, property: &Conserved, limit: i64) {
    for name in [&property.left, &property.right] {
        judge_ledger(context, case, name, i128::from(limit));
    }
}

fn judge_ledger(context: &Context<'_>, case: &mut Case, name: &SourceName, limit: i128) {
    let mut by_key: BTreeMap<Key<'_>, Vec<&Entry>> = BTreeMap::new();
    for it in rows(context, name) {
        by_key.entry((&it.key, &it.unit)).or_default().push(it);
    }
    let mut below: Vec<(Key<'_>, i128)> = Vec::new();
    let mut unordered: Vec<&str> = Vec::new();
    for (key, rows) in &by_key {
        let best = lowest(rows, |it| -i128::from(it.amount));
        let worst = lowest(rows, |it| i128::from(it.amount));
        if best < limit {
            below.push((*key, best));
        } else if worst < limit {
            unordered.push(key.0);
        }
    }
    if let Some(((key, unit), lowest)) = below.first() {
        case.violated(format!(
            "{} of {name} fell below {limit}: `{key}` to {lowest} {unit}",
            text::count(below.len() as u64, "key")
        ));
    }
    for ((key, unit), lowest) in &below {
        let text = format!("{name} fell to {lowest} {unit}, limit {limit}");
        case.find(Status::Fail, None, *key, text);
    }
    if !unordered.is_empty() {
        case.missing(Gap::new(
            format!(
                "`{name}` does not say in which order the rows of {} were written ({})",
                text::count(unordered.len() as u64, "key"),
                text::some_of(unordered)
            ),
            format!("let `select:` of `evidence: {name}` yield `seq`"),
        ));
    }
}

/// The lowest running sum of a key's rows; `tie` orders those that are at the same place.
fn lowest(rows: &[&Entry], tie: impl Fn(&Entry) -> i128) -> i128 {
    let mut rows = rows.to_vec();
    let numbered = rows.iter().all(|it| it.seq.is_some());
    let timed = rows.iter().all(|it| it.at_ns.is_some());
    let place = |it: &Entry| match (numbered, timed) {
        (true, _) => it.seq,
        (false, true) => it.at_ns,
        (false, false) => None,
    };
    rows.sort_by_key(|it| (place(it), tie(it)));
    let mut sum = 0;
    let sums = rows.iter().map(|it| {
        sum += i128::from(it.amount);
        sum
    });
    sums.min().unwrap_or(0)
}
