//! `timeout`: drops all data, and closes the connection after `timeout` ms without any. 0 is a black hole
//! that never closes. Bytes are missing, so removing it closes the connection.
//!
//! The end of a stream passes, as in Toxiproxy: a peer that closes after each answer is then heard of at once.
//! `silent` (extension) swallows ends too, as a network does that carries nothing.

use super::{Attributes, Extra, Inbox, Item, Kind, Removal, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::{Nanos, millis};

pub(super) const KIND: Kind = Kind {
    name: "timeout",
    attributes: &["timeout"],
    stage: |attributes| {
        Box::new(Timeout {
            timeout: millis(attributes.get("timeout")),
            silent: attributes.flag("silent"),
            quiet_since: None,
        })
    },
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[Extra::flag("silent")],
};

struct Timeout {
    timeout: Nanos,
    /// Ends are swallowed as well.
    silent: bool,
    /// The last chunk that was dropped, else the beginning.
    quiet_since: Option<Nanos>,
}

impl Stage for Timeout {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        while let Some(item) = inbox.pop() {
            match item {
                Item::End(_) if self.silent => continue,
                Item::End(_) => return Step::Pass(item),
                Item::Data(_) => {}
            }
            scene.tally.dropped(&item);
            self.quiet_since = Some(scene.now);
        }
        let quiet_since = *self.quiet_since.get_or_insert(scene.now);
        if self.timeout == 0 {
            return Step::Idle;
        }
        let due = quiet_since.saturating_add(self.timeout);
        if due > scene.now {
            Step::Until(due)
        } else {
            Step::Close
        }
    }

    /// It needs no room: it passes no bytes.
    fn step_without_room(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        self.step(inbox, scene)
    }

    fn update(&mut self, attributes: &Attributes, now: Nanos) {
        self.timeout = millis(attributes.get("timeout"));
        self.silent = attributes.flag("silent");
        self.quiet_since = Some(now);
    }

    fn removal(&self) -> Removal {
        Removal::Close
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    #[test]
    fn timer_starts_anew_with_every_dropped_chunk() {
        let mut bench = Bench::new("timeout", r#"{"timeout":500}"#);
        assert_eq!(bench.run(0), "");
        for at in [200, 400, 600, 800] {
            bench.send(at, "x");
            assert_eq!(bench.run(at), "");
        }
        assert_eq!(bench.run(1299), "");
        assert_eq!(bench.run(1300), "|CLOSE");
        assert_eq!(bench.stats().dropped_bytes, 4);
        assert_eq!(bench.stats().closed, 1);
    }

    #[test]
    fn zero_is_a_black_hole_that_lets_the_end_through() {
        let mut bench = Bench::new("timeout", r#"{"timeout":0}"#);
        bench.send(0, "x");
        assert_eq!(bench.run(3_600_000), "");
        bench.finish();
        assert_eq!(bench.run(3_600_000), "|FIN");
    }

    #[test]
    fn silence_swallows_the_end_until_it_is_lifted() {
        let mut bench = Bench::new("timeout", r#"{"timeout":0,"silent":true}"#);
        bench.send(0, "x");
        bench.finish();
        assert_eq!(bench.run(3_600_000), "");
        assert_eq!(bench.remove(), "|CLOSE");
    }

    #[test]
    fn removal_closes() {
        let mut bench = Bench::new("timeout", r#"{"timeout":0}"#);
        bench.send(0, "x");
        bench.run(0);
        assert_eq!(bench.remove(), "|CLOSE");
    }
}
