//! `load.hlog`: the load's histograms as an HdrHistogram interval log.
//!
//! One line per second, series, outcome and measure, tagged `place-order/done/latency` (a journey
//! as a whole: `journey:order-flow/done/latency`), so that the usual HdrHistogram tools read it. A
//! function from slices to bytes and back; nothing here touches a disk.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::evidence::RunClock;
use crate::plan::load::OutcomeClass;

use super::histograms::{self, DecodeError, Durations};
use super::wire::{HistogramSlice, Measure, Series};

/// What a line of the log is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// Operation or journey.
    pub series: Series,
    /// Whose durations.
    pub outcome: OutcomeClass,
    /// Which durations.
    pub measure: Measure,
}

/// Why a log does not read back.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the histogram log: {why}")]
pub struct LogError {
    /// From 1.
    pub line: usize,
    /// Why, as a phrase.
    pub why: String,
}

/// Collects slices and writes the log.
#[derive(Debug, Default)]
pub struct Log {
    slices: BTreeMap<(u32, Tag), Durations>,
}

impl Log {
    /// Adds the histograms of a batch; those of the same second and tag are merged by adding.
    ///
    /// # Errors
    ///
    /// When a slice holds no histogram.
    pub fn add(&mut self, slices: &[HistogramSlice]) -> Result<(), DecodeError> {
        for slice in slices {
            let tag = Tag {
                series: slice.series.clone(),
                outcome: slice.outcome,
                measure: slice.measure,
            };
            let durations = histograms::decode(&slice.encoded)?;
            self.slices
                .entry((slice.second, tag))
                .and_modify(|sum| *sum += &durations)
                .or_insert(durations);
        }
        Ok(())
    }

    /// The log, in order of time. `t0_ns` is T0 on the run clock; times in the log are seconds
    /// from there.
    pub fn render(&self, clock: &RunClock, t0_ns: u64) -> Vec<u8> {
        let base_s = clock.wall_ms(t0_ns) as f64 / 1000.0;
        let mut text = format!(
            "#[Histogram log format version 1.3]\n#[BaseTime: {base_s:.3} (seconds since epoch)]\n\
             #[durations in microseconds, MaxValue in milliseconds]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
        );
        for ((second, tag), durations) in &self.slices {
            let max_ms = durations.max() as f64 / 1000.0;
            let encoded = histograms::encode(durations);
            let tag = tag_text(tag);
            // Writing into a String cannot fail.
            let _ = writeln!(text, "Tag={tag},{second}.000,1.000,{max_ms:.3},{encoded}");
        }
        text.into_bytes()
    }

    /// Reads a log that [`Log::render`] wrote.
    ///
    /// # Errors
    ///
    /// The first line that does not read.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let mut log = Self::default();
        let text = String::from_utf8_lossy(bytes);
        for (line, text) in (1..).zip(text.lines()) {
            if text.is_empty() || text.starts_with(['#', '"']) {
                continue;
            }
            let (key, durations) = parse_line(text).map_err(|why| LogError { line, why })?;
            log.slices.insert(key, durations);
        }
        Ok(log)
    }

    /// Every histogram, in order of second and tag.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Tag, &Durations)> {
        self.slices
            .iter()
            .map(|((second, tag), durations)| (*second, tag, durations))
    }

    /// The sum of the histograms of a tag over seconds `from..to`.
    pub fn sum(&self, tag: &Tag, seconds: std::ops::Range<u32>) -> Durations {
        let mut sum = histograms::empty();
        for (second, of, durations) in self.iter() {
            if of == tag && seconds.contains(&second) {
                sum += durations;
            }
        }
        sum
    }
}

fn parse_line(text: &str) -> Result<((u32, Tag), Durations), String> {
    let no_interval = || "no tagged interval".to_owned();
    let rest = text.strip_prefix("Tag=").ok_or_else(no_interval)?;
    let fields: Vec<&str> = rest.splitn(5, ',').collect();
    let [tag, start, _length, _max, encoded] = fields[..] else {
        return Err(no_interval());
    };
    let start: f64 = start.parse().map_err(|_| no_interval())?;
    let tag = parse_tag(tag).ok_or_else(|| format!("`{tag}` is no tag of a load"))?;
    let durations = histograms::decode(encoded).map_err(|error| error.to_string())?;
    Ok(((start as u32, tag), durations))
}

const OUTCOMES: [(OutcomeClass, &str); 5] = [
    (OutcomeClass::Done, "done"),
    (OutcomeClass::Accepted, "accepted"),
    (OutcomeClass::Refused, "refused"),
    (OutcomeClass::Unknown, "unknown"),
    (OutcomeClass::Unsettled, "unsettled"),
];

const MEASURES: [(Measure, &str); 3] = [
    (Measure::Latency, "latency"),
    (Measure::Service, "service"),
    (Measure::SendLag, "send-lag"),
];

const JOURNEY: &str = "journey:";

fn tag_text(tag: &Tag) -> String {
    let (prefix, name) = match &tag.series {
        Series::Operation(name) => ("", name),
        Series::Journey(name) => (JOURNEY, name),
    };
    // A name is an identifier, but a comma or a blank in it would end the tag.
    let name = name.replace(|c: char| c == ',' || c.is_whitespace(), "_");
    let outcome = OUTCOMES.iter().find(|(outcome, _)| *outcome == tag.outcome);
    let measure = MEASURES.iter().find(|(measure, _)| *measure == tag.measure);
    let (outcome, measure) = (outcome.map_or("", |o| o.1), measure.map_or("", |m| m.1));
    format!("{prefix}{name}/{outcome}/{measure}")
}

fn parse_tag(text: &str) -> Option<Tag> {
    let mut parts = text.rsplitn(3, '/');
    let measure = parts.next()?;
    let outcome = parts.next()?;
    let name = parts.next()?;
    Some(Tag {
        series: match name.strip_prefix(JOURNEY) {
            Some(journey) => Series::Journey(journey.to_owned()),
            None => Series::Operation(name.to_owned()),
        },
        outcome: OUTCOMES.iter().find(|(_, text)| *text == outcome)?.0,
        measure: MEASURES.iter().find(|(_, text)| *text == measure)?.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn slice(second: u32, series: Series, ms: u64) -> HistogramSlice {
        let mut durations = histograms::empty();
        histograms::record(&mut durations, ms * 1_000_000);
        HistogramSlice {
            second,
            series,
            outcome: OutcomeClass::Done,
            measure: Measure::Latency,
            encoded: histograms::encode(&durations),
        }
    }

    fn log() -> Log {
        let order = || Series::Operation("place-order".into());
        let mut log = Log::default();
        log.add(&[slice(1, order(), 20), slice(0, order(), 10)])
            .unwrap();
        log.add(&[
            slice(1, order(), 30),
            slice(1, Series::Journey("flow".into()), 99),
        ])
        .unwrap();
        log
    }

    #[test]
    fn a_log_reads_back_and_adds_up() {
        let clock = RunClock {
            origin_mono_ns: 5,
            origin_wall_ms: 1_000_000,
        };
        let bytes = log().render(&clock, 0);
        let back = Log::parse(&bytes).unwrap();
        let tag = Tag {
            series: Series::Operation("place-order".into()),
            outcome: OutcomeClass::Done,
            measure: Measure::Latency,
        };
        assert_eq!(back.sum(&tag, 0..1).len(), 1);
        assert_eq!(back.sum(&tag, 1..2).len(), 2);
        assert_eq!(back.sum(&tag, 0..9).len(), 3);
        assert_eq!(back.iter().count(), 3);
        assert_eq!(back.render(&clock, 0), bytes);
    }

    #[test]
    fn other_tools_can_read_it() {
        let clock = RunClock {
            origin_mono_ns: 5,
            origin_wall_ms: 1_000_000,
        };
        let bytes = log().render(&clock, 0);
        let entries: Vec<_> = IntervalLogIterator::new(&bytes)
            .collect::<Result<_, _>>()
            .unwrap();
        let intervals = entries.iter().filter_map(|entry| match entry {
            LogEntry::Interval(interval) => Some(interval),
            _ => None,
        });
        let tags: Vec<_> = intervals.map(|i| i.tag().unwrap().as_str()).collect();
        assert_eq!(tags.len(), 3);
        assert!(tags.contains(&"journey:flow/done/latency"), "{tags:?}");
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = Log::parse(b"#comment\nTag=x,1,1,1,!!\n").unwrap_err();
        assert_eq!(error.line, 2);
    }
}
