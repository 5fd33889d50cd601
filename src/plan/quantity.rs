//! Durations, rates, shares and sizes as people write them: `250ms`, `40/s`, `95%`, `64KiB`.
//!
//! The same spelling is read from the user's files and written into `plan.json`, so that a stored
//! plan reads like the file it came from. Nothing here knows about YAML or spans.

use std::time::Duration;

/// Why a text is no quantity: a phrase that fits after "`10` is not a duration: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QuantityError(pub String);

fn split_number(text: &str) -> Result<(f64, &str), QuantityError> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let number: f64 = text[..end]
        .parse()
        .map_err(|_| QuantityError("it does not start with a number".into()))?;
    Ok((number, text[end..].trim()))
}

/// Reads `250ms`, `10s`, `2m`, `1h`, `50us`, `7ns`. At most 24 hours.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let (number, unit) = split_number(text.trim())?;
    let nanos_per_unit = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        "" => {
            return Err(QuantityError(format!(
                "it has no unit; write `{number}s` or `{number}ms`"
            )));
        }
        _ => {
            return Err(QuantityError(format!(
                "`{unit}` is no unit of time; use ms, s, m or h"
            )));
        }
    };
    let nanos = number * nanos_per_unit;
    if nanos > 24.0 * 3600e9 {
        return Err(QuantityError("it is longer than 24 hours".into()));
    }
    Ok(Duration::from_nanos(nanos.round() as u64))
}

/// Writes a duration in the largest unit that divides it: `2s`, `2500ms`, `0s`. Reads back exactly.
pub fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, per_unit) in [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)] {
        if nanos.is_multiple_of(per_unit) {
            return format!("{}{unit}", nanos / per_unit);
        }
    }
    format!("{nanos}ns")
}

/// Reads `40/s`, `100/m`; events per second.
pub fn parse_rate(text: &str) -> Result<f64, QuantityError> {
    let (number, unit) = split_number(text.trim())?;
    match unit {
        "/s" => Ok(number),
        "/m" | "/min" => Ok(number / 60.0),
        "/h" => Ok(number / 3600.0),
        "" => Err(QuantityError(format!("it has no unit; write `{number}/s`"))),
        _ => Err(QuantityError(format!(
            "`{unit}` is no unit of a rate; use /s, /m or /h"
        ))),
    }
}

/// Reads `95%`, `1.5%`; 1.0 is the whole. More than 100 % is allowed (`150%` of a baseline).
pub fn parse_share(text: &str) -> Result<f64, QuantityError> {
    let (number, unit) = split_number(text.trim())?;
    match unit {
        "%" => Ok(number / 100.0),
        "" => Err(QuantityError(format!(
            "it has no unit; write `{}%`",
            number * 100.0
        ))),
        _ => Err(QuantityError(format!(
            "`{unit}` is no share; write a percentage such as `95%`"
        ))),
    }
}

/// Writes a share the way it is read: `0.95` as `95%`, with up to three decimals.
pub fn share_text(share: f64) -> String {
    let text = format!("{:.3}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Reads `512B`, `64KiB`, `4KB`, `1MiB`; bytes.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let (number, unit) = split_number(text.trim())?;
    let bytes_per_unit = match unit {
        "B" => 1.0,
        "KB" => 1e3,
        "KiB" => 1024.0,
        "MB" => 1e6,
        "MiB" => 1024.0 * 1024.0,
        "GB" => 1e9,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "" => {
            return Err(QuantityError(format!(
                "it has no unit; write `{number}B` or `{number}KiB`"
            )));
        }
        _ => {
            return Err(QuantityError(format!(
                "`{unit}` is no unit of size; use B, KB, KiB, MB or MiB"
            )));
        }
    };
    Ok((number * bytes_per_unit).round() as u64)
}

/// Reads `100KB/s`; bytes per second.
pub fn parse_byte_rate(text: &str) -> Result<u64, QuantityError> {
    match text.trim().strip_suffix("/s") {
        Some(size) => parse_size(size),
        None => Err(QuantityError(
            "it is no byte rate; write it like `100KB/s`".into(),
        )),
    }
}

/// Reads `100KB/s` as the rate of a proxy, which counts in whole thousands; bytes per second.
pub fn parse_bandwidth(text: &str) -> Result<u64, QuantityError> {
    let bytes = parse_byte_rate(text)?;
    let below = bytes / 1000;
    match (below, bytes % 1000) {
        (0, 0) => Err(QuantityError(
            "nothing would get through; write `inject: stall`".into(),
        )),
        (_, 0) => Ok(bytes),
        (0, _) => Err(QuantityError(
            "the least is 1 KB/s; write `1KB/s` or more".into(),
        )),
        _ => Err(QuantityError(format!(
            "it is no whole number of KB/s; write `{below}KB/s` or `{}KB/s`",
            below + 1
        ))),
    }
}

/// serde for a [`Duration`] written as text (`2500ms`).
pub mod duration_serde {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes `2500ms`.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration_text(*value))
    }

    /// Reads `2500ms`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// serde for an optional [`Duration`] written as text.
pub mod optional_duration_serde {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes `2500ms` or null.
    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_some(&duration_text(*value)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads `2500ms` or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            Some(text) => parse_duration(&text)
                .map(Some)
                .map_err(serde::de::Error::custom),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_written_duration_reads_back_exactly(nanos in 0u64..86_400_000_000) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
        }
    }

    #[test]
    fn a_bare_number_is_refused_with_the_unit_to_add() {
        assert!(parse_duration("10").unwrap_err().0.contains("`10s`"));
        assert!(parse_rate("40").unwrap_err().0.contains("`40/s`"));
        assert!(parse_share("0.5").unwrap_err().0.contains("`50%`"));
        assert!(parse_size("10").unwrap_err().0.contains("`10B`"));
    }

    #[test]
    fn a_bandwidth_is_a_whole_number_of_thousands() {
        assert_eq!(parse_bandwidth("1KB/s"), Ok(1000));
        assert_eq!(parse_bandwidth("1.5MB/s"), Ok(1_500_000));
        assert_eq!(parse_bandwidth("125KiB/s"), Ok(128_000));
        let refused = |text: &str| parse_bandwidth(text).unwrap_err().0;
        assert!(refused("0B/s").contains("`inject: stall`"));
        assert!(refused("500B/s").contains("`1KB/s` or more"));
        assert!(refused("1500B/s").contains("`1KB/s` or `2KB/s`"));
        assert!(refused("64KiB/s").contains("`65KB/s` or `66KB/s`"));
        assert!(refused("100KB").contains("`100KB/s`"));
    }

    #[test]
    fn units_mean_what_they_say() {
        assert_eq!(parse_size("4KiB"), Ok(4096));
        assert_eq!(parse_byte_rate("100KB/s"), Ok(100_000));
        assert_eq!(parse_rate("120/m"), Ok(2.0));
        assert_eq!(parse_share("95%"), Ok(0.95));
        assert_eq!(share_text(0.95), "95%");
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
    }
}
