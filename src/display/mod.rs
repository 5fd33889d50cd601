//! Live output: what people see while a run is under way, made from the same events as the report.
//!
//! A [`Display`] is told events and writes text; it reads no clock and decides nothing, so that a
//! stored `events.jsonl` prints the same lines again. On a terminal a block of a few lines is drawn
//! over and over below them; elsewhere there is one line per event and one per ten seconds.
//!
//! Read next: [`state`] (what is remembered), [`lines`] (what is said of an event), [`block`] (the
//! live part), [`verdicts`] (the last lines).

mod block;
mod lines;
mod state;
mod text;
mod verdicts;

use std::io::{self, Write};

use crate::evidence::{Event, Record, Stamped};
use crate::plan::Plan;
use crate::terminal::Environment;
use crate::verdict::Verdicts;

use state::State;
use text::Style;
pub use verdicts::Ending;

/// Least time between two drawings of the live block, ns: 4 Hz.
const REDRAW_NS: u64 = 250_000_000;
/// A line about the load is written after this many seconds of it.
const SECONDS_PER_LINE: u32 = 10;

/// How to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether text carries colour.
    pub color: bool,
    /// Columns to wrap at.
    pub width: usize,
    /// Whether there is a block that redraws itself.
    pub live: bool,
    /// Whether anything is said before the verdicts.
    pub progress: bool,
    /// Whether service output, notes and every link are told too.
    pub verbose: bool,
    /// The run folder as people should see it: `reports/2026-11-21-0423-7f3a`.
    pub run_folder: String,
}

impl Options {
    /// What suits this terminal: a live block where one can be drawn, plain lines elsewhere.
    pub fn of(environment: &Environment, run_folder: impl Into<String>) -> Self {
        Self {
            color: environment.color(),
            width: usize::from(environment.columns()),
            live: environment.can_redraw(),
            progress: true,
            verbose: false,
            run_folder: run_folder.into(),
        }
    }
}

/// Live output of one run. Every method fails only as its writer does.
#[derive(Debug)]
pub struct Display<W: Write> {
    state: State,
    options: Options,
    style: Style,
    out: W,
    drawn_lines: usize,
    drawn_at_ns: Option<u64>,
}

impl<W: Write> Display<W> {
    /// A display of a run of this plan.
    pub fn new(plan: &Plan, options: Options, out: W) -> Self {
        Self {
            state: State::new(plan),
            style: Style::new(options.color),
            options,
            out,
            drawn_lines: 0,
            drawn_at_ns: None,
        }
    }

    /// Tells an event. Events come in the order of the stream.
    ///
    /// # Errors
    ///
    /// What the writer says.
    pub fn on_event(&mut self, stamped: &Stamped) -> io::Result<()> {
        let mut said = Vec::new();
        let flush_load = match &stamped.event {
            Event::PhaseStarted { .. } | Event::LoadFinished(_) | Event::Stopping { .. } => true,
            Event::LoadSecond(_) => false,
            _ => self.state.load.seconds >= SECONDS_PER_LINE,
        };
        // The last seconds of a phase belong under its own heading.
        if flush_load && let Some(line) = lines::load(&mut self.state) {
            said.push(line);
        }
        said.extend(lines::of(&self.state, &self.options, stamped));
        self.state.learn(stamped);
        if self.state.load.seconds >= SECONDS_PER_LINE
            && let Some(line) = lines::load(&mut self.state)
        {
            said.push(line);
        }
        if self.options.progress {
            self.show(&said, stamped.at_ns)?;
        }
        Ok(())
    }

    /// Tells a record as it is collected; only claimed breaker states show in live output.
    ///
    /// # Errors
    ///
    /// What the writer says.
    pub fn on_record(&mut self, record: &Record) -> io::Result<()> {
        if let Record::Transition(transition) = record {
            self.state.breaker(transition);
        }
        Ok(())
    }

    /// Writes the verdicts, failures last, and the line that says it all.
    ///
    /// # Errors
    ///
    /// What the writer says.
    pub fn finish(&mut self, verdicts: &Verdicts, ending: &Ending) -> io::Result<()> {
        self.erase()?;
        let columns = self.options.width;
        for line in verdicts::lines(verdicts, ending, self.style, columns) {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    /// Where the run is, as SIGUSR1 asks for it.
    ///
    /// # Errors
    ///
    /// What the writer says.
    pub fn print_state(&mut self, at_ns: u64) -> io::Result<()> {
        self.erase()?;
        for line in block::lines(&self.state, self.style, self.options.width, at_ns) {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    fn show(&mut self, said: &[lines::Line], at_ns: u64) -> io::Result<()> {
        let due = self
            .drawn_at_ns
            .is_none_or(|drawn| at_ns.saturating_sub(drawn) >= REDRAW_NS);
        if said.is_empty() && !(self.options.live && due) {
            return Ok(());
        }
        self.erase()?;
        for line in said {
            for text in line.render(self.style, self.options.width) {
                writeln!(self.out, "{text}")?;
            }
        }
        if self.options.live {
            let block = block::lines(&self.state, self.style, self.options.width, at_ns);
            for line in &block {
                writeln!(self.out, "{line}")?;
            }
            self.drawn_lines = block.len();
            self.drawn_at_ns = Some(at_ns);
        }
        self.out.flush()
    }

    /// Takes the live block away, so that what is written next stands in its place.
    fn erase(&mut self) -> io::Result<()> {
        if self.drawn_lines > 0 {
            // CPL (previous line, n times), then ED (erase to the end of the display): ECMA-48.
            write!(self.out, "\x1b[{}F\x1b[J", self.drawn_lines)?;
            self.drawn_lines = 0;
        }
        Ok(())
    }
}
