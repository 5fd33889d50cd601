//! `timeout`: drops all data, and closes the connection after `timeout` ms without any. 0 is a black hole
//! that never closes. Bytes are missing, so removing it closes the connection.

use super::{Attributes, Inbox, Item, Kind, Removal, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::{Nanos, millis};

pub(super) const KIND: Kind = Kind {
    name: "timeout",
    attributes: &["timeout"],
    stage: |attributes| {
        Box::new(Timeout {
            timeout: millis(attributes.get("timeout")),
            quiet_since: None,
        })
    },
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[],
};

struct Timeout {
    timeout: Nanos,
    /// The last chunk that was dropped, else the beginning.
    quiet_since: Option<Nanos>,
}

impl Stage for Timeout {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        while let Some(item) = inbox.pop() {
            if matches!(item, Item::End(_)) {
                return Step::Pass(item);
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
    fn removal_closes() {
        let mut bench = Bench::new("timeout", r#"{"timeout":0}"#);
        bench.send(0, "x");
        bench.run(0);
        assert_eq!(bench.remove(), "|CLOSE");
    }
}
