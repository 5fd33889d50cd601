//! `latency`: every chunk is late by `latency` ± `jitter` ms, counted from when it *arrived*: chunks wait
//! side by side, so throughput is not capped. The end of the stream follows the last chunk undelayed.
//!
//! `distribution` (extension) says what jitter means: `uniform` within ±`jitter`, as in Toxiproxy; `normal`
//! with that standard deviation; `pareto`, where `latency` is the least and the rest is a long tail: half of
//! all chunks are late by 0.26 × `jitter` more, one in a thousand by 9 × `jitter`.

use serde_json::Value;

use super::{Attributes, Extra, Inbox, Item, Kind, Role, Scene, Stage, Step};
use crate::toxiproxy::clock::{MILLISECOND, Nanos};
use crate::toxiproxy::engine::Draws;

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
    role: Role::Bytes,
    extras: &[Extra {
        name: "distribution",
        wants: "uniform, normal or pareto",
        fits: |value| Distribution::parse(value).is_some(),
    }],
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
    distribution: Distribution,
}

#[derive(Clone, Copy)]
enum Distribution {
    Uniform,
    Normal,
    Pareto,
}

impl Distribution {
    /// Tail index: the mean and the variance are finite.
    const PARETO_SHAPE: f64 = 3.0;

    fn parse(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "uniform" => Some(Self::Uniform),
            "normal" => Some(Self::Normal),
            "pareto" => Some(Self::Pareto),
            _ => None,
        }
    }

    /// How much to add, in ns.
    fn draw(self, jitter: i64, draws: &mut Draws) -> i64 {
        // Above 0, so that neither the logarithm nor the power is infinite.
        let unit = |draws: &mut Draws| 1.0 - draws.unit();
        let factor = match self {
            Self::Uniform => return draws.between(-jitter, jitter),
            Self::Normal => {
                let radius = (-2.0 * unit(draws).ln()).sqrt();
                radius * (std::f64::consts::TAU * unit(draws)).cos()
            }
            Self::Pareto => unit(draws).powf(-1.0 / Self::PARETO_SHAPE) - 1.0,
        };
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
        let drawn = (jitter as f64 * factor) as i64;
        drawn
    }
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
            distribution: Distribution::parse(attributes.extra("distribution"))
                .unwrap_or(Distribution::Uniform),
        }
    }

    /// `latency` plus a draw; negative means at once.
    fn draw(&self, scene: &mut Scene<'_>) -> Nanos {
        let millisecond = MILLISECOND.cast_signed();
        let mut delay = self.latency * millisecond;
        if self.jitter > 0 {
            let jitter = self.jitter * millisecond;
            let drawn = self.distribution.draw(jitter, scene.draws);
            delay = delay.saturating_add(drawn);
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

    /// Delays in ms, sorted.
    fn delays(distribution: &str) -> Vec<u64> {
        let attributes =
            format!(r#"{{"latency":1000,"jitter":100,"distribution":"{distribution}"}}"#);
        let mut bench = Bench::new("latency", &attributes);
        let mut delays: Vec<u64> = (0..2000)
            .map(|_| {
                bench.send(0, "x");
                bench.next_release() / 1_000_000
            })
            .collect();
        delays.sort_unstable();
        delays
    }

    #[test]
    fn distributions_have_their_shapes() {
        let uniform = delays("uniform");
        assert!(uniform[0] >= 900 && uniform[1999] < 1100);
        let normal = delays("normal");
        assert!((990..1010).contains(&normal[1000]), "{}", normal[1000]);
        assert!((880..920).contains(&normal[317]), "{}", normal[317]);
        assert!(normal[1999] > 1200, "{}", normal[1999]);
        let pareto = delays("pareto");
        assert!(pareto[0] >= 1000);
        assert!((1020..1032).contains(&pareto[1000]), "{}", pareto[1000]);
        assert!(pareto[1990] > 1350, "{}", pareto[1990]);
    }
}
