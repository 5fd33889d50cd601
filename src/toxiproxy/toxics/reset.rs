//! `reset` (extension): resets live connections at once, and new ones too: where the proxy reads
//! requests, once the first has come. The upstream hears nothing of them: a host that is up and whose
//! service is not.

use super::{Attributes, Inbox, Kind, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::Nanos;

pub(super) const KIND: Kind = Kind {
    name: "reset",
    attributes: &[],
    stage: |_| Box::new(Reset),
    room: SMALL_ROOM,
    role: Role::Reset,
    extras: &[],
};

struct Reset;

impl Stage for Reset {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        while let Some(item) = inbox.pop() {
            scene.tally.dropped(&item);
        }
        Step::Reset
    }

    /// It needs no room: it passes nothing.
    fn step_without_room(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        self.step(inbox, scene)
    }

    fn update(&mut self, _: &Attributes, _: Nanos) {}
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    #[test]
    fn live_connection_is_reset_without_traffic() {
        let mut bench = Bench::new("reset", "{}");
        assert_eq!(bench.run(0), "|RST");
    }
}
