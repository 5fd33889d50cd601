//! `limit_data`: passes `bytes`, then closes both sides. The count is kept over updates.

use super::{Attributes, Ending, Inbox, Item, Kind, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::Nanos;

pub(super) const KIND: Kind = Kind {
    name: "limit_data",
    attributes: &["bytes"],
    stage: |attributes| {
        Box::new(LimitData {
            limit: limit(attributes),
            passed: 0,
            full: false,
        })
    },
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[],
};

struct LimitData {
    limit: u64,
    passed: u64,
    /// The limit was reached by data, so the close is next.
    full: bool,
}

fn limit(attributes: &Attributes) -> u64 {
    u64::try_from(attributes.get("bytes")).unwrap_or(0)
}

impl Stage for LimitData {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        if self.full {
            inbox
                .iter_from(0)
                .for_each(|item| scene.tally.dropped(item));
            inbox.clear();
            return Step::Pass(Item::End(Ending::Close));
        }
        let length = match inbox.front() {
            Some(Item::Data(piece)) => piece.data.len(),
            _ => return inbox.pop().map_or(Step::Idle, Step::Pass),
        };
        let left = self.limit.saturating_sub(self.passed);
        self.full = length as u64 >= left;
        if left == 0 {
            return self.step(inbox, scene);
        }
        let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        self.passed += length as u64;
        inbox
            .take_front(length)
            .map_or(Step::Idle, |piece| Step::Pass(Item::Data(piece)))
    }

    fn update(&mut self, attributes: &Attributes, _: Nanos) {
        self.limit = limit(attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    #[test]
    fn bytes_up_to_the_limit_pass_and_then_it_closes() {
        let mut bench = Bench::new("limit_data", r#"{"bytes":5}"#);
        bench.send(0, "abc");
        assert_eq!(bench.run(0), "abc");
        assert_eq!(bench.stats().touched, 0, "it has done nothing yet");
        bench.send(0, "defg");
        assert_eq!(bench.run(0), "de|CLOSE");
        assert_eq!(bench.stats().dropped_bytes, 2);
        assert_eq!(bench.stats().touched, 1);
    }

    #[test]
    fn exact_hit_closes_at_once_and_zero_waits_for_data() {
        let mut bench = Bench::new("limit_data", r#"{"bytes":3}"#);
        bench.send(0, "abc");
        assert_eq!(bench.run(0), "abc|CLOSE");
        let mut bench = Bench::new("limit_data", r#"{"bytes":0}"#);
        assert_eq!(bench.run(1000), "");
        bench.send(1000, "a");
        assert_eq!(bench.run(1000), "|CLOSE");
    }

    #[test]
    fn count_survives_an_update() {
        let mut bench = Bench::new("limit_data", r#"{"bytes":5}"#);
        bench.send(0, "abc");
        bench.run(0);
        bench.update(0, r#"{"bytes":4}"#);
        bench.send(0, "defg");
        assert_eq!(bench.run(0), "d|CLOSE");
    }
}
