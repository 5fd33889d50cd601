//! What the charts and tables show, worked out from the evidence: counts per bin, percentiles,
//! the latency heat map, calls per link. Percentiles are exact, over the operations themselves.

use std::collections::BTreeMap;

use super::Run;
use super::timeline::{Span, Timeline};
use crate::evidence::{CallEnd, Evidence, Operation};
use crate::plan::load::OutcomeClass;
use crate::plan::{LinkName, OperationName};

/// Most classes of errors that are told apart; the rest is one class.
const ERROR_CLASSES_MAX: usize = 6;
/// Columns of a heat map.
const HEAT_COLUMNS_MAX: usize = 250;
/// Rows of a heat map per factor of ten.
const HEAT_ROWS_PER_DECADE: f64 = 8.0;
/// Values that must lie beyond a percentile for it to be shown as one.
const BEYOND_MIN: f64 = 5.0;

/// The quantiles that are shown, with their names.
pub(super) const QUANTILES: [(f64, &str); 5] = [
    (0.5, "p50"),
    (0.9, "p90"),
    (0.99, "p99"),
    (0.999, "p99.9"),
    (1.0, "max"),
];

/// Values of a series, one per bin; none where there is nothing to tell.
pub(super) type Series = Vec<Option<f64>>;

/// The outcomes in the order in which they are stacked, best first.
pub(super) const OUTCOMES: [(OutcomeClass, &str); 5] = [
    (OutcomeClass::Done, "done"),
    (OutcomeClass::Accepted, "accepted"),
    (OutcomeClass::Refused, "refused"),
    (OutcomeClass::Unsettled, "unsettled"),
    (OutcomeClass::Unknown, "unknown"),
];

pub(super) fn is_good(outcome: OutcomeClass) -> bool {
    matches!(outcome, OutcomeClass::Done | OutcomeClass::Accepted)
}

/// The class of what went wrong with an operation; none when nothing did.
fn error_class(operation: &Operation) -> Option<String> {
    match (&operation.error, operation.outcome) {
        (Some(error), _) => Some(error.clone()),
        (None, OutcomeClass::Unknown) => Some(
            operation
                .status
                .map_or("no answer".into(), |status| format!("status {status}")),
        ),
        (None, OutcomeClass::Unsettled) => Some("unsettled".into()),
        (None, _) => None,
    }
}

/// The value at a quantile of sorted values: the smallest that at least this share lies at or
/// below (nearest rank, as HdrHistogram does).
pub(super) fn quantile(sorted: &[u64], quantile: f64) -> Option<u64> {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// As [`quantile`], where enough values lie beyond it to know it: five, or none at all for the
/// largest.
pub(super) fn known_quantile(sorted: &[u64], q: f64) -> Option<u64> {
    let beyond = (1.0 - q) * sorted.len() as f64;
    (q >= 1.0 || beyond >= BEYOND_MIN - 1e-9).then(|| quantile(sorted, q))?
}

/// An operation over time.
#[derive(Debug)]
pub(super) struct OverTime {
    /// Operations per second by outcome, by intended start, in the order of [`OUTCOMES`].
    pub(super) outcomes: Vec<(&'static str, Series)>,
    /// Errors per second by class.
    pub(super) errors: Vec<(String, Series)>,
    /// ms; p50, p90, p99, max of what was done or accepted.
    pub(super) latency: Vec<(&'static str, Series)>,
    /// ms; the median of what was not.
    pub(super) failed: Series,
    pub(super) heat: Heat,
}

/// Counts over time and latency.
#[derive(Debug, Default)]
pub(super) struct Heat {
    /// Bins of the axis per column.
    pub(super) bins_per_column: usize,
    /// The lower edge of the lowest row, ns.
    pub(super) from_ns: f64,
    /// Rows.
    pub(super) rows: usize,
    /// Columns of counts, lowest row first.
    pub(super) columns: Vec<Vec<u64>>,
    pub(super) count_max: u64,
}

impl Heat {
    /// The upper edge of the highest row, ns.
    pub(super) fn to_ns(&self) -> f64 {
        self.from_ns * 10f64.powf(self.rows as f64 / HEAT_ROWS_PER_DECADE)
    }
}

pub(super) fn over_time(
    evidence: &Evidence,
    timeline: &Timeline,
    name: &OperationName,
) -> OverTime {
    let bins = timeline.bins();
    let bin_s = timeline.bin_ns as f64 / 1e9;
    let mut outcomes = vec![vec![0u64; bins]; OUTCOMES.len()];
    let mut errors: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut good: Vec<Vec<u64>> = vec![Vec::new(); bins];
    let mut failed: Vec<Vec<u64>> = vec![Vec::new(); bins];
    for operation in evidence
        .operations
        .iter()
        .filter(|operation| operation.op == *name)
    {
        let Some(bin) = timeline.bin(operation.intended_ns) else {
            continue;
        };
        let of = OUTCOMES
            .iter()
            .position(|(outcome, _)| *outcome == operation.outcome);
        outcomes[of.unwrap_or(0)][bin] += 1;
        if let Some(class) = error_class(operation) {
            errors.entry(class).or_insert_with(|| vec![0; bins])[bin] += 1;
        }
        let group = if is_good(operation.outcome) {
            &mut good
        } else {
            &mut failed
        };
        group[bin].push(operation.latency_ns());
    }
    let heat = heat(&good, &failed);
    good.iter_mut()
        .chain(&mut failed)
        .for_each(|values| values.sort_unstable());
    let at = |values: &[Vec<u64>], q: f64| -> Series {
        values
            .iter()
            .map(|values| quantile(values, q).map(|ns| ns as f64 / 1e6))
            .collect()
    };
    let per_s = |counts: Vec<u64>| -> Series {
        counts.into_iter().map(|n| Some(n as f64 / bin_s)).collect()
    };
    OverTime {
        outcomes: OUTCOMES
            .iter()
            .map(|o| o.1)
            .zip(outcomes.into_iter().map(per_s))
            .collect(),
        errors: largest(errors)
            .into_iter()
            .map(|(class, n)| (class, per_s(n)))
            .collect(),
        latency: [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (1.0, "max")]
            .map(|(q, name)| (name, at(&good, q)))
            .into(),
        failed: at(&failed, 0.5),
        heat,
    }
}

/// The classes with most errors, largest first; the others added up.
fn largest(errors: BTreeMap<String, Vec<u64>>) -> Vec<(String, Vec<u64>)> {
    let mut classes: Vec<_> = errors.into_iter().collect();
    classes.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.iter().sum::<u64>()));
    if classes.len() > ERROR_CLASSES_MAX {
        let rest = classes.split_off(ERROR_CLASSES_MAX - 1);
        let mut sum = vec![0; rest[0].1.len()];
        for (_, counts) in rest {
            sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        }
        classes.push(("other".into(), sum));
    }
    classes
}

fn heat(good: &[Vec<u64>], failed: &[Vec<u64>]) -> Heat {
    let all = || good.iter().chain(failed).flatten().copied();
    let row = |ns: u64| ((ns.max(1_000) as f64).log10() * HEAT_ROWS_PER_DECADE).floor() as usize;
    let (Some(low), Some(high)) = (all().min().map(row), all().max().map(row)) else {
        return Heat::default();
    };
    let bins_per_column = good.len().div_ceil(HEAT_COLUMNS_MAX);
    let rows = high - low + 1;
    let mut columns = vec![vec![0; rows]; good.len().div_ceil(bins_per_column)];
    for values in [good, failed] {
        for (bin, values) in values.iter().enumerate() {
            for ns in values {
                columns[bin / bins_per_column][row(*ns) - low] += 1;
            }
        }
    }
    Heat {
        bins_per_column,
        from_ns: 10f64.powf(low as f64 / HEAT_ROWS_PER_DECADE),
        rows,
        count_max: columns.iter().flatten().copied().max().unwrap_or(0),
        columns,
    }
}

/// An operation in one window.
#[derive(Clone, Debug, Default)]
pub(super) struct InWindow {
    pub(super) n: u64,
    pub(super) by_outcome: [u64; OUTCOMES.len()],
    /// Error classes, most frequent first.
    pub(super) errors: Vec<(String, u64)>,
    /// ns, sorted; from the intended start, of what was done or accepted.
    pub(super) latency: Vec<u64>,
    /// ns, sorted; from the sending of the first request, of the same.
    pub(super) service: Vec<u64>,
}

impl InWindow {
    pub(super) fn of(
        evidence: &Evidence,
        timeline: &Timeline,
        name: &OperationName,
        window: &Span,
    ) -> Self {
        let mut found = Self::default();
        let mut errors: BTreeMap<String, u64> = BTreeMap::new();
        let operations = evidence
            .operations
            .iter()
            .filter(|operation| operation.op == *name);
        for operation in operations.filter(|operation| timeline.in_window(window, operation)) {
            found.n += 1;
            let of = OUTCOMES
                .iter()
                .position(|(outcome, _)| *outcome == operation.outcome);
            found.by_outcome[of.unwrap_or(0)] += 1;
            if let Some(class) = error_class(operation) {
                *errors.entry(class).or_default() += 1;
            }
            if is_good(operation.outcome) {
                found.latency.push(operation.latency_ns());
                found
                    .service
                    .push(operation.ended_ns.saturating_sub(operation.sent_ns));
            }
        }
        found.latency.sort_unstable();
        found.service.sort_unstable();
        found.errors = errors.into_iter().collect();
        found.errors.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        found
    }

    pub(super) fn good(&self) -> u64 {
        self.by_outcome[0] + self.by_outcome[1]
    }

    /// Unknown operations: the last of [`OUTCOMES`].
    pub(super) fn unknown(&self) -> u64 {
        self.by_outcome[OUTCOMES.len() - 1]
    }
}

/// Calls on a link over time.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) link: LinkName,
    pub(super) n: u64,
    pub(super) errors_n: u64,
    /// Requests per second that entered.
    pub(super) calls: Series,
    /// Those of them that were not answered below 500.
    pub(super) errors: Series,
}

/// The calls of every link that had any, in the order of the plan's links.
pub(super) fn calls<'l>(
    run: &Run<'_>,
    timeline: &Timeline,
    links: impl Iterator<Item = &'l LinkName>,
) -> Vec<Calls> {
    let bins = timeline.bins();
    let mut counts: BTreeMap<&LinkName, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
    let by_link = run.evidence.calls_by_link(run.plan);
    for call in by_link.into_values().flatten() {
        let Some(bin) = timeline.bin(call.at_ns) else {
            continue;
        };
        let entry = counts
            .entry(&call.link)
            .or_insert_with(|| (vec![0; bins], vec![0; bins]));
        entry.0[bin] += 1;
        let answered = call.end == CallEnd::Answered && call.status.is_none_or(|s| s < 500);
        entry.1[bin] += u64::from(!answered);
    }
    let bin_s = timeline.bin_ns as f64 / 1e9;
    let per_s = |counts: &[u64]| counts.iter().map(|n| Some(*n as f64 / bin_s)).collect();
    links
        .filter_map(|link| {
            let (calls, errors) = counts.get(link)?;
            Some(Calls {
                link: link.clone(),
                n: calls.iter().sum(),
                errors_n: errors.iter().sum(),
                calls: per_s(calls),
                errors: per_s(errors),
            })
        })
        .collect()
}

/// The largest sample of each bin, by series.
pub(super) fn samples<'e>(
    evidence: &'e Evidence,
    timeline: &Timeline,
) -> BTreeMap<&'e str, Series> {
    let mut series: BTreeMap<&str, Series> = BTreeMap::new();
    for sample in &evidence.samples {
        let Some(bin) = timeline.bin(sample.at_ns) else {
            continue;
        };
        let values = series
            .entry(&sample.series)
            .or_insert_with(|| vec![None; timeline.bins()]);
        values[bin] = Some(values[bin].map_or(sample.value, |value| value.max(sample.value)));
    }
    series
}

#[cfg(test)]
mod tests {
    use super::{known_quantile, quantile};

    #[test]
    fn a_percentile_with_fewer_than_five_values_beyond_it_is_not_known() {
        let values: Vec<u64> = (1..=500).collect();
        assert_eq!(known_quantile(&values, 0.99), Some(495));
        assert_eq!(known_quantile(&values[..499], 0.99), None);
        assert_eq!(known_quantile(&values[..3], 1.0), Some(3));
    }

    #[test]
    fn quantile_is_the_nearest_rank() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(quantile(&values, 0.5), Some(50));
        assert_eq!(quantile(&values, 0.99), Some(99));
        assert_eq!(quantile(&values, 1.0), Some(100));
        assert_eq!(quantile(&values, 0.0), Some(1));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
