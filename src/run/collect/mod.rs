//! Reading evidence: from HTTP, SQL and logs, through jq, into records.
//!
//! Never judges and never guesses: a source that could not be read to its end says so, and the
//! checkers decide what that is worth.

mod aside;
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
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::evidence::{Event, Record};
use crate::plan::system::{Fetch, HttpFetch, RecordKind};
use crate::plan::{DatabaseName, LinkName, Plan, SourcePlan};

use super::bindings::Bindings;
use super::fleet::Fleet;
use super::journal::Journal;
use aside::Aside;
use map::Mapping;

/// How often the end-of-run reading of a source is tried before it counts as failed.
const TRIES: usize = 3;
/// Pause between two tries.
const TRY_PAUSE: Duration = Duration::from_millis(500);

/// Most pages of one reading.
const PAGES_MAX: usize = 100_000;
/// Rows of a query or a log that are mapped at once.
const ROWS_AT_ONCE: usize = 256;

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

/// Passes rows on, if there are any.
async fn hand_over(taker: &mpsc::Sender<Vec<Value>>, rows: &mut Vec<Value>) -> Result<(), String> {
    if rows.is_empty() {
        return Ok(());
    }
    let sent = taker.send(std::mem::take(rows)).await;
    // Whoever does not take them any more has said why.
    sent.map_err(|_| "its rows were not taken".to_owned())
}

/// A source with what was read of it so far.
pub(crate) struct Reader {
    plan: SourcePlan,
    mapping: Arc<Mapping>,
    aside: Aside,
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
                    mapping: Arc::new(mapping),
                    aside: Aside::default(),
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
            Fetch::Http(http) => self.read_pages(context, http).await,
            Fetch::Sql { database, query } => {
                let url = context.database_url(database)?;
                let (taker, rows) = mpsc::channel(1);
                let keep = self.keep_rows(context, rows);
                tokio::try_join!(sql::read(&url, query, taker), keep).map(drop)
            }
            Fetch::Log { service } => {
                let path = context.logs.join(format!("{service}.log"));
                let (taker, rows) = mpsc::channel(1);
                let keep = self.keep_rows(context, rows);
                let (skipped, ()) = tokio::try_join!(log::read(&path, |_| true, taker), keep)?;
                self.skipped += skipped;
                Ok(())
            }
            Fetch::Operations {
                operation,
                outcomes,
            } => {
                let is_wanted = |row: &Value| {
                    let class = serde_json::from_value(row["outcome"].clone());
                    row["op"] == operation.as_str()
                        && class.is_ok_and(|class| outcomes.contains(&class))
                };
                let (taker, rows) = mpsc::channel(1);
                let keep = self.keep_rows(context, rows);
                let read = log::read(&context.operations, is_wanted, taker);
                tokio::try_join!(read, keep).map(drop)
            }
        }
    }

    /// Reads an endpoint page by page, from where the last reading came to.
    async fn read_pages(&mut self, context: &Context, http: &HttpFetch) -> Result<(), String> {
        let pages = http::Pages::new(&context.client, http, &context.bindings);
        let start = context.fleet.incarnation(&http.service);
        if start != self.start {
            self.cursor = None;
        }
        self.start = start;
        for _ in 0..PAGES_MAX {
            let answer = pages.get(self.cursor.as_deref()).await?;
            let (mapping, read_ns) = (Arc::clone(&self.mapping), self.read_ns);
            let page = self.aside.run(move || mapping.page(answer, read_ns));
            let page = page.await??;
            self.keep(context, page.records);
            match page.next {
                Some(next) if Some(&next) != self.cursor.as_ref() => self.cursor = Some(next),
                _ => return Ok(()),
            }
        }
        Err(format!("more than {PAGES_MAX} pages"))
    }

    /// Keeps what rows are mapped to, as they come.
    async fn keep_rows(
        &mut self,
        context: &Context,
        mut rows: mpsc::Receiver<Vec<Value>>,
    ) -> Result<(), String> {
        while let Some(rows) = rows.recv().await {
            for records in self.mapped(rows).await? {
                match records {
                    Ok(records) => self.keep(context, records),
                    // A log holds lines of every kind: those that the filter cannot take are not
                    // meant for it.
                    Err(_) if matches!(self.plan.fetch, Fetch::Log { .. }) => self.skipped += 1,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// What each row is mapped to.
    async fn mapped(&self, rows: Vec<Value>) -> Result<Vec<Result<Vec<Record>, String>>, String> {
        let (mapping, read_ns) = (Arc::clone(&self.mapping), self.read_ns);
        let map = move |row| mapping.row(row, read_ns);
        let mapped = move || rows.into_iter().map(map).collect();
        self.aside.run(mapped).await
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
