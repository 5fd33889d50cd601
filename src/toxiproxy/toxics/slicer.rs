//! `slicer`: cuts chunks into pieces of about `average_size` ± `size_variation` bytes by halving, and waits
//! `delay` µs after each piece.

use super::{Attributes, Inbox, Item, Kind, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::Nanos;
use crate::toxiproxy::engine::Draws;

pub(super) const KIND: Kind = Kind {
    name: "slicer",
    attributes: &["average_size", "size_variation", "delay"],
    stage: |attributes| {
        Box::new(Slicer {
            cut: Cut::new(attributes),
            plan: Vec::new(),
            next_at: 0,
        })
    },
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[],
};

struct Slicer {
    cut: Cut,
    /// Lengths still to be cut off the chunk in front, the next one last.
    plan: Vec<usize>,
    /// No piece before this time.
    next_at: Nanos,
}

struct Cut {
    average: usize,
    variation: usize,
    delay: Nanos,
}

impl Cut {
    /// Values that would never end or go out of range are brought into it: no average means no cutting,
    /// and a variation stays below the average.
    fn new(attributes: &Attributes) -> Self {
        let size = |name| usize::try_from(attributes.get(name)).unwrap_or(0);
        let average = size("average_size");
        let micros = u64::try_from(attributes.get("delay")).unwrap_or(0);
        Self {
            average,
            variation: size("size_variation").min(average.saturating_sub(1)),
            delay: micros.min(1_000_000_000_000) * 1_000,
        }
    }

    /// Takes the next length off the plan, halving it (give or take the variation) until it is small.
    fn next(&self, plan: &mut Vec<usize>, draws: &mut Draws) -> Option<usize> {
        let mut length = plan.pop()?;
        while self.average > 0 && length >= 2 && length > self.average + self.variation {
            let wobble = i64::try_from(self.variation).unwrap_or(0);
            let shift = if wobble > 0 {
                draws.between(-wobble, wobble)
            } else {
                0
            };
            let half = (length / 2).cast_signed() + isize::try_from(shift).unwrap_or(0);
            let left = half.clamp(1, length.cast_signed() - 1).unsigned_abs();
            plan.push(length - left);
            length = left;
        }
        Some(length)
    }
}

impl Stage for Slicer {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        let piece = match inbox.front() {
            None => return Step::Idle,
            Some(_) if self.next_at > scene.now => return Step::Until(self.next_at),
            Some(Item::Data(piece)) => piece,
            Some(Item::End(_)) => return inbox.pop().map_or(Step::Idle, Step::Pass),
        };
        if self.plan.is_empty() {
            self.plan.push(piece.data.len());
        }
        let Some(length) = self.cut.next(&mut self.plan, scene.draws) else {
            return Step::Idle;
        };
        if length < piece.data.len() {
            scene.tally.changed(piece);
        }
        self.next_at = scene.now.saturating_add(self.cut.delay);
        inbox.take_front(length).map_or(Step::Idle, |mut piece| {
            piece.at = scene.now;
            Step::Pass(Item::Data(piece))
        })
    }

    fn update(&mut self, attributes: &Attributes, _: Nanos) {
        self.cut = Cut::new(attributes);
        self.next_at = 0;
        self.plan.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    fn pieces(attributes: &str, length: usize) -> Vec<usize> {
        let mut bench = Bench::new("slicer", attributes);
        bench.send(0, &"x".repeat(length));
        bench.run_pieces(0)
    }

    #[test]
    fn halving_makes_pieces_of_at_most_average_plus_variation() {
        let pieces = pieces(r#"{"average_size":10}"#, 100);
        assert_eq!(pieces.iter().sum::<usize>(), 100);
        assert!(
            pieces.iter().all(|size| (6..=7).contains(size)),
            "{pieces:?}"
        );
        let pieces = self::pieces(r#"{"average_size":50,"size_variation":20}"#, 10_000);
        assert_eq!(pieces.iter().sum::<usize>(), 10_000);
        assert!(
            pieces.iter().all(|size| (1..=70).contains(size)),
            "{pieces:?}"
        );
    }

    #[test]
    fn values_that_kill_the_original_pass_the_data() {
        for attributes in [
            "{}",
            r#"{"average_size":-1}"#,
            r#"{"average_size":1,"size_variation":50}"#,
            r#"{"average_size":1}"#,
            r#"{"average_size":9223372036854775807,"size_variation":9223372036854775807,"delay":-1}"#,
        ] {
            assert_eq!(
                pieces(attributes, 1000).iter().sum::<usize>(),
                1000,
                "{attributes}"
            );
        }
    }

    #[test]
    fn delay_comes_after_each_piece_in_microseconds() {
        let mut bench = Bench::new("slicer", r#"{"average_size":2,"delay":10000}"#);
        bench.send(0, "abcd");
        bench.finish();
        assert_eq!(bench.run(0), "ab");
        assert_eq!(bench.run(9), "");
        assert_eq!(bench.run(10), "cd");
        assert_eq!(bench.run(20), "|FIN");
    }

    #[test]
    fn removal_sends_the_rest_whole() {
        let mut bench = Bench::new("slicer", r#"{"average_size":2,"delay":10000}"#);
        bench.send(0, "abcdef");
        assert_eq!(bench.run(0), "a");
        assert_eq!(bench.remove(), "bcdef");
    }
}
