//! Logs: one JSON object per line on standard output.
//!
//! Fields of every line: `ts` (milliseconds since the Unix epoch), `mono_ns`, `level`, `service`,
//! `version`, `incarnation`, `message`, the fields of the event, and of the work it belongs to
//! `trace_id`, `correlation_id` and `request_id`. Never bodies, tokens or keys.

use std::fmt;
use std::io::Write;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::clock::{mono_ns, wall_ms};
use super::config::Config;

/// Sends the logs of this process to standard output. Only the first call of a process has an effect;
/// when several services share a test process, the first one's name stands on all lines.
pub fn init(config: &Config) {
    let filter = config.optional("SHOP_LOG").unwrap_or("info");
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = JsonLines {
        service: config.service,
        version: config.version.clone(),
        incarnation: config.incarnation.clone(),
    };
    let logs = tracing_subscriber::registry().with(filter).with(lines);
    // Somebody else's subscriber, in tests, is as good.
    drop(logs.try_init());
}

struct JsonLines {
    service: &'static str,
    version: String,
    incarnation: String,
}

/// The fields of a span or an event.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0
            .insert(field.name().to_owned(), Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        id: &tracing::span::Id,
        context: Context<'_, S>,
    ) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Fields::default();
        line.0.insert("ts".into(), wall_ms().into());
        line.0.insert("mono_ns".into(), mono_ns().into());
        line.0
            .insert("level".into(), event.metadata().level().as_str().into());
        line.0.insert("service".into(), self.service.into());
        line.0.insert("version".into(), self.version.clone().into());
        line.0
            .insert("incarnation".into(), self.incarnation.clone().into());
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                for (name, value) in &fields.0 {
                    line.0.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        event.record(&mut line);
        let mut text = Value::Object(line.0).to_string();
        text.push('\n');
        // There is nowhere to report that the log itself cannot be written.
        drop(std::io::stdout().lock().write_all(text.as_bytes()));
    }
}
