//! Histograms of durations: µs from 1 µs to 120 s, three significant digits.
//!
//! `Histogram::new(3)` grows on `record` but not on `saturating_record`, where 5 s silently became
//! 2 ms; so the bounds are fixed here and nowhere else is a histogram made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

/// The largest duration told apart, µs; longer ones count as this.
pub const MAX_US: u64 = 120_000_000;

/// Durations in µs.
pub type Durations = Histogram<u64>;

/// An empty histogram.
pub fn empty() -> Durations {
    Histogram::new_with_bounds(1, MAX_US, 3).expect("constant bounds are valid")
}

/// Adds a duration of `ns` nanoseconds.
pub fn record(durations: &mut Durations, ns: u64) {
    durations.saturating_record((ns / 1000).clamp(1, MAX_US));
}

/// V2 deflate, base64: what travels and what `load.hlog` holds.
pub fn encode(durations: &Durations) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(durations, &mut bytes)
        .expect("a histogram within constant bounds serialises into memory");
    STANDARD.encode(bytes)
}

/// Why a stored histogram does not read back.
#[derive(Debug, thiserror::Error)]
#[error("not a stored histogram: {0}")]
pub struct DecodeError(String);

/// Reads what [`encode`] wrote.
///
/// # Errors
///
/// When it is not such a histogram.
pub fn decode(encoded: &str) -> Result<Durations, DecodeError> {
    let bytes = STANDARD
        .decode(encoded)
        .map_err(|error| DecodeError(error.to_string()))?;
    let stored: Durations = Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| DecodeError(error.to_string()))?;
    let mut durations = empty();
    // Into our own bounds, so that any two of them add up.
    durations
        .add(&stored)
        .map_err(|error| DecodeError(error.to_string()))?;
    Ok(durations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_durations_stay_long() {
        let mut durations = empty();
        record(&mut durations, 5_000_000_000);
        record(&mut durations, 500_000_000_000);
        record(&mut durations, 0);
        assert!(durations.value_at_quantile(0.5) >= 4_990_000);
        assert!(durations.max() >= MAX_US);
        assert_eq!(durations.min(), 1);
    }

    #[test]
    fn a_histogram_travels_unharmed() {
        let mut durations = empty();
        for ns in [1_000, 2_000_000, 3_000_000_000] {
            record(&mut durations, ns);
        }
        assert_eq!(decode(&encode(&durations)).unwrap(), durations);
        assert!(decode("no histogram").is_err());
    }
}
