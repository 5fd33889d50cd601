//! `limit_time` (extension): closes the connection `time` ms after the toxic met it. Data passes until then.

use super::{Attributes, Inbox, Kind, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::{Nanos, millis};

pub(super) const KIND: Kind = Kind {
    name: "limit_time",
    attributes: &["time"],
    stage: |attributes| {
        Box::new(LimitTime {
            time: millis(attributes.get("time")),
            since: None,
        })
    },
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[],
};

struct LimitTime {
    time: Nanos,
    since: Option<Nanos>,
}

impl Stage for LimitTime {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        match self.step_without_room(inbox, scene) {
            Step::Until(due) => inbox.pop().map_or(Step::Until(due), Step::Pass),
            close => close,
        }
    }

    fn step_without_room(&mut self, _: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        let since = *self.since.get_or_insert(scene.now);
        let due = since.saturating_add(self.time);
        if due > scene.now {
            Step::Until(due)
        } else {
            Step::Close
        }
    }

    fn update(&mut self, attributes: &Attributes, _: Nanos) {
        self.time = millis(attributes.get("time"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    #[test]
    fn data_passes_until_the_time_is_over() {
        let mut bench = Bench::new("limit_time", r#"{"time":1000}"#);
        assert_eq!(bench.run(100), "");
        bench.send(1099, "ab");
        assert_eq!(bench.run(1099), "ab");
        bench.send(1100, "c");
        assert_eq!(bench.run(1100), "|CLOSE");
        assert_eq!(bench.stats().closed, 1);
        assert_eq!(bench.stats().dropped_bytes, 1);
    }

    #[test]
    fn idle_connection_is_closed_too_and_an_update_counts_from_the_beginning() {
        let mut bench = Bench::new("limit_time", r#"{"time":1000}"#);
        assert_eq!(bench.run(0), "");
        bench.update(10, r#"{"time":50}"#);
        assert_eq!(bench.run(49), "");
        assert_eq!(bench.run(50), "|CLOSE");
    }
}
