//! `noop`: passes everything. It exists so that tests of clients have a toxic without effect.

use super::{Attributes, Inbox, Kind, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::Nanos;

pub(super) const KIND: Kind = Kind {
    name: "noop",
    attributes: &[],
    stage: |_| Box::new(Noop),
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[],
};

struct Noop;

impl Stage for Noop {
    fn step(&mut self, inbox: &mut Inbox, _: &mut Scene<'_>) -> Step {
        inbox.pop().map_or(Step::Idle, Step::Pass)
    }

    fn update(&mut self, _: &Attributes, _: Nanos) {}
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    #[test]
    fn everything_passes_at_once() {
        let mut bench = Bench::new("noop", "{}");
        bench.send(0, "abc");
        bench.finish();
        assert_eq!(bench.run(0), "abc|FIN");
    }
}
