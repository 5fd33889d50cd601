//! `bandwidth`: at most `rate` KB/s (1 KB = 1000 B) per connection. Chunks larger than a tenth of a second's
//! worth are cut, so that a slow link trickles instead of bursting. `rate` 0 holds all bytes, and the end
//! that is behind them.
//!
//! With `shared` (extension) the rate is that of all connections of the proxy together: they take turns on
//! one line, in smaller pieces.

use super::{Attributes, Extra, Inbox, Item, Kind, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::{MILLISECOND, Nanos};

pub(super) const KIND: Kind = Kind {
    name: "bandwidth",
    attributes: &["rate"],
    stage: |attributes| {
        Box::new(Bandwidth {
            rate: rate(attributes),
            shared: attributes.flag("shared"),
            free_at: 0,
            due: None,
            held: 0,
        })
    },
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[Extra::flag("shared")],
};

/// A line that was idle for longer starts afresh: what a held line missed is not made up for.
const CREDIT: Nanos = 100 * MILLISECOND;

struct Bandwidth {
    /// KB/s, which is bytes per ms.
    rate: u64,
    /// The line is the toxic's and not its own.
    shared: bool,
    /// When the line has sent all that it was given.
    free_at: Nanos,
    /// Length of the bytes on the line, and when they have passed it.
    due: Option<(usize, Nanos)>,
    /// Items counted as held.
    held: usize,
}

fn rate(attributes: &Attributes) -> u64 {
    u64::try_from(attributes.get("rate")).unwrap_or(0)
}

impl Bandwidth {
    /// Puts the first bytes of a waiting chunk on the line.
    fn load(&self, length: usize, arrived: Nanos, scene: &Scene<'_>) -> (usize, Nanos) {
        let most = self.rate.saturating_mul(if self.shared { 10 } else { 100 });
        let length = length.min(usize::try_from(most).unwrap_or(usize::MAX));
        let earliest = arrived.max(scene.now.saturating_sub(CREDIT));
        let span = length as u64 * MILLISECOND / self.rate;
        let due = if self.shared {
            scene.shared.occupy(earliest, span)
        } else {
            self.free_at.max(earliest) + span
        };
        (length, due)
    }
}

impl Stage for Bandwidth {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        let (item, length, at) = match inbox.front() {
            Some(item @ Item::Data(piece)) => (item, piece.data.len(), piece.at),
            _ => return inbox.pop().map_or(Step::Idle, Step::Pass),
        };
        if self.rate == 0 {
            inbox
                .iter_from(self.held)
                .for_each(|item| scene.tally.held(item));
            self.held = inbox.len();
            return Step::Idle;
        }
        let (length, due) = match self.due {
            Some(due) => due,
            None => {
                let due = self.load(length, at, scene);
                if due.1 > scene.now {
                    scene.tally.delayed(item);
                }
                *self.due.insert(due)
            }
        };
        if due > scene.now {
            return Step::Until(due);
        }
        self.due = None;
        self.free_at = due;
        inbox.take_front(length).map_or(Step::Idle, |mut piece| {
            piece.at = due;
            Step::Pass(Item::Data(piece))
        })
    }

    fn update(&mut self, attributes: &Attributes, now: Nanos) {
        self.rate = rate(attributes);
        self.shared = attributes.flag("shared");
        (self.due, self.free_at, self.held) = (None, now, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    #[test]
    fn ten_kilobytes_per_second_are_a_thousand_bytes_each_tenth() {
        let mut bench = Bench::new("bandwidth", r#"{"rate":10}"#);
        bench.send(0, &"x".repeat(2500));
        assert_eq!(bench.run(99).len(), 0);
        assert_eq!(bench.run(100).len(), 1000);
        assert_eq!(bench.run(199).len(), 0);
        assert_eq!(bench.run(200).len(), 1000);
        assert_eq!(bench.run(250).len(), 500);
    }

    #[test]
    fn late_timer_does_not_lower_the_rate() {
        let mut bench = Bench::new("bandwidth", r#"{"rate":10}"#);
        bench.send(0, &"x".repeat(20_000));
        let total: usize = (0..10).map(|tick| bench.run(tick * 150).len()).sum();
        assert_eq!(total, 13_000);
    }

    #[test]
    fn new_rate_holds_for_what_waits() {
        let mut bench = Bench::new("bandwidth", r#"{"rate":10}"#);
        bench.send(0, &"x".repeat(2500));
        assert_eq!(bench.run(100).len(), 1000);
        bench.update(100, r#"{"rate":1}"#);
        assert_eq!(bench.run(199).len(), 0);
        assert_eq!(bench.run(200).len(), 100);
    }

    #[test]
    fn zero_and_negative_rates_hold_until_updated_or_removed() {
        for rate in [0, -1, i64::MIN] {
            let attributes = format!(r#"{{"rate":{rate}}}"#);
            let mut bench = Bench::new("bandwidth", &attributes);
            bench.send(0, "abc");
            bench.finish();
            assert_eq!(bench.run(60_000), "");
            assert_eq!(bench.stats().held_bytes, 3);
            bench.update(60_000, r#"{"rate":1}"#);
            assert_eq!(bench.run(60_002), "");
            assert_eq!(bench.run(60_003), "abc|FIN");

            let mut bench = Bench::new("bandwidth", &attributes);
            bench.send(0, "abc");
            bench.run(5);
            assert_eq!(bench.remove(), "abc");
        }
    }

    #[test]
    fn rate_of_zero_lets_the_end_of_an_idle_connection_through() {
        let mut bench = Bench::new("bandwidth", r#"{"rate":0}"#);
        assert_eq!(bench.run(0), "");
        bench.finish();
        assert_eq!(bench.run(0), "|FIN");
    }

    #[test]
    fn highest_rate_does_not_overflow() {
        let mut bench = Bench::new("bandwidth", &format!(r#"{{"rate":{}}}"#, i64::MAX));
        bench.send(0, "abc");
        assert_eq!(bench.run(0), "abc");
    }

    #[test]
    fn shared_rate_is_that_of_all_connections_together() {
        let mut one = Bench::new("bandwidth", r#"{"rate":10,"shared":true}"#);
        let mut other = one.sibling("bandwidth");
        [&mut one, &mut other]
            .into_iter()
            .for_each(|bench| bench.send(0, &"x".repeat(10_000)));
        let mut sums = [0, 0];
        for now in (0..=500).step_by(10) {
            sums[0] += one.run(now).len();
            sums[1] += other.run(now).len();
        }
        assert_eq!(sums[0] + sums[1], 5000);
        assert!(sums[0].abs_diff(sums[1]) <= 100, "in turn: {sums:?}");
    }
}
