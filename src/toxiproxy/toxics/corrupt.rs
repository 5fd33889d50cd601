//! `corrupt` (extension): flips one bit in about every `every` bytes. Which ones depends on the seed and the
//! place in the stream alone, not on how the bytes were cut.

use bytes::BytesMut;

use super::{Attributes, Inbox, Item, Kind, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::Nanos;
use crate::toxiproxy::engine::Draws;

pub(super) const KIND: Kind = Kind {
    name: "corrupt",
    attributes: &["every"],
    stage: |attributes| {
        Box::new(Corrupt {
            every: every(attributes),
            clean: None,
        })
    },
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[],
};

struct Corrupt {
    /// Mean distance of two changed bytes; 0 changes none.
    every: u64,
    /// Bytes before the next one that is changed.
    clean: Option<u64>,
}

fn every(attributes: &Attributes) -> u64 {
    u64::try_from(attributes.get("every")).unwrap_or(0)
}

impl Corrupt {
    /// A distance whose mean is `every`.
    fn distance(&self, draws: &mut Draws) -> u64 {
        let most = i64::try_from(self.every.saturating_mul(2)).unwrap_or(i64::MAX);
        draws.between(0, most.saturating_sub(1)).unsigned_abs()
    }
}

impl Stage for Corrupt {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        let mut piece = match inbox.pop() {
            Some(Item::Data(piece)) if self.every > 0 => piece,
            other => return other.map_or(Step::Idle, Step::Pass),
        };
        let length = piece.data.len() as u64;
        let mut next = match self.clean {
            Some(clean) => clean,
            None => self.distance(scene.draws),
        };
        if next < length {
            scene.tally.changed(&piece);
            let mut bytes = BytesMut::from(&piece.data[..]);
            while let Some(byte) = usize::try_from(next).ok().and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1 << scene.draws.between(0, 8);
                next = next.saturating_add(1 + self.distance(scene.draws));
            }
            piece.data = bytes.freeze();
        }
        self.clean = Some(next - length);
        Step::Pass(Item::Data(piece))
    }

    fn update(&mut self, attributes: &Attributes, _: Nanos) {
        self.every = every(attributes);
        self.clean = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    /// Places that were changed in 10,000 bytes sent in pieces of `step`.
    fn changed(seed: u64, attributes: &str, step: usize) -> Vec<usize> {
        let mut bench = Bench::seeded(seed, "corrupt", attributes);
        for _ in 0..10_000 / step {
            bench.send(0, &"\0".repeat(step));
        }
        let bytes = bench.run_bytes(0);
        assert_eq!(bytes.len(), 10_000);
        let flipped = |(place, byte): (usize, &u8)| (*byte != 0).then_some((place, *byte));
        let changed: Vec<(usize, u8)> = bytes.iter().enumerate().filter_map(flipped).collect();
        assert!(changed.iter().all(|(_, byte)| byte.count_ones() == 1));
        changed.into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn same_places_are_changed_however_the_bytes_are_cut() {
        let whole = changed(3, r#"{"every":100}"#, 10_000);
        assert!((70..=130).contains(&whole.len()), "{}", whole.len());
        assert_eq!(changed(3, r#"{"every":100}"#, 10), whole);
        assert_ne!(changed(4, r#"{"every":100}"#, 10), whole);
    }

    #[test]
    fn bounds_are_none_and_every_byte() {
        assert!(changed(3, "{}", 10).is_empty());
        assert!(changed(3, r#"{"every":-5}"#, 10).is_empty());
        assert!(changed(3, r#"{"every":9223372036854775807}"#, 10).is_empty());
        assert_eq!(changed(3, r#"{"every":1}"#, 10).len(), 10_000);
    }
}
