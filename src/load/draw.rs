//! Every random value of the load, as a function of the seed and the ticket.
//!
//! Nothing here keeps state: a draw names its stream and its ticket, so N workers draw exactly
//! what one would, in any order. One seed splits into independent ChaCha streams.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a draw is for. The numbers are part of a run's reproducibility: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Gaps of Poisson arrivals.
    Arrivals = 1,
    /// Which journey a ticket takes.
    Journeys = 2,
    /// Rows of feeds.
    Feeds = 3,
    /// Keys.
    Keys = 4,
    /// Trace ids.
    Traces = 5,
    /// Keys of setup requests, so that they never meet those of journeys.
    SetupKeys = 6,
}

/// A generator for one stream of one ticket (or for a whole stream, with ticket 0).
pub(crate) fn generator(seed: u64, stream: Stream, ticket: u64) -> ChaCha8Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&(stream as u64).to_le_bytes());
    let mut generator = ChaCha8Rng::from_seed(bytes);
    generator.set_stream(ticket);
    generator
}

/// A uniform draw from [0, 1).
pub(crate) fn unit(generator: &mut ChaCha8Rng) -> f64 {
    (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A draw from the exponential distribution of mean 1.
pub(crate) fn exponential(generator: &mut ChaCha8Rng) -> f64 {
    // 1 - u lies in (0, 1], where the logarithm is finite.
    -(1.0 - unit(generator)).ln()
}

/// `$(key)` of a ticket: 128 bits in the shape of a UUID, which is what most systems accept.
pub fn key(seed: u64, ticket: u64) -> String {
    uuid(seed, Stream::Keys, ticket)
}

/// `$(key)` of a setup request, counted over all of them.
pub fn setup_key(seed: u64, request: u64) -> String {
    uuid(seed, Stream::SetupKeys, request)
}

fn uuid(seed: u64, stream: Stream, ticket: u64) -> String {
    let mut generator = generator(seed, stream, ticket);
    // Version 4, variant 1: what a parser that is strict about UUIDs wants to see.
    let high = (generator.next_u64() & !0xf000) | 0x4000;
    let low = (generator.next_u64() >> 2) | (1 << 63);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// The W3C trace id of a step of a ticket, 32 hex digits: one trace per operation.
pub fn trace(seed: u64, ticket: u64, step: usize) -> String {
    let mut generator = generator(seed, Stream::Traces, ticket);
    generator.set_word_pos(step as u128 * 4);
    // All zeros is the one id that W3C forbids.
    let id = (u128::from(generator.next_u64()) << 64) | u128::from(generator.next_u64() | 1);
    format!("{id:032x}")
}

/// The `traceparent` of a request: the operation's trace, and a span that numbers its requests.
pub fn traceparent(trace: &str, request: u32) -> String {
    format!("00-{trace}-{:016x}-01", u64::from(request) + 1)
}

/// Draws an index by weight; weights that are not above zero are never drawn.
pub(crate) fn weighted(
    generator: &mut ChaCha8Rng,
    weights: impl Iterator<Item = f64> + Clone,
) -> usize {
    let total: f64 = weights.clone().filter(|weight| *weight > 0.0).sum();
    let mut left = unit(generator) * total;
    let mut last = 0;
    for (index, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
        last = index;
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_are_functions_of_seed_and_ticket_and_do_not_meet() {
        assert_eq!(key(7, 3), key(7, 3));
        let keys: BTreeSet<_> = (0..1000).map(|ticket| key(7, ticket)).collect();
        assert_eq!(keys.len(), 1000);
        assert!(!keys.contains(&key(8, 0)));
        assert!(!keys.contains(&setup_key(7, 0)));
        let key = key(7, 0);
        assert_eq!((key.len(), &key[14..15]), (36, "4"));
        assert!("89ab".contains(&key[19..20]));
    }

    #[test]
    fn every_step_has_a_trace_of_its_own() {
        let traces: BTreeSet<_> = (0..100)
            .flat_map(|ticket| (0..8).map(move |step| trace(1, ticket, step)))
            .collect();
        assert_eq!(traces.len(), 800);
        assert!(traces.iter().all(|trace| trace.len() == 32));
        assert_eq!(traceparent(&"a".repeat(32), 0).len(), 55);
    }

    #[test]
    fn journeys_are_drawn_by_weight() {
        let weights = [3.0, 0.0, 1.0];
        let mut drawn = [0; 3];
        for ticket in 0..4000 {
            let mut generator = generator(1, Stream::Journeys, ticket);
            drawn[weighted(&mut generator, weights.iter().copied())] += 1;
        }
        assert_eq!(drawn[1], 0);
        // Four standard deviations around 3,000 of 4,000.
        assert!((2890..=3110).contains(&drawn[0]), "{drawn:?}");
    }
}
