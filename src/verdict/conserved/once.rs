//! A key that was written twice, while the run is not at rest.
//!
//! An operation happens once or not at all, and so does a saga. The ledgers of a key that belongs to
//! one of them alone lie between nothing and once its amount, however the unknown operations turn
//! out; twice the amount is a definite violation (a double charge).
//!
//! - *belongs*: exactly one operation of the load captured or sent the key, or exactly one saga is
//!   about it, joined as `sagas` joins them. Keys that many share (a product, an account) have an
//!   amount for each of them, which nobody tells: of those nothing is said.
//! - *once its amount*: the rows of the key are all of one size a, and its sum is 2 a or more. That
//!   one operation leaves a in this ledger and not two instalments of it is learnt from the keys on
//!   which both ledgers agree already: at least 20, and not one of them with more than its a.
//! - a ledger that is read as sums, one row for each key, cannot show it.

use std::collections::{BTreeMap, HashMap};

use crate::plan::SourceName;
use crate::plan::property::Conserved;

use super::super::Status;
use super::super::case::Case;
use super::super::context::Context;
use super::super::text;
use super::{Key, Ledger, asked, of, rows};

/// Keys that agree, below which they teach nothing.
const AGREEING_MIN: usize = 20;

pub(super) fn judge(
    context: &Context<'_>,
    case: &mut Case,
    property: &Conserved,
    ours: &Ledger<'_>,
    theirs: &Ledger<'_>,
) {
    let owners = Owners::of(context);
    let agrees = |key: &Key<'_>| of(ours, key) == of(theirs, key);
    for name in [&property.left, &property.right] {
        let times = times(context, name);
        let agreeing = times.iter().filter(|(key, n)| agrees(key) && **n > 0);
        let agreeing: Vec<u64> = agreeing.map(|(_, n)| *n).collect();
        if agreeing.len() < AGREEING_MIN || agreeing.iter().any(|n| *n > 1) {
            continue;
        }
        let twice = |(key, n): &(&Key<'_>, &u64)| **n > 1 && !agrees(key) && owners.one(key.0);
        let twice: Vec<(&Key<'_>, &u64)> = times.iter().filter(twice).collect();
        let Some((first, n)) = twice.first() else {
            continue;
        };
        case.advise("make every try of the write carry the same idempotency key, and honour it");
        let again = asked::again(context, name, first.0);
        case.violated(format!(
            "{} written more than once in {name}, which no work in flight explains: `{}` {n} \
             times{}",
            text::count(twice.len() as u64, "key"),
            first.0,
            asked::told(again)
        ));
        if let Some((link, _)) = again {
            case.blame(link.to_string());
        }
        for (key, n) in twice {
            let text = format!("{n} times in {name}, an operation happens once at most");
            case.find(Status::Fail, None, key.0, text);
        }
    }
}

/// How many times the one amount of its rows a key holds, undone ones taken off; keys whose rows
/// are of several sizes are left out.
fn times<'a>(context: &'a Context<'_>, name: &SourceName) -> BTreeMap<Key<'a>, u64> {
    let mut sizes: BTreeMap<Key<'a>, (u64, i128, bool)> = BTreeMap::new();
    for it in rows(context, name).filter(|it| it.amount != 0) {
        let size = it.amount.unsigned_abs();
        let known = sizes.entry((&it.key, &it.unit)).or_insert((size, 0, true));
        known.1 += i128::from(it.amount);
        known.2 &= known.0 == size;
    }
    let of_one_size = sizes.into_iter().filter(|(_, (_, _, one))| *one);
    let times = of_one_size.map(|(key, (size, sum, _))| {
        let times = sum.unsigned_abs() / u128::from(size);
        (key, u64::try_from(times).unwrap_or(u64::MAX))
    });
    times.collect()
}

/// To whom a key belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// To one alone, by its number.
    One(usize),
    Many,
}

/// The operations and sagas that keys belong to.
struct Owners<'a> {
    operations: HashMap<&'a str, Owner>,
    sagas: HashMap<&'a str, Owner>,
}

impl<'a> Owners<'a> {
    fn of(context: &'a Context<'_>) -> Self {
        let mut operations = HashMap::new();
        for it in &context.evidence.operations {
            // The steps of one journey are about one thing.
            let number = usize::try_from(it.iteration).unwrap_or(usize::MAX);
            let captured = it.captured.values().filter_map(|value| value.as_str());
            captured
                .chain([it.key.as_str()])
                .for_each(|name| own(&mut operations, name, number));
        }
        let mut sagas = HashMap::new();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        for it in &context.evidence.sagas {
            let next = numbers.len();
            let number = *numbers.entry(&it.id).or_insert(next);
            own(&mut sagas, &it.key, number);
        }
        Self { operations, sagas }
    }

    /// Whether a key belongs to one operation, or to one saga, alone.
    fn one(&self, key: &str) -> bool {
        let owner = self.operations.get(key).or(self.sagas.get(key));
        owner.is_some_and(|owner| *owner != Owner::Many)
    }
}

fn own<'a>(owners: &mut HashMap<&'a str, Owner>, name: &'a str, number: usize) {
    let owner = owners.entry(name).or_insert(Owner::One(number));
    if *owner != Owner::One(number) {
        *owner = Owner::Many;
    }
}
