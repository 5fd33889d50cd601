//! How many operations a schedule makes in a window: what the arithmetic of properties rests on.

use std::time::Duration;

use crate::plan::load::LoadModel;
use crate::plan::{LoadPlan, OperationName};

/// Journeys that are due between two instants of the load. A closed model decides only as it goes:
/// counted as if every journey took its think time and nothing else would be a promise that nobody
/// can keep, so it counts one journey per user and second at most.
pub(super) fn journeys_between(load: &LoadPlan, from: Duration, to: Duration) -> f64 {
    match &load.model {
        LoadModel::Open(arrivals) => {
            let cumulative = |until: Duration| -> f64 {
                let mut left = until.as_secs_f64();
                let mut count = 0.0;
                let last = arrivals.segments.len().saturating_sub(1);
                for (index, segment) in arrivals.segments.iter().enumerate() {
                    let over = segment.over.as_secs_f64();
                    if index == last {
                        // It lasts to the end of the load, at the rate that it has reached.
                        let ramp = left.min(over);
                        count += area(segment.from_per_s, segment.to_per_s, over, ramp);
                        count += (left - ramp) * segment.to_per_s;
                    } else {
                        let part = left.min(over);
                        count += area(segment.from_per_s, segment.to_per_s, over, part);
                        left -= part;
                    }
                }
                count
            };
            (cumulative(to) - cumulative(from)).max(0.0)
        }
        LoadModel::Closed { users, think } => {
            let cycle = think.as_secs_f64().max(1.0);
            f64::from(*users) * to.saturating_sub(from).as_secs_f64() / cycle
        }
    }
}

/// Whether the offered load is the same at all times between two instants of it. A closed model
/// offers as much as the system takes, which no plan knows.
pub(super) fn is_constant(load: &LoadPlan, from: Duration, to: Duration) -> bool {
    let LoadModel::Open(arrivals) = &load.model else {
        return true;
    };
    let last = arrivals.segments.len().saturating_sub(1);
    let mut start = Duration::ZERO;
    let mut rates = Vec::new();
    for (index, segment) in arrivals.segments.iter().enumerate() {
        let end = start + segment.over;
        if start < to && from < end {
            rates.extend([segment.from_per_s, segment.to_per_s]);
        }
        // The last rate stays.
        if index == last && end < to {
            rates.push(segment.to_per_s);
        }
        start = end;
    }
    rates.windows(2).all(|pair| pair[0] == pair[1])
}

/// Arrivals in the first `part` seconds of a stretch whose rate changes linearly over `over`.
fn area(from: f64, to: f64, over: f64, part: f64) -> f64 {
    if over <= 0.0 {
        return 0.0;
    }
    let reached = from + (to - from) * part / over;
    part * f64::midpoint(from, reached)
}

/// The share of journeys that hold an operation; 0 for one that is not driven.
pub(super) fn share_of(load: &LoadPlan, operation: &OperationName) -> f64 {
    let weights: f64 = load.journeys.iter().map(|journey| journey.weight).sum();
    let holding = load.journeys.iter().filter(|journey| {
        let mut steps = journey.steps.iter();
        steps.any(|step| step.name == *operation)
    });
    holding.map(|journey| journey.weight).sum::<f64>() / weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::load::{Arrivals, Segment};

    fn load(segments: Vec<Segment>) -> LoadPlan {
        LoadPlan {
            model: LoadModel::Open(Arrivals {
                poisson: false,
                segments,
            }),
            users_max: 1,
            timeout: Duration::from_secs(1),
            journeys: Vec::new(),
            feeds: Vec::new(),
            requests_per_s: (0.0, 0.0),
        }
    }

    fn segment(from_per_s: f64, to_per_s: f64, seconds: u64) -> Segment {
        Segment {
            from_per_s,
            to_per_s,
            over: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_constant_rate_counts_by_time() {
        let load = load(vec![segment(40.0, 40.0, 0)]);
        let count = journeys_between(&load, Duration::from_secs(5), Duration::from_secs(25));
        assert_eq!(count, 800.0);
    }

    #[test]
    fn a_ramp_counts_its_area_and_then_its_last_rate() {
        let load = load(vec![segment(0.0, 100.0, 10), segment(100.0, 100.0, 0)]);
        let count =
            |from, to| journeys_between(&load, Duration::from_secs(from), Duration::from_secs(to));
        assert_eq!(count(0, 10), 500.0);
        assert_eq!(count(0, 5), 125.0);
        assert_eq!(count(10, 20), 1000.0);
    }

    #[test]
    fn a_load_is_constant_before_and_after_its_ramps_alone() {
        let s = Duration::from_secs;
        let steady = load(vec![segment(40.0, 40.0, 0)]);
        assert!(is_constant(&steady, s(0), s(60)));
        let ramp = load(vec![segment(0.0, 100.0, 10), segment(100.0, 100.0, 0)]);
        assert!(!is_constant(&ramp, s(9), s(60)));
        assert!(is_constant(&ramp, s(10), s(60)));
        let later = load(vec![
            segment(40.0, 40.0, 30),
            segment(40.0, 80.0, 10),
            segment(80.0, 80.0, 0),
        ]);
        assert!(is_constant(&later, s(5), s(30)));
        assert!(!is_constant(&later, s(5), s(31)));
        assert!(!is_constant(&later, s(5), s(60)));
        assert!(is_constant(&later, s(40), s(60)));
        // A jump is a ramp that takes no time.
        let jump = load(vec![
            segment(40.0, 40.0, 30),
            segment(40.0, 80.0, 0),
            segment(80.0, 80.0, 0),
        ]);
        assert!(!is_constant(&jump, s(5), s(60)));
    }
}
