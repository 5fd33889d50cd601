//! `slow_close`: data passes, the end of this direction comes `delay` ms late. The other direction closes
//! when it likes.

use super::{Attributes, Ending, Inbox, Item, Kind, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::{Nanos, millis};

pub(super) const KIND: Kind = Kind {
    name: "slow_close",
    attributes: &["delay"],
    stage: |attributes| {
        Box::new(SlowClose {
            delay: millis(attributes.get("delay")),
            ended: None,
        })
    },
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[],
};

struct SlowClose {
    delay: Nanos,
    /// When the end came by.
    ended: Option<Nanos>,
}

impl Stage for SlowClose {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        let end = match inbox.front() {
            Some(end @ Item::End(Ending::Finished | Ending::Close)) => end,
            _ => return inbox.pop().map_or(Step::Idle, Step::Pass),
        };
        if self.ended.is_none() && self.delay > 0 {
            scene.tally.delayed(end);
        }
        let due = self
            .ended
            .get_or_insert(scene.now)
            .saturating_add(self.delay);
        if due > scene.now {
            return Step::Until(due);
        }
        inbox.pop().map_or(Step::Idle, Step::Pass)
    }

    fn update(&mut self, attributes: &Attributes, _: Nanos) {
        self.delay = millis(attributes.get("delay"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    #[test]
    fn only_the_end_is_late() {
        let mut bench = Bench::new("slow_close", r#"{"delay":100}"#);
        bench.send(0, "abc");
        bench.finish();
        assert_eq!(bench.run(10), "abc");
        assert_eq!(bench.run(109), "");
        assert_eq!(bench.run(110), "|FIN");
    }

    #[test]
    fn removal_closes_now() {
        let mut bench = Bench::new("slow_close", r#"{"delay":100000}"#);
        bench.finish();
        assert_eq!(bench.run(0), "");
        assert_eq!(bench.remove(), "|FIN");
    }
}
