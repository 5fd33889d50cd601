//! Text for terminals: colour, wrapping, and numbers as people say them.

use std::time::Duration;

use crate::plan::quantity::duration_text;

/// Whether and how text is coloured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    color: bool,
}

/// What a colour means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Doubt,
    Bad,
    Faint,
    Strong,
}

impl Style {
    pub(super) fn new(color: bool) -> Self {
        Self { color }
    }

    /// The text in this tone (SGR), or as it is.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "1;32",
            Tone::Doubt => "1;33",
            Tone::Bad => "1;31",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The text without control characters: what services say must not drive the terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Breaks text at blanks so that no line is wider than `width` characters, unless a word is.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let text = clean(text);
    if text.chars().count() <= width {
        return vec![text];
    }
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut columns = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let word_columns = word.chars().count();
        if columns > 0 && columns + 1 + word_columns > width {
            lines.push(std::mem::take(&mut line));
            columns = 0;
        }
        if columns > 0 {
            line.push(' ');
            columns += 1;
        }
        line.push_str(word);
        columns += word_columns;
    }
    lines.push(line);
    lines
}

/// The text cut to `width` characters.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

/// `0.9s`, `41s`, `2m 05s`.
pub(super) fn seconds(s: f64) -> String {
    if s < 10.0 {
        format!("{s:.1}s")
    } else if s < 120.0 {
        format!("{s:.0}s")
    } else {
        let whole = s.round() as u64;
        format!("{}m {:02}s", whole / 60, whole % 60)
    }
}

/// `70s`, `2m 05s`: planned durations, without a decimal.
pub(super) fn planned(duration: Duration) -> String {
    if duration < Duration::from_secs(10) {
        duration_text(duration)
    } else {
        seconds(duration.as_secs_f64())
    }
}

/// `38ms`, `1142ms`, `12.3s`, from µs.
pub(super) fn latency(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..10_000 => format!("{:.1}ms", us as f64 / 1e3),
        10_000..10_000_000 => format!("{}ms", us / 1000),
        _ => format!("{:.1}s", us as f64 / 1e6),
    }
}

/// `1 service`, `9 services`.
pub(super) fn count(n: usize, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{plural}")
}
