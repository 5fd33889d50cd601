//! Reading evidence: from HTTP, SQL and logs, through jq, into records.
//!
//! Never judges and never guesses: a source that could not be read to its end says so, and the
//! checkers decide what that is worth.

pub(crate) mod backlog;
pub(crate) mod http;
mod log;
mod map;
mod sql;

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::evidence::{Event, Record};
use crate::plan::system::{Fetch, RecordKind};
use crate::plan::{DatabaseName, LinkName, Plan, SourcePlan};

use super::bindings::Bindings;
use super::fleet::Fleet;
use super::journal::Journal;
use map::Mapping;

/// How often the end-of-run reading of a source is tried before it counts as failed.
const TRIES: usize = 3;
/// Pause between two tries.
const TRY_PAUSE: Duration = Duration::from_millis(500);

/// What every reading needs.
pub(crate) struct Context {
    pub(crate) plan: Arc<Plan>,
    pub(crate) bindings: Arc<Bindings>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) client: reqwest::Client,
    pub(crate) logs: PathBuf,
    pub(crate) operations: PathBuf,
    /// How far wall times may be off the run clock: the most that any reading has seen so far, ns.
    pub(crate) clock_error_ns: AtomicU64,
}

impl Context {
    fn database_url(&self, name: &DatabaseName) -> Result<String, String> {
        let database = self
            .plan
            .system
            .databases
            .iter()
            .find(|database| database.name == *name);
        let database = database.ok_or_else(|| format!("no database `{name}`"))?;
        database
            .url
            .render(|symbol| self.bindings.bind(None, symbol))
    }
}

/// When a source has its turn at the end. While events are still being committed, one that comes in
/// between two readings then shows in its source alone, and no effect is without its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// What was made of events.
    Effects,
    /// What no other source is held against one by one.
    Others,
    /// The events themselves.
    Commits,
}

impl Turn {
    fn of(records: RecordKind) -> Self {
        use RecordKind as R;
        match records {
            R::Effect | R::Delivery | R::DeadLetter | R::Version => Self::Effects,
            R::Operation | R::Call | R::Transition | R::Saga | R::Entry | R::Sample => Self::Others,
            R::Event => Self::Commits,
        }
    }
}

/// The sequence numbers of one ring in one incarnation. What it had forgotten before it was read
/// leaves a gap; sources without numbers say 0 throughout and have none.
#[derive(Default)]
struct Ring {
    span: Option<(u64, u64)>,
    rows: u64,
}

impl Ring {
    fn add(&mut self, seq: u64) {
        let (first, last) = self.span.unwrap_or((seq, seq));
        self.span = Some((first.min(seq), last.max(seq)));
        self.rows += 1;
    }

    /// The numbers are a service's own word: none of them may be too large.
    fn lost(&self) -> u64 {
        self.span.map_or(0, |(first, last)| {
            (last - first).saturating_add(1).saturating_sub(self.rows)
        })
    }
}

/// What all rings of a source lost.
fn lost<'r>(rings: impl Iterator<Item = &'r Ring>) -> u64 {
    rings.map(Ring::lost).fold(0, u64::saturating_add)
}

/// A source with what was read of it so far.
pub(crate) struct Reader {
    plan: SourcePlan,
    mapping: Mapping,
    cursor: Option<String>,
    seen: HashSet<u64>,
    /// Which start of its service the cursor is from: another one's rings begin anew.
    start: u32,
    rings: BTreeMap<(LinkName, String), Ring>,
    rows: u64,
    skipped: u64,
    /// When the reading under way began: all of its rows are one reading.
    read_ns: u64,
}

impl Reader {
    /// Readers of all sources of a plan.
    pub(crate) fn all(context: &Context) -> Result<Vec<Self>, String> {
        let sources = context.plan.system.evidence.iter();
        sources
            .filter(|source| context.plan.is_read(source))
            .map(|plan| {
                let mapping = Mapping::new(plan, context.journal.clock())
                    .map_err(|error| format!("evidence `{}`: {error}", plan.name))?;
                Ok(Self {
                    plan: plan.clone(),
                    mapping,
                    cursor: None,
                    seen: HashSet::new(),
                    start: 0,
                    rings: BTreeMap::new(),
                    rows: 0,
                    skipped: 0,
                    read_ns: 0,
                })
            })
            .collect()
    }

    /// Whether it is read during the run.
    pub(crate) fn is_polled(&self) -> bool {
        self.plan.every.is_some()
    }

    /// When it is read at the end.
    pub(crate) fn turn(&self) -> Turn {
        Turn::of(self.plan.records)
    }

    /// Reads it again and again until told to stop; failures in between are not failures of the
    /// source, whose service may be down on purpose.
    pub(crate) async fn poll(mut self, context: Arc<Context>, stop: CancellationToken) -> Self {
        let every = self.plan.every.unwrap_or(Duration::from_secs(1));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.read(&context).await {
                tracing::debug!(source = %self.plan.name, error, "evidence not read");
            }
        }
    }

    /// The last reading, after the drain; tells the journal how the source came out.
    pub(crate) async fn finish(mut self, context: &Context) {
        let rows_before = self.rows;
        let mut result = self.read(context).await;
        for _ in 1..TRIES {
            // Rows that were kept would be kept twice, unless a cursor says where to go on.
            let is_resumable = self.cursor.is_some() || self.rows == rows_before;
            if result.is_ok() || !is_resumable {
                break;
            }
            tokio::time::sleep(TRY_PAUSE).await;
            result = self.read(context).await;
        }
        if result.is_ok() && self.rows == 0 && self.skipped > 0 {
            result = Err(format!("none of its {} lines could be used", self.skipped));
        }
        context.journal.event(Event::SourceRead {
            source: self.plan.name.clone(),
            rows: self.rows,
            lost: lost(self.rings.values()),
            error: result
                .err()
                .map(|error| format!("row {}: {error}", self.rows + 1)),
            clock_error_ns: match self.mapping.uses_wall_clock() {
                true => context.clock_error_ns.load(Ordering::Relaxed),
                false => 0,
            },
        });
    }

    async fn read(&mut self, context: &Context) -> Result<(), String> {
        self.read_ns = context.journal.now_ns();
        let off_ns = context.journal.clock().wall_error_ns();
        context.clock_error_ns.fetch_max(off_ns, Ordering::Relaxed);
        let fetch = self.plan.fetch.clone();
        match &fetch {
            Fetch::Http(http) => {
                let pages = http::Pages::new(&context.client, http, &context.bindings)?;
                let start = context.fleet.incarnation(&http.service);
                let cursor = self.cursor.take().filter(|_| start == self.start);
                self.start = start;
                let (cursor, result) = pages
                    .read(cursor, |answer| self.keep_answer(context, answer))
                    .await;
                self.cursor = cursor;
                result
            }
            Fetch::Sql { database, query } => {
                let url = context.database_url(database)?;
                sql::read(&url, query, |row| self.keep_row(context, row))
                    .await
                    .map(drop)
            }
            Fetch::Log { service } => {
                let path = context.logs.join(format!("{service}.log"));
                let skipped = log::read(&path, |row| {
                    self.keep_log_line(context, row);
                    Ok(())
                });
                self.skipped += skipped.await?;
                Ok(())
            }
            Fetch::Operations {
                operation,
                outcomes,
            } => {
                let wanted = |row: &Value| {
                    let class = serde_json::from_value(row["outcome"].clone());
                    row["op"] == operation.as_str()
                        && class.is_ok_and(|class| outcomes.contains(&class))
                };
                let path = context.operations.clone();
                log::read(&path, |row| {
                    if wanted(&row) {
                        self.keep_row(context, row)
                    } else {
                        Ok(())
                    }
                })
                .await
                .map(drop)
            }
        }
    }

    fn keep_answer(&mut self, context: &Context, answer: Value) -> Result<(), String> {
        let records = self.mapping.records(answer, self.read_ns)?;
        self.keep(context, records);
        Ok(())
    }

    fn keep_row(&mut self, context: &Context, row: Value) -> Result<(), String> {
        let records = self.mapping.row(row, self.read_ns)?;
        self.keep(context, records);
        Ok(())
    }

    /// A log holds lines of every kind: those that the filter cannot take are not meant for it.
    fn keep_log_line(&mut self, context: &Context, row: Value) {
        match self.mapping.row(row, self.read_ns) {
            Ok(records) => self.keep(context, records),
            Err(_) => self.skipped += 1,
        }
    }

    /// Writes what was not seen before: a source that is read again shows its old rows again.
    fn keep(&mut self, context: &Context, records: Vec<Record>) {
        for record in records {
            if self.plan.records == RecordKind::Sample || self.is_new(&record) {
                self.rows += 1;
                if let Record::Transition(it) = &record {
                    let ring = (it.link.clone(), it.incarnation.clone());
                    self.rings.entry(ring).or_default().add(it.seq);
                }
                context.journal.record(record);
            }
        }
    }

    fn is_new(&mut self, record: &Record) -> bool {
        // Rows of a source that is read once may legitimately be equal (two effects of one event).
        if !self.is_polled() {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        format!("{record:?}").hash(&mut hasher);
        self.seen.insert(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_read_first_and_commits_last_whatever_the_order_of_the_file() {
        let mut kinds = [
            RecordKind::Event,
            RecordKind::Saga,
            RecordKind::Delivery,
            RecordKind::Entry,
            RecordKind::Effect,
            RecordKind::DeadLetter,
            RecordKind::Event,
            RecordKind::Version,
        ];
        kinds.sort_by_key(|kind| Turn::of(*kind));
        assert_eq!(
            kinds,
            [
                RecordKind::Delivery,
                RecordKind::Effect,
                RecordKind::DeadLetter,
                RecordKind::Version,
                RecordKind::Saga,
                RecordKind::Entry,
                RecordKind::Event,
                RecordKind::Event,
            ]
        );
    }

    fn ring(numbers: &[u64]) -> Ring {
        let mut ring = Ring::default();
        numbers.iter().for_each(|seq| ring.add(*seq));
        ring
    }

    #[test]
    fn a_ring_lost_what_its_numbers_skip_and_nothing_without_numbers() {
        let lost = |numbers: &[u64]| ring(numbers).lost();
        assert_eq!(lost(&[]), 0);
        assert_eq!(lost(&[3, 4, 5]), 0);
        assert_eq!(lost(&[3, 7, 4]), 2);
        assert_eq!(lost(&[0, 0, 0]), 0);
    }

    #[test]
    fn whatever_number_a_row_claims_what_is_lost_is_counted_without_a_panic() {
        let rings = [ring(&[0, u64::MAX]), ring(&[u64::MAX, 1]), ring(&[2, 3])];
        assert_eq!(lost(rings[..1].iter()), u64::MAX - 2);
        assert_eq!(lost(rings.iter()), u64::MAX);
    }
}
