//! `latency`: every chunk is late by `latency` ± `jitter` ms, counted from when it *arrived*: chunks wait
//! side by side, so throughput is not capped. The end of the stream follows the last chunk undelayed.

use super::{Attributes, Inbox, Item, Kind, Opening, Scene, Stage, Step};
use crate::toxiproxy::clock::{MILLISECOND, Nanos};

pub(super) const KIND: Kind = Kind {
    name: "latency",
    attributes: &["latency", "jitter"],
    stage: |attributes| {
        Box::new(Latency {
            span: Span::new(attributes),
            release_at: None,
        })
    },
    // What arrives within the delay must fit, or the delay would cap the throughput.
    room: 32 * 1024 * 1024,
    opening: Opening::Dial,
};

struct Latency {
    span: Span,
    /// When the chunk in front may go; drawn when it comes to the front.
    release_at: Option<Nanos>,
}

/// The range delays are drawn from, in ms, kept where sums cannot overflow.
struct Span {
    latency: i64,
    jitter: i64,
}

impl Span {
    const LONGEST_MS: i64 = 1_000_000_000_000;

    fn new(attributes: &Attributes) -> Self {
        let clamp = |name| {
            attributes
                .get(name)
                .clamp(-Self::LONGEST_MS, Self::LONGEST_MS)
        };
        Self {
            latency: clamp("latency"),
            jitter: clamp("jitter").max(0),
        }
    }

    /// `latency` plus a uniform draw from [-jitter, jitter) ms; negative means at once.
    fn draw(&self, scene: &mut Scene<'_>) -> Nanos {
        let millisecond = MILLISECOND.cast_signed();
        let mut delay = self.latency * millisecond;
        if self.jitter > 0 {
            let jitter = self.jitter * millisecond;
            delay += scene.draws.between(-jitter, jitter);
        }
        u64::try_from(delay).unwrap_or(0)
    }
}

impl Stage for Latency {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        let (item, at) = match inbox.front() {
            Some(item @ Item::Data(piece)) => (item, piece.at),
            _ => return inbox.pop().map_or(Step::Idle, Step::Pass),
        };
        let release_at = match self.release_at {
            Some(time) => time,
            None => {
                let time = at.saturating_add(self.span.draw(scene));
                if time > scene.now {
                    scene.tally.delayed(item);
                }
                *self.release_at.insert(time)
            }
        };
        if release_at > scene.now {
            return Step::Until(release_at);
        }
        self.release_at = None;
        match inbox.pop() {
            Some(Item::Data(mut piece)) => {
                // The time it was due, not the time it left: late timers do not add up over a chain.
                piece.at = release_at;
                Step::Pass(Item::Data(piece))
            }
            other => other.map_or(Step::Idle, Step::Pass),
        }
    }

    /// The chunk being waited on goes at once; those behind it get the new delay.
    fn update(&mut self, attributes: &Attributes, now: Nanos) {
        self.span = Span::new(attributes);
        self.release_at = self.release_at.map(|time| time.min(now));
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    #[test]
    fn delay_counts_from_arrival_and_not_from_the_chunk_before() {
        let mut bench = Bench::new("latency", r#"{"latency":100}"#);
        bench.send(0, "a");
        bench.send(50, "b");
        bench.finish();
        assert_eq!(bench.run(99), "");
        assert_eq!(bench.run(100), "a");
        assert_eq!(bench.run(149), "");
        assert_eq!(bench.run(150), "b|FIN");
        assert_eq!(bench.stats().delayed_bytes, 2);
    }

    #[test]
    fn chunks_that_arrived_together_leave_together() {
        let mut bench = Bench::new("latency", r#"{"latency":200}"#);
        (0..1000).for_each(|_| bench.send(0, "x"));
        assert_eq!(bench.run(199), "");
        assert_eq!(bench.run(200).len(), 1000);
    }

    #[test]
    fn update_releases_the_first_and_delays_the_rest_anew() {
        let mut bench = Bench::new("latency", r#"{"latency":1000}"#);
        bench.send(0, "a");
        bench.send(0, "b");
        assert_eq!(bench.run(10), "");
        bench.update(10, r#"{"latency":50}"#);
        assert_eq!(bench.run(10), "a");
        assert_eq!(bench.run(50), "b");
    }

    #[test]
    fn removal_flushes_in_order() {
        let mut bench = Bench::new("latency", r#"{"latency":1000}"#);
        ["a", "b", "c"]
            .into_iter()
            .for_each(|text| bench.send(0, text));
        assert_eq!(bench.run(1), "");
        assert_eq!(bench.remove(), "abc");
    }

    #[test]
    fn values_beyond_all_bounds_neither_panic_nor_go_backwards() {
        for jitter in [i64::MAX, i64::MIN, (1 << 62) + 1] {
            let mut bench = Bench::new(
                "latency",
                &format!(r#"{{"latency":{jitter},"jitter":{jitter}}}"#),
            );
            bench.send(0, "a");
            bench.run(1);
            assert_eq!(bench.delivered_or_waiting(), 1);
        }
        let mut bench = Bench::new("latency", r#"{"latency":-5}"#);
        bench.send(0, "a");
        assert_eq!(bench.run(0), "a");
    }

    #[test]
    fn same_seed_draws_the_same_jitter_and_another_seed_does_not() {
        let release_times = |seed: u64| {
            let mut bench = Bench::seeded(seed, "latency", r#"{"latency":500,"jitter":500}"#);
            (0..20)
                .map(|_| {
                    bench.send(0, "x");
                    bench.next_release()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(release_times(1), release_times(1));
        assert_ne!(release_times(1), release_times(2));
        assert!(release_times(1).iter().all(|time| *time < 1_000_000_000));
    }
}
