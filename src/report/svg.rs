//! Charts as SVG that follows the page: colours are classes, so that dark mode and print are the
//! style sheet's business, and the width is the reader's.
//!
//! A frame is a fixed column of y labels beside a canvas of any width. On the canvas, shapes live
//! in a nested `svg` of [`WIDTH`] units that is stretched to the width (strokes are not), and
//! texts are placed in percent, so that they are never stretched. No inline styles: the page's
//! policy forbids them.

use std::fmt::Write as _;

use super::measure::{Heat, Series};
use super::numbers;
use super::timeline::Timeline;

/// Units of a canvas from left to right.
const WIDTH: f64 = 1000.0;
/// Room for the labels of the x axis, px.
const X_LABELS: f64 = 20.0;
/// Room above the highest value, px.
const HEADROOM: f64 = 4.0;
/// Levels of the heat map's colour ramp.
const HEAT_LEVELS: f64 = 9.0;

/// Text made safe for HTML and SVG, attributes included.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}

/// A horizontal axis with what is drawn behind every chart on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Axis {
    /// Where, 0 to 1, and what is written there.
    ticks: Vec<(f64, String)>,
    /// Shaded stretches with their names.
    shades: Vec<(f64, f64, String)>,
    /// Dashed lines: where phases begin.
    edges: Vec<f64>,
}

impl Axis {
    /// The time axis: seconds since the start of the load, fault windows shaded.
    pub(super) fn of_time(timeline: &Timeline) -> Self {
        let span_s = timeline.span_s();
        let step = [
            1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
        ]
        .into_iter()
        .find(|step| span_s / step <= 12.0)
        .unwrap_or(7200.0);
        let label = |s: f64| match step {
            _ if step >= 3600.0 => format!("{:.0} h", s / 3600.0),
            _ if step >= 60.0 => format!("{:.0} min", s / 60.0),
            _ => format!("{s:.0} s"),
        };
        let count = (span_s / step).floor() as usize;
        let ticks = (0..=count)
            .map(|n| n as f64 * step)
            .map(|s| (s / span_s, label(s)));
        let shades = timeline.faults.iter().map(|fault| {
            let (from, to) = (fault.span.from_ns, fault.span.to_ns);
            (
                timeline.share(from),
                timeline.share(to),
                fault.fault.to_string(),
            )
        });
        Self {
            ticks: ticks.collect(),
            shades: shades.collect(),
            edges: timeline
                .phases
                .iter()
                .skip(1)
                .map(|p| timeline.share(p.from_ns))
                .collect(),
        }
    }

    /// The axis of a percentile spectrum: log of 1/(1 − p), so that each nine is as wide.
    pub(super) fn of_percentiles() -> Self {
        let ticks = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999];
        let label = |p: f64| format!("p{}", numbers::digits(p * 100.0).trim_end_matches('.'));
        let label = |p: f64| {
            if p == 0.9999 {
                "p99.99".into()
            } else {
                label(p)
            }
        };
        Self {
            ticks: ticks
                .into_iter()
                .map(|p| (percentile_share(p), label(p)))
                .collect(),
            ..Self::default()
        }
    }
}

/// Where a percentile lies on its axis, 0 to 1; p99.99 and beyond at the right edge.
pub(super) fn percentile_share(p: f64) -> f64 {
    if p >= 0.9999 {
        1.0
    } else {
        (1.0 / (1.0 - p)).log10() / 4.0
    }
}

/// A vertical axis.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// From this to that, by factors.
    Log(f64, f64),
}

impl Scale {
    /// From 0 to a round number at or above the largest value.
    pub(super) fn linear(max: f64) -> Self {
        let max = if max > 0.0 { max } else { 1.0 };
        let step = nice_step(max / 4.0);
        Self::Linear((max / step).ceil() * step)
    }

    /// Whole factors of ten and halves of them around these values.
    pub(super) fn log(min: f64, max: f64) -> Self {
        let edge = |value: f64, up: bool| {
            let decade = 10f64.powf(value.log10().floor());
            let edges = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade);
            let above = edges.into_iter().find(|edge| *edge >= value);
            let below = edges.into_iter().rev().find(|edge| *edge <= value);
            if up {
                above.unwrap_or(10.0 * decade)
            } else {
                below.unwrap_or(decade)
            }
        };
        let (min, max) = (min.max(1e-3), max.max(2e-3));
        let (min, max) = (edge(min, false), edge(max, true));
        Self::Log(min, if max > min { max } else { min * 10.0 })
    }

    /// 0 at the bottom, 1 at the top; values beyond lie at the edge.
    fn share(self, value: f64) -> f64 {
        match self {
            Self::Linear(max) => (value / max).clamp(0.0, 1.0),
            Self::Log(min, max) => ((value / min).ln() / (max / min).ln()).clamp(0.0, 1.0),
        }
    }

    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(max) => {
                let step = nice_step(max / 4.0);
                (0..)
                    .map(|n| f64::from(n) * step)
                    .take_while(|v| *v <= max * 1.001)
                    .collect()
            }
            Self::Log(min, max) => {
                let factors: &[f64] = if max / min > 200.0 {
                    &[1.0]
                } else {
                    &[1.0, 2.0, 5.0]
                };
                let first = min.log10().floor() as i32;
                (first..first + 12)
                    .flat_map(|e| factors.iter().map(move |factor| factor * 10f64.powi(e)))
                    .filter(|v| *v >= min * 0.999 && *v <= max * 1.001)
                    .collect()
            }
        }
    }
}

fn nice_step(raw: f64) -> f64 {
    let decade = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .find(|f| f * decade >= raw * 0.999);
    factor.unwrap_or(10.0) * decade
}

/// How values are written on the y axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A plain number (a rate, a count).
    Number,
    /// Milliseconds.
    Ms,
}

impl Unit {
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Self::Number => numbers::digits(value),
            Self::Ms => numbers::duration((value * 1e6).round() as u64),
        }
    }
}

/// A chart under construction.
#[derive(Debug)]
pub(super) struct Plot<'a> {
    axis: &'a Axis,
    height: f64,
    scale: Scale,
    unit: Unit,
    shapes: String,
}

impl<'a> Plot<'a> {
    /// An empty plot, `height` px high.
    pub(super) fn new(axis: &'a Axis, height: f64, scale: Scale, unit: Unit) -> Self {
        Self {
            axis,
            height,
            scale,
            unit,
            shapes: String::new(),
        }
    }

    fn y(&self, value: f64) -> f64 {
        let share = self.scale.share(value);
        HEADROOM + (1.0 - share) * (self.height - HEADROOM)
    }

    /// A line through points (0 to 1, value); it breaks where there is no value.
    pub(super) fn line(&mut self, class: &str, points: impl Iterator<Item = (f64, Option<f64>)>) {
        let mut path = String::new();
        let mut pen_is_down = false;
        for (x, value) in points {
            let Some(value) = value else {
                pen_is_down = false;
                continue;
            };
            let (x, y) = (x * WIDTH, self.y(value));
            if pen_is_down {
                let _ = write!(path, "L{x:.1} {y:.1}");
            } else {
                // A point of its own is a line of no length, which round caps make a dot.
                let _ = write!(path, "M{x:.1} {y:.1}h.01");
            }
            pen_is_down = true;
        }
        let _ = write!(self.shapes, r#"<path class="line {class}" d="{path}"/>"#);
    }

    /// A line of one value per bin of the time axis, drawn through the middles of the bins.
    pub(super) fn bins_line(&mut self, class: &str, timeline: &Timeline, series: &Series) {
        let points = series.iter().enumerate();
        self.line(
            class,
            points.map(|(bin, v)| (timeline.bin_share(bin as f64 + 0.5), *v)),
        );
    }

    /// A line in steps, one per bin.
    pub(super) fn steps(&mut self, class: &str, timeline: &Timeline, series: &[f64]) {
        let mut path = String::new();
        for (bin, value) in series.iter().enumerate() {
            let (x, y) = (timeline.bin_share(bin as f64 + 1.0) * WIDTH, self.y(*value));
            let start = if bin == 0 {
                format!("M0 {y:.1}")
            } else {
                format!("V{y:.1}")
            };
            let _ = write!(path, "{start}H{x:.1}");
        }
        let _ = write!(self.shapes, r#"<path class="line {class}" d="{path}"/>"#);
    }

    /// An area between two series, in steps.
    pub(super) fn area(&mut self, class: &str, timeline: &Timeline, low: &[f64], high: &[f64]) {
        if low == high {
            return;
        }
        let x = |bin: usize| timeline.bin_share(bin as f64) * WIDTH;
        let mut path = format!("M0 {:.1}", self.y(low.first().copied().unwrap_or(0.0)));
        for (bin, value) in high.iter().enumerate() {
            let _ = write!(path, "V{:.1}H{:.1}", self.y(*value), x(bin + 1));
        }
        for (bin, value) in low.iter().enumerate().rev() {
            let _ = write!(path, "V{:.1}H{:.1}", self.y(*value), x(bin));
        }
        let _ = write!(self.shapes, r#"<path class="area {class}" d="{path}Z"/>"#);
    }

    /// The cells of a heat map, one path per level of colour; the log of a count is its level.
    pub(super) fn heat(&mut self, timeline: &Timeline, heat: &Heat) {
        let mut levels = vec![String::new(); HEAT_LEVELS as usize];
        let row_height = (self.height - HEADROOM) / heat.rows.max(1) as f64;
        let edge =
            |column: usize| timeline.bin_share((column * heat.bins_per_column) as f64) * WIDTH;
        for row in 0..heat.rows {
            let y = self.height - (row + 1) as f64 * row_height;
            let level = |column: usize| heat_level(heat.columns[column][row], heat.count_max);
            let mut column = 0;
            while column < heat.columns.len() {
                let from = column;
                while column < heat.columns.len() && level(column) == level(from) {
                    column += 1;
                }
                if let Some(level) = level(from) {
                    let (x, width) = (edge(from), edge(column) - edge(from));
                    let _ = write!(
                        levels[level],
                        "M{x:.1} {y:.1}h{width:.1}v{row_height:.2}h-{width:.1}z"
                    );
                }
            }
        }
        for (level, path) in levels
            .iter()
            .enumerate()
            .filter(|(_, path)| !path.is_empty())
        {
            let _ = write!(self.shapes, r#"<path class="heat h{level}" d="{path}"/>"#);
        }
    }

    /// The finished chart; `label` says in words what it shows.
    pub(super) fn render(&self, label: &str) -> String {
        let mut texts = String::new();
        let mut grid = String::new();
        for value in self.scale.ticks() {
            let y = self.y(value);
            let _ = write!(grid, r#"<path class="grid" d="M0 {y:.1}H{WIDTH}"/>"#);
            let text = escape(&self.unit.text(value));
            let _ = write!(texts, r#"<text x="46" y="{:.1}">{text}</text>"#, y + 3.5);
        }
        frame(
            self.axis,
            self.height,
            &texts,
            &(grid + &self.shapes),
            "",
            label,
        )
    }
}

fn heat_level(count: u64, count_max: u64) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let share = ((count as f64).ln() + 1.0) / ((count_max as f64).ln() + 1.0);
    Some(((share * HEAT_LEVELS).ceil() - 1.0).clamp(0.0, HEAT_LEVELS - 1.0) as usize)
}

/// y labels, canvas, shades and x labels around shapes (stretched) and texts (not stretched).
pub(super) fn frame(
    axis: &Axis,
    height: f64,
    y_texts: &str,
    shapes: &str,
    texts: &str,
    label: &str,
) -> String {
    let full = height + X_LABELS;
    let mut back = String::new();
    for (from, to, name) in &axis.shades {
        let (x, width) = (from * WIDTH, ((to - from) * WIDTH).max(0.8));
        let _ = write!(
            back,
            r#"<rect class="shade" x="{x:.1}" y="0" width="{width:.1}" height="{height}"><title>{}</title></rect>"#,
            escape(name)
        );
    }
    for at in &axis.edges {
        let x = at * WIDTH;
        let _ = write!(back, r#"<path class="edge" d="M{x:.1} 0V{height}"/>"#);
    }
    let mut labels = String::new();
    for (n, (at, text)) in axis.ticks.iter().enumerate() {
        let class = if n % 2 == 1 { "x odd" } else { "x" };
        let anchor = match at {
            _ if *at > 0.97 => " end",
            _ if *at < 0.01 => " start",
            _ => "",
        };
        let _ = write!(
            labels,
            r#"<text class="{class}{anchor}" x="{:.2}%" y="{:.1}">{}</text>"#,
            at * 100.0,
            height + 15.0,
            escape(text)
        );
    }
    format!(
        r#"<div class="frame"><svg class="yaxis" width="50" height="{full}" aria-hidden="true">{y_texts}</svg><div class="plot"><svg class="canvas" width="100%" height="{full}" role="img" aria-label="{label}"><svg width="100%" height="{height}" viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="none">{back}{shapes}</svg>{texts}{labels}</svg></div></div>"#,
        label = escape(label)
    )
}

/// A lane of the time strip: what it is called and what lies on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    pub(super) name: String,
    /// From, to (0 to 1), class, what a pointer that rests on it is told, text inside.
    pub(super) bars: Vec<(f64, f64, String, String, String)>,
    /// Where (0 to 1), class, what a pointer that rests on it is told.
    pub(super) ticks: Vec<(f64, String, String)>,
}

/// The lanes one under the other, on an axis.
pub(super) fn lanes(axis: &Axis, lanes: &[Lane], label: &str) -> String {
    const LANE: f64 = 34.0;
    const NAME: f64 = 13.0;
    const BAR: f64 = 14.0;
    let (mut shapes, mut texts) = (String::new(), String::new());
    for (n, lane) in lanes.iter().enumerate() {
        let top = n as f64 * LANE + NAME + 2.0;
        let _ = write!(
            texts,
            r#"<text class="lane" x="-46" y="{:.1}">{}</text>"#,
            top - 3.0,
            escape(&lane.name)
        );
        for (from, to, class, title, inside) in &lane.bars {
            let (x, width) = (from * WIDTH, ((to - from) * WIDTH).max(1.5));
            let (y, high) = match class.as_str() {
                "closed" => (top + BAR - 3.0, 3.0),
                "half-open" => (top + BAR / 2.0, BAR / 2.0),
                _ => (top, BAR),
            };
            let _ = write!(
                shapes,
                r#"<rect class="bar {class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{high}"><title>{}</title></rect>"#,
                escape(title)
            );
            if !inside.is_empty() {
                let _ = write!(
                    texts,
                    r#"<text class="inside {class}" x="{:.2}%" dx="5" y="{:.1}">{}</text>"#,
                    from * 100.0,
                    top + 11.0,
                    escape(inside)
                );
            }
        }
        for (at, class, title) in &lane.ticks {
            let x = at * 100.0;
            let _ = write!(
                texts,
                r#"<rect class="tick {class}" x="{x:.2}%" y="{top}" width="3" height="{BAR}" rx="1"><title>{}</title></rect>"#,
                escape(title)
            );
        }
    }
    frame(axis, lanes.len() as f64 * LANE, "", &shapes, &texts, label)
}
