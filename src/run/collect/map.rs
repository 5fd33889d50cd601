//! From a row of a source to a record: jq, then times, then the record's own shape.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};

use crate::evidence::{Record, RunClock};
use crate::plan::jq::{self, Filter};
use crate::plan::system::{Fetch, RecordKind};
use crate::plan::{SourceName, SourcePlan};

/// What one answer of an endpoint holds.
pub(crate) struct Page {
    pub(crate) records: Vec<Record>,
    /// Where the next one begins, if there is one.
    pub(crate) next: Option<String>,
}

/// Compiled mapping of one source.
pub(crate) struct Mapping {
    source: SourceName,
    kind: RecordKind,
    cursor: Option<Filter>,
    rows: Filter,
    select: Filter,
    clock: RunClock,
    /// Whether a time of any record so far came from a wall clock.
    wall: AtomicBool,
}

impl Mapping {
    /// Compiles the filters of a source; planning has compiled them before, so an error here means
    /// a plan from elsewhere.
    pub(crate) fn new(plan: &SourcePlan, clock: RunClock) -> Result<Self, String> {
        let cursor = match &plan.fetch {
            Fetch::Http(http) => http.cursor.as_deref().map(jq::compile).transpose()?,
            Fetch::Sql { .. } | Fetch::Log { .. } | Fetch::Operations { .. } => None,
        };
        Ok(Self {
            source: plan.name.clone(),
            kind: plan.records,
            cursor,
            rows: jq::compile(&plan.rows)?,
            select: jq::compile(&plan.select)?,
            clock,
            wall: AtomicBool::new(false),
        })
    }

    /// Whether a time of any record so far came from a wall clock, and so has an error bound.
    pub(crate) fn uses_wall_clock(&self) -> bool {
        self.wall.load(Ordering::Relaxed)
    }

    /// What an answer holds, read at `now_ns`.
    pub(crate) fn page(&self, answer: Value, now_ns: u64) -> Result<Page, String> {
        let next = self.next_cursor(&answer)?;
        let records = self.records(answer, now_ns)?;
        Ok(Page { records, next })
    }

    fn next_cursor(&self, answer: &Value) -> Result<Option<String>, String> {
        let Some(filter) = &self.cursor else {
            return Ok(None);
        };
        match jq::run(filter, answer).next().transpose()? {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Ok(Some(other.to_string())),
        }
    }

    /// The records of one answer, read at `now_ns`.
    fn records(&self, answer: Value, now_ns: u64) -> Result<Vec<Record>, String> {
        let mut records = Vec::new();
        for row in jq::run(&self.rows, &answer) {
            records.extend(self.row(row?, now_ns)?);
        }
        Ok(records)
    }

    /// The records of one row.
    pub(crate) fn row(&self, row: Value, now_ns: u64) -> Result<Vec<Record>, String> {
        jq::run(&self.select, &row)
            .map(|mapped| self.record(mapped?, now_ns))
            .collect()
    }

    fn record(&self, mapped: Value, now_ns: u64) -> Result<Record, String> {
        let Value::Object(mut fields) = mapped else {
            return Err(format!(
                "`select` yields {}, not an object",
                kind_of(&mapped)
            ));
        };
        if on_run_clock(&mut fields, &self.clock) {
            self.wall.store(true, Ordering::Relaxed);
        }
        fields.insert("source".into(), Value::String(self.source.to_string()));
        self.fill(&mut fields, now_ns);
        typed(self.kind, Value::Object(fields))
    }

    /// What a record may leave out, by kind.
    fn fill(&self, fields: &mut Map<String, Value>, now_ns: u64) {
        let mut fill = |name: &str, value: Value| {
            fields.entry(name).or_insert(value);
        };
        match self.kind {
            RecordKind::Effect => fill("count", 1.into()),
            RecordKind::Transition => {
                fill("incarnation", "".into());
                fill("seq", 0.into());
            }
            RecordKind::Entry => {
                fill("account", "".into());
                fill("unit", "".into());
            }
            RecordKind::Version | RecordKind::Sample => fill("at-ns", now_ns.into()),
            RecordKind::Operation
            | RecordKind::Call
            | RecordKind::Saga
            | RecordKind::Event
            | RecordKind::Delivery
            | RecordKind::DeadLetter => {}
        }
    }
}

/// Turns `X-mono-ns` and `X-wall-ms` into `X-ns` on the run clock, in nested arrays too. Answers
/// whether a time is a wall clock's.
fn on_run_clock(fields: &mut Map<String, Value>, clock: &RunClock) -> bool {
    let names: Vec<String> = fields.keys().cloned().collect();
    let mut wall = false;
    for name in names {
        if let Some(prefix) = name.strip_suffix("-mono-ns") {
            move_time(fields, &name, prefix, |value| clock.from_mono(value));
        } else if let Some(prefix) = name.strip_suffix("-wall-ms") {
            // A monotonic time is the better witness where a row has both.
            let is_known = fields.get(&name).is_some_and(Value::is_u64);
            let has_both = ["mono-ns", "ns"]
                .iter()
                .any(|unit| fields.contains_key(&format!("{prefix}-{unit}")));
            wall |= is_known && !has_both;
            move_time(fields, &name, prefix, |value| clock.from_wall(value));
        } else if let Some(Value::Array(items)) = fields.get_mut(&name) {
            for item in items.iter_mut().filter_map(Value::as_object_mut) {
                wall |= on_run_clock(item, clock);
            }
        }
    }
    wall
}

fn move_time(
    fields: &mut Map<String, Value>,
    name: &str,
    prefix: &str,
    convert: impl Fn(u64) -> u64,
) {
    let Some(value) = fields.remove(name) else {
        return;
    };
    let value = value
        .as_u64()
        .map_or(Value::Null, |value| convert(value).into());
    let target = format!("{prefix}-ns");
    if name.ends_with("-mono-ns") || !fields.contains_key(&target) {
        fields.insert(target, value);
    }
}

fn typed(kind: RecordKind, value: Value) -> Result<Record, String> {
    fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }
    match kind {
        RecordKind::Operation => read(value).map(Record::Operation),
        RecordKind::Call => read(value).map(Record::Call),
        RecordKind::Transition => read(value).map(Record::Transition),
        RecordKind::Saga => read(value).map(Record::Saga),
        RecordKind::Event => read(value).map(Record::Event),
        RecordKind::Effect => read(value).map(Record::Effect),
        RecordKind::Delivery => read(value).map(Record::Delivery),
        RecordKind::DeadLetter => read(value).map(Record::DeadLetter),
        RecordKind::Entry => read(value).map(Record::Entry),
        RecordKind::Version => read(value).map(Record::Version),
        RecordKind::Sample => read(value).map(Record::Sample),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::system::Fetch;
    use crate::plan::{DatabaseName, SourceRef};
    use serde_json::json;

    fn mapping(kind: RecordKind, select: &str) -> Mapping {
        let clock = RunClock {
            origin_mono_ns: 1_000,
            origin_wall_ms: 10,
        };
        let plan = SourcePlan {
            name: SourceName::new("s"),
            source: SourceRef {
                file: "system.yaml".into(),
                line: 1,
                column: 1,
            },
            records: kind,
            every: None,
            fetch: Fetch::Sql {
                database: DatabaseName::new("d"),
                query: String::new(),
            },
            rows: ".rows[]".into(),
            select: select.into(),
        };
        Mapping::new(&plan, clock).unwrap()
    }

    #[test]
    fn times_of_either_clock_land_on_the_run_clock() {
        let mapping = mapping(
            RecordKind::Event,
            r#"{id, key, type, version, "at-mono-ns": .mono, "at-wall-ms": .wall}"#,
        );
        let row = json!({"id": "e", "key": "k", "type": "t", "mono": 1500, "wall": 11});
        let records = mapping.records(json!({"rows": [row]}), 0).unwrap();
        let [Record::Event(event)] = records.as_slice() else {
            panic!("{records:?}")
        };
        assert_eq!(event.at_ns, 500);
        assert_eq!(event.source.as_str(), "s");
        assert!(!mapping.uses_wall_clock(), "the monotonic time counts");
    }

    #[test]
    fn a_time_that_only_a_wall_clock_tells_is_known_for_one() {
        let select = r#"{id: "s", key, state: "running", "started-mono-ns": .mono,
            "ended-wall-ms": .ended, steps: [.steps[] | {name, phase: "done", attempt: 1, epoch: 1,
            "at-mono-ns": .mono, "at-wall-ms": .wall}]}"#;
        let mapping = mapping(RecordKind::Saga, select);
        let step = json!({"name": "a", "mono": 1500, "wall": 11});
        let row = |ended: Value| json!({"key": "k", "mono": 1500, "ended": ended, "steps": [step]});
        let open = json!({"rows": [row(Value::Null)]});
        assert_eq!(mapping.records(open, 0).map(|it| it.len()), Ok(1));
        assert!(!mapping.uses_wall_clock(), "it has not ended");
        let ended = json!({"rows": [row(json!(12))]});
        assert_eq!(mapping.records(ended, 0).map(|it| it.len()), Ok(1));
        assert!(mapping.uses_wall_clock());
    }

    #[test]
    fn a_row_that_is_no_record_names_the_field() {
        let mapping = mapping(RecordKind::Entry, "{key, amount: .cents}");
        let error = mapping
            .records(json!({"rows": [{"key": "k"}]}), 0)
            .unwrap_err();
        assert!(error.contains("i64") || error.contains("null"), "{error}");
        assert!(
            mapping
                .records(json!({"rows": [{"key": "k", "cents": 5}]}), 0)
                .is_ok()
        );
    }

    #[test]
    fn a_select_that_yields_nothing_skips_the_row() {
        let mapping = mapping(
            RecordKind::Effect,
            r#"select(.ok) | {consumer: "c", event: .id}"#,
        );
        let rows = json!({"rows": [{"ok": false, "id": "a"}, {"ok": true, "id": "b"}]});
        let records = mapping.records(rows, 0).unwrap();
        let [Record::Effect(effect)] = records.as_slice() else {
            panic!("{records:?}")
        };
        assert_eq!((effect.event.as_str(), effect.count), ("b", 1));
    }
}
