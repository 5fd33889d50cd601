//! Randomness that can be had again: drawn from (seed, proxy, connection number, toxic name), so that
//! neither timing nor unrelated toxics change what a toxic draws on a connection.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::toxiproxy::wire::fnv1a;

/// The draws of one toxic on one connection.
pub(crate) struct Draws {
    /// Compared with the toxicity; drawn once, so a changed toxicity re-draws nothing.
    share: f32,
    rng: ChaCha8Rng,
}

impl Draws {
    /// Starts the sequence.
    pub(crate) fn new(seed: u64, proxy: &str, connection: u64, toxic: &str) -> Self {
        let name = format!("{seed}\0{proxy}\0{connection}\0{toxic}");
        let mut rng = ChaCha8Rng::seed_from_u64(fnv1a(name.as_bytes()));
        Self {
            share: rng.random(),
            rng,
        }
    }

    /// Whether a toxic of this toxicity acts on this connection.
    pub(crate) fn hits(&self, toxicity: f32) -> bool {
        self.share < toxicity
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        self.rng.random()
    }

    /// Uniform in [low, high); `low` when that is empty.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        if low < high {
            self.rng.random_range(low..high)
        } else {
            low
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(seed: u64, proxy: &str, toxic: &str) -> Vec<bool> {
        (1..=1000)
            .map(|connection| Draws::new(seed, proxy, connection, toxic).hits(0.3))
            .collect()
    }

    #[test]
    fn every_part_of_the_identity_counts_and_nothing_else() {
        assert_eq!(hits(1, "a", "t"), hits(1, "a", "t"));
        assert_ne!(hits(1, "a", "t"), hits(2, "a", "t"));
        assert_ne!(hits(1, "a", "t"), hits(1, "b", "t"));
        assert_ne!(hits(1, "a", "t"), hits(1, "a", "u"));
    }

    #[test]
    fn toxicity_is_the_share_of_connections() {
        let share = hits(7, "a", "t").into_iter().filter(|hit| *hit).count();
        assert!((250..350).contains(&share), "{share}");
        assert!((1..100).all(|connection| Draws::new(1, "a", connection, "t").hits(1.0)));
        assert!(!(1..100).any(|connection| Draws::new(1, "a", connection, "t").hits(0.0)));
    }
}
