//! The log of a standalone server: JSON lines on standard output, as Toxiproxy writes them.
//!
//! Lines go through a bounded queue to a thread of their own, so a reader that has stopped to read never
//! stops the server: what does not fit is dropped.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Lines that may wait to be written.
const QUEUE: usize = 4096;

/// Writes what this crate logs to standard output, down to the level that `LOG_LEVEL` names.
pub fn to_standard_output(level: Option<&OsStr>) {
    let name = level.map(|level| level.to_string_lossy().into_owned());
    let level = name.as_deref().map_or(Some(LevelFilter::INFO), parse);
    let (sender, receiver) = sync_channel(QUEUE);
    std::thread::spawn(move || write_all(&receiver, io::stdout()));
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Line)
        .with_writer(move || Queue(sender.clone()));
    let wanted = level.unwrap_or(LevelFilter::INFO);
    let own = Targets::new().with_target(env!("CARGO_CRATE_NAME"), wanted);
    // Fails when there is a log already: that one is as good.
    let _ = tracing_subscriber::registry()
        .with(layer)
        .with(own)
        .try_init();
    if let (None, Some(name)) = (level, name) {
        tracing::error!("unknown LOG_LEVEL value: \"{name}\"");
    }
}

/// The names that Toxiproxy knows. Nothing is logged at its two highest, which there end the process.
fn parse(name: &str) -> Option<LevelFilter> {
    Some(match name.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" | "" => LevelFilter::INFO,
        "warn" => LevelFilter::WARN,
        "error" => LevelFilter::ERROR,
        "fatal" | "panic" | "disabled" => LevelFilter::OFF,
        _ => return None,
    })
}

fn write_all(lines: &Receiver<Vec<u8>>, mut output: impl Write) {
    for line in lines {
        if output
            .write_all(&line)
            .and_then(|()| output.flush())
            .is_err()
        {
            // Nobody reads any more: the queue fills up, and its lines are dropped.
            return;
        }
    }
}

/// The sending end of the queue, as the writer of one line.
struct Queue(SyncSender<Vec<u8>>);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A full queue or a writer that has ended loses the line, as the module says.
        let _ = self.0.try_send(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `{"level":"info",…fields…,"time":"2026-01-31T12:00:00Z","message":"…"}`.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = level_name(*event.metadata().level());
        let mut line = Map::from_iter([("level".to_owned(), level.into())]);
        line.append(&mut fields.others);
        line.insert("time".to_owned(), time.to_string().into());
        line.insert("message".to_owned(), fields.message.into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_toxiproxy_in_any_case() {
        assert_eq!(parse("WARN"), Some(LevelFilter::WARN));
        assert_eq!(parse("panic"), Some(LevelFilter::OFF));
        assert_eq!(parse("loud"), None);
    }

    #[test]
    fn reader_that_has_stopped_costs_lines_and_no_time() {
        let (sender, lines) = sync_channel(1);
        let mut queue = Queue(sender);
        for _ in 0..3 {
            queue.write_all(b"line\n").unwrap();
        }
        assert_eq!(lines.try_iter().count(), 1);
    }
}
