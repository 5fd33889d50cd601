//! When tickets are due: ticket k at f(k) after T0, whatever the system does.
//!
//! Pure. The rate is a piecewise linear function of time; its integral is how many tickets are due
//! by then. Evenly spaced tickets are where that integral reaches 0, 1, 2, …; Poisson arrivals are
//! where it reaches the sums of exponential gaps of mean 1 (time rescaling: an inhomogeneous
//! Poisson process becomes one of rate 1 under its own integral). Every worker walks the whole
//! sequence and takes the tickets that are its own.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use crate::plan::Arrivals;
use crate::plan::load::Segment;

use super::draw::{self, Stream};

/// A ticket: start one journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Counts from 0 over the whole load, all workers together.
    pub number: u64,
    /// When it is due, after T0.
    pub due: Duration,
}

/// The tickets of one worker, in order.
#[derive(Debug)]
pub struct Schedule {
    ramp: Ramp,
    gaps: Option<ChaCha8Rng>,
    /// The integral of the rate at the last Poisson arrival.
    reached: f64,
    next: u64,
    end: Duration,
    tickets_max: u64,
    worker: u64,
    workers: u64,
}

impl Schedule {
    /// The tickets of worker `worker` (from 0) of `workers` up to `end` after T0, `tickets_max` at
    /// most (a feed that stops the load when it is used up).
    pub fn new(
        arrivals: &Arrivals,
        seed: u64,
        end: Duration,
        tickets_max: u64,
        (worker, workers): (u32, u32),
    ) -> Self {
        Self {
            ramp: Ramp::new(&arrivals.segments),
            gaps: arrivals
                .poisson
                .then(|| draw::generator(seed, Stream::Arrivals, 0)),
            reached: 0.0,
            next: 0,
            end,
            tickets_max,
            worker: worker.into(),
            workers: workers.max(1).into(),
        }
    }

    /// The next ticket of the whole sequence.
    fn advance(&mut self) -> Option<Ticket> {
        let number = self.next;
        if number >= self.tickets_max {
            return None;
        }
        let sum = match &mut self.gaps {
            Some(gaps) => self.reached + draw::exponential(gaps),
            None => number as f64,
        };
        let due = self.ramp.reaches(sum).filter(|due| *due < self.end)?;
        self.reached = sum;
        self.next += 1;
        Some(Ticket { number, due })
    }
}

impl Iterator for Schedule {
    type Item = Ticket;

    fn next(&mut self) -> Option<Ticket> {
        loop {
            let ticket = self.advance()?;
            if ticket.number % self.workers == self.worker {
                return Some(ticket);
            }
        }
    }
}

/// The highest rate of a schedule, journeys per second.
pub fn rate_max(arrivals: &Arrivals) -> f64 {
    let ends = arrivals
        .segments
        .iter()
        .map(|s| s.from_per_s.max(s.to_per_s));
    ends.fold(0.0, f64::max)
}

/// The rate over time, with its integral at the start of each stretch.
#[derive(Debug)]
struct Ramp(Vec<Stretch>);

#[derive(Debug)]
struct Stretch {
    start_s: f64,
    /// Tickets due before it.
    before: f64,
    from_per_s: f64,
    /// Change of the rate per second.
    slope: f64,
    /// Tickets due within it; infinite for the last.
    within: f64,
}

impl Ramp {
    fn new(segments: &[Segment]) -> Self {
        let mut stretches = Vec::with_capacity(segments.len() + 1);
        let (mut start_s, mut before, mut rate) = (0.0, 0.0, 0.0);
        for segment in segments {
            rate = segment.to_per_s;
            let over = segment.over.as_secs_f64();
            if over == 0.0 {
                continue;
            }
            let within = (segment.from_per_s + segment.to_per_s) / 2.0 * over;
            stretches.push(Stretch {
                start_s,
                before,
                from_per_s: segment.from_per_s,
                slope: (segment.to_per_s - segment.from_per_s) / over,
                within,
            });
            start_s += over;
            before += within;
        }
        // The last rate lasts to the end of the load.
        stretches.push(Stretch {
            start_s,
            before,
            from_per_s: rate,
            slope: 0.0,
            within: f64::INFINITY,
        });
        Self(stretches)
    }

    /// When the integral of the rate reaches `sum`; none when it never does.
    fn reaches(&self, sum: f64) -> Option<Duration> {
        let at = self.0.partition_point(|stretch| stretch.before <= sum);
        let stretch = self.0[..at]
            .iter()
            .rev()
            .find(|stretch| stretch.within > 0.0)?;
        let tickets = (sum - stretch.before).max(0.0);
        // The root of from·t + slope·t²/2 = tickets in the form that does not cancel.
        let rate = stretch.from_per_s;
        let root = (rate * rate + 2.0 * stretch.slope * tickets)
            .max(0.0)
            .sqrt();
        let divisor = rate + root;
        if divisor <= 0.0 {
            return (tickets == 0.0 && stretch.slope > 0.0)
                .then(|| Duration::from_secs_f64(stretch.start_s));
        }
        let seconds = stretch.start_s + 2.0 * tickets / divisor;
        Some(Duration::from_nanos((seconds * 1e9).round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arrivals(poisson: bool, segments: &[(f64, f64, u64)]) -> Arrivals {
        let segments = segments
            .iter()
            .map(|&(from_per_s, to_per_s, seconds)| Segment {
                from_per_s,
                to_per_s,
                over: Duration::from_secs(seconds),
            })
            .collect();
        Arrivals { poisson, segments }
    }

    fn all(arrivals: &Arrivals, seed: u64, end_s: u64) -> Vec<Ticket> {
        Schedule::new(arrivals, seed, Duration::from_secs(end_s), u64::MAX, (0, 1)).collect()
    }

    #[test]
    fn a_constant_rate_is_exact_to_the_last_ticket() {
        let tickets = all(&arrivals(false, &[(1000.0, 1000.0, 12)]), 1, 12);
        assert_eq!(tickets.len(), 12_000);
        assert_eq!(tickets[0].due, Duration::ZERO);
        assert_eq!(tickets[11_999].due, Duration::from_millis(11_999));
    }

    #[test]
    fn a_ramp_issues_the_integral_of_its_rate_and_then_holds() {
        // 0 → 100/s over 10 s is 500 tickets, then 100/s for 5 s.
        let tickets = all(&arrivals(false, &[(0.0, 100.0, 10)]), 1, 15);
        assert_eq!(tickets.len(), 1000);
        let in_ramp = tickets.iter().filter(|t| t.due < Duration::from_secs(10));
        assert_eq!(in_ramp.count(), 500);
    }

    #[test]
    fn a_stretch_without_load_is_skipped() {
        let quiet = arrivals(false, &[(10.0, 10.0, 1), (0.0, 0.0, 5), (10.0, 10.0, 1)]);
        let tickets = all(&quiet, 1, 7);
        assert_eq!(tickets.len(), 20);
        assert!(
            tickets
                .iter()
                .all(|t| t.due < Duration::from_secs(1) || t.due >= Duration::from_secs(6))
        );
        assert_eq!(all(&arrivals(false, &[(0.0, 0.0, 5)]), 1, 7), []);
        assert_eq!(
            all(&arrivals(true, &[(5.0, 0.0, 1)]), 1, 7)
                .last()
                .map(|t| t.due < Duration::from_secs(1)),
            Some(true)
        );
    }

    #[test]
    fn poisson_arrivals_have_the_mean_and_the_spread_of_poisson() {
        let tickets = all(&arrivals(true, &[(50.0, 50.0, 200)]), 42, 200);
        // 10,000 expected; four standard deviations are 400.
        assert!(
            (9600..=10_400).contains(&tickets.len()),
            "{}",
            tickets.len()
        );
        let gaps: Vec<f64> = tickets
            .windows(2)
            .map(|pair| (pair[1].due - pair[0].due).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Exponential gaps: standard deviation = mean.
        let spread = variance.sqrt() / mean;
        assert!((0.95..1.05).contains(&spread), "{spread}");
    }

    #[test]
    fn a_used_up_feed_ends_the_schedule() {
        let constant = arrivals(false, &[(100.0, 100.0, 1)]);
        let tickets = Schedule::new(&constant, 1, Duration::from_secs(60), 7, (0, 1));
        assert_eq!(tickets.count(), 7);
    }

    proptest! {
        #[test]
        fn n_workers_together_are_exactly_one(
            seed: u64,
            poisson: bool,
            workers in 1u32..6,
            segments in prop::collection::vec((0.0f64..200.0, 0.0f64..200.0, 1u64..4), 1..4),
        ) {
            let arrivals = arrivals(poisson, &segments);
            let one = all(&arrivals, seed, 8);
            let mut together: Vec<Ticket> = (0..workers)
                .flat_map(|worker| {
                    Schedule::new(&arrivals, seed, Duration::from_secs(8), u64::MAX, (worker, workers))
                })
                .collect();
            together.sort_by_key(|ticket| ticket.number);
            prop_assert_eq!(&one, &together);
            prop_assert!(one.windows(2).all(|pair| pair[0].due <= pair[1].due));
            prop_assert!(one.iter().zip(0..).all(|(ticket, number)| ticket.number == number));
        }
    }
}
