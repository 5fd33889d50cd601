//! `stall` (extension): holds everything, delivers it when removed. A network that lost its way and
//! finds it again: nothing is lost, everything is late.

use super::{Attributes, Inbox, Kind, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::Nanos;

pub(super) const KIND: Kind = Kind {
    name: "stall",
    attributes: &[],
    stage: |_| Box::new(Stall { counted: 0 }),
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[],
};

struct Stall {
    /// Items of the inbox that are counted as held.
    counted: usize,
}

impl Stage for Stall {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        for item in inbox.iter_from(self.counted) {
            scene.tally.held(item);
        }
        self.counted = inbox.len();
        Step::Idle
    }

    fn update(&mut self, _: &Attributes, _: Nanos) {}
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    #[test]
    fn bytes_and_end_are_held_until_removal() {
        let mut bench = Bench::new("stall", "{}");
        bench.send(0, "ab");
        assert_eq!(bench.run(0), "");
        bench.send(5, "cd");
        bench.finish();
        assert_eq!(bench.run(3_600_000), "");
        assert_eq!(bench.stats().held_bytes, 4);
        assert_eq!(bench.stats().held_chunks, 3);
        assert_eq!(bench.remove(), "abcd|FIN");
    }
}
