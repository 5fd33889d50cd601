//! `reset_peer`: swallows the first chunk (or the end) and everything after it, and `timeout` ms later
//! resets both sides of the connection.

use super::{Attributes, Inbox, Kind, Removal, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::{Nanos, millis};

pub(super) const KIND: Kind = Kind {
    name: "reset_peer",
    attributes: &["timeout"],
    stage: |attributes| {
        Box::new(ResetPeer {
            timeout: millis(attributes.get("timeout")),
            spoken: None,
        })
    },
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[],
};

struct ResetPeer {
    timeout: Nanos,
    /// When the source first said something.
    spoken: Option<Nanos>,
}

impl Stage for ResetPeer {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        while let Some(item) = inbox.pop() {
            scene.tally.dropped(&item);
            self.spoken.get_or_insert(scene.now);
        }
        match self.spoken {
            None => Step::Idle,
            Some(spoken) if spoken.saturating_add(self.timeout) > scene.now => {
                Step::Until(spoken.saturating_add(self.timeout))
            }
            Some(_) => Step::Reset,
        }
    }

    /// It needs no room: it passes nothing.
    fn step_without_room(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        self.step(inbox, scene)
    }

    fn update(&mut self, attributes: &Attributes, _: Nanos) {
        self.timeout = millis(attributes.get("timeout"));
    }

    fn removal(&self) -> Removal {
        if self.spoken.is_some() {
            Removal::Reset
        } else {
            Removal::Flush
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    #[test]
    fn first_chunk_starts_the_clock() {
        let mut bench = Bench::new("reset_peer", r#"{"timeout":100}"#);
        assert_eq!(bench.run(1000), "");
        bench.send(1000, "x");
        assert_eq!(bench.run(1000), "");
        assert_eq!(bench.run(1099), "");
        assert_eq!(bench.run(1100), "|RST");
        assert_eq!(bench.stats().reset, 1);
    }

    #[test]
    fn removal_resets_what_was_swallowed_and_spares_what_was_not() {
        let mut bench = Bench::new("reset_peer", r#"{"timeout":4000}"#);
        bench.run(0);
        assert_eq!(bench.remove(), "");
        let mut bench = Bench::new("reset_peer", r#"{"timeout":4000}"#);
        bench.send(0, "x");
        bench.run(0);
        assert_eq!(bench.remove(), "|RST");
    }
}
