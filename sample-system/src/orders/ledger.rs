//! The saga's memory: its row, its log, and who works on it.
//!
//! Every write carries the epoch that its worker claimed the saga with, and the state it saw; a
//! worker that was thought dead and was replaced changes nothing any more (fencing). It decides
//! nothing: see `machine.rs`.

use super::machine::{self, Mode, Phase, Saga, Step};
use crate::kit::clock::{mono_ns, wall_ms};
use crate::kit::context::Context;
use crate::kit::store::{Row, RowExt, Store, StoreError, Tx, sql};

/// Who works: a name that outlives restarts, and this start of it.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    /// The same at each start.
    pub(super) name: String,
    /// New at each start.
    pub(super) incarnation: String,
}

/// A row of the log that is not written yet.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) step: Step,
    pub(super) phase: Phase,
    pub(super) attempt: i64,
    pub(super) error: Option<String>,
    pub(super) at_ms: i64,
    pub(super) mono_ns: i64,
}

impl Entry {
    pub(super) fn now(step: Step, phase: Phase, attempt: i64, error: Option<String>) -> Self {
        Self {
            step,
            phase,
            attempt,
            error,
            at_ms: wall_ms(),
            mono_ns: i64::try_from(mono_ns()).unwrap_or(i64::MAX),
        }
    }

    /// The idempotency key of the call that this row is about: the same in every attempt.
    fn key(&self, saga_id: &str) -> String {
        let undoing = matches!(
            self.phase,
            Phase::UndoStart | Phase::UndoOk | Phase::UndoFail
        );
        let action = if undoing { self.step.undo() } else { None };
        format!("{saga_id}:{}", action.unwrap_or(self.step.name()))
    }
}

/// A saga with its bookkeeping.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// The order's id.
    pub(super) id: String,
    /// What `machine` knows.
    pub(super) saga: Saga,
    /// The claim under which we may write.
    pub(super) epoch: i64,
    /// The state as it is stored; a write fails when it changed.
    pub(super) stored: Mode,
    /// Rows in the log.
    pub(super) rows: i64,
    /// The trace it belongs to.
    pub(super) context: Context,
}

/// The change of a saga's row that goes with new rows of its log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) step: Option<Step>,
    pub(super) next_at: i64,
    pub(super) attempts: i64,
    pub(super) stuck: bool,
}

/// Inserts a new saga, owned by `worker` with epoch 1.
///
/// # Errors
/// The store's.
pub(super) async fn insert(
    tx: &mut Tx,
    record: &Record,
    plan: &str,
    worker: &Worker,
    next_at: i64,
) -> Result<(), StoreError> {
    let insert = sql(
        "INSERT INTO saga (id, state, plan, step, deadline, next_at, attempts, owner, epoch, stuck,
                           traceparent, correlation_id, created_at)
         VALUES ($1, $2, $3, '', $4, $5, 0, $6, $7, 0, $8, $9, $10)",
    );
    let insert = insert
        .bind(record.id.as_str())
        .bind(record.stored.name())
        .bind(plan)
        .bind(record.saga.deadline_ms)
        .bind(next_at)
        .bind(worker.name.as_str())
        .bind(record.epoch)
        .bind(record.context.traceparent())
        .bind(record.context.correlation_id.as_str())
        .bind(wall_ms());
    tx.execute(insert).await.map(drop)
}

/// Writes a saga's new state and the rows that led there. `false` = fenced: another worker has it,
/// or its state changed under us; the caller drops the transaction.
///
/// # Errors
/// The store's.
pub(super) async fn save(
    tx: &mut Tx,
    record: &Record,
    entries: &[Entry],
    change: Change,
    worker: &Worker,
) -> Result<bool, StoreError> {
    let ended_at = (!record.saga.mode.is_open()).then(wall_ms);
    let update = sql(
        "UPDATE saga SET state = $1, step = $2, deadline = $3, next_at = $4, attempts = $5,
                stuck = $6, ended_at = $7
         WHERE id = $8 AND epoch = $9 AND state = $10",
    );
    let update = update
        .bind(record.saga.mode.name())
        .bind(change.step.map_or("", Step::name))
        .bind(record.saga.deadline_ms)
        .bind(change.next_at)
        .bind(change.attempts)
        .bind(i64::from(change.stuck))
        .bind(ended_at)
        .bind(record.id.as_str())
        .bind(record.epoch)
        .bind(record.stored.name());
    if tx.execute(update).await? == 0 {
        return Ok(false);
    }
    for (seq, entry) in (record.rows + 1..).zip(entries) {
        insert_entry(tx, record, seq, entry, worker).await?;
    }
    Ok(true)
}

async fn insert_entry(
    tx: &mut Tx,
    record: &Record,
    seq: i64,
    entry: &Entry,
    worker: &Worker,
) -> Result<(), StoreError> {
    let insert = sql(
        "INSERT INTO saga_log (saga_id, seq, step, phase, attempt, key, error, at, mono_ns, epoch,
                               incarnation)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    );
    let insert = insert
        .bind(record.id.as_str())
        .bind(seq)
        .bind(entry.step.name())
        .bind(entry.phase.name())
        .bind(entry.attempt)
        .bind(entry.key(&record.id))
        .bind(entry.error.as_deref())
        .bind(entry.at_ms)
        .bind(entry.mono_ns)
        .bind(record.epoch)
        .bind(worker.incarnation.as_str());
    tx.execute(insert).await.map(drop)
}

/// Reads a saga with its log; `None` when there is none.
///
/// # Errors
/// The store's, or rows that this version does not understand.
pub(super) async fn load(store: &Store, id: &str) -> Result<Option<Record>, StoreError> {
    let select = sql(
        "SELECT state, plan, deadline, epoch, traceparent, correlation_id FROM saga WHERE id = $1",
    );
    let Some(row) = store.row(select.bind(id)).await? else {
        return Ok(None);
    };
    let mode = named(&row, "state", Mode::named)?;
    let plan = machine::plan(&row.try_get::<String, _>("plan")?).map_err(StoreError::Corrupt)?;
    let mut saga = Saga::new(mode, plan, row.try_get("deadline")?);
    let select = sql("SELECT step, phase FROM saga_log WHERE saga_id = $1 ORDER BY seq");
    let log = store.rows(select.bind(id)).await?;
    for entry in &log {
        saga.note(
            named(entry, "step", Step::named)?,
            named(entry, "phase", Phase::named)?,
        );
    }
    let traceparent: String = row.try_get("traceparent")?;
    let correlation_id: String = row.try_get("correlation_id")?;
    Ok(Some(Record {
        id: id.to_owned(),
        saga,
        epoch: row.try_get("epoch")?,
        stored: mode,
        rows: i64::try_from(log.len()).unwrap_or(i64::MAX),
        context: Context::resume(&traceparent, &correlation_id),
    }))
}

fn named<T>(row: &Row, column: &str, read: fn(&str) -> Option<T>) -> Result<T, StoreError> {
    let name: String = row.try_get(column)?;
    read(&name).ok_or_else(|| StoreError::Corrupt(format!("saga {column} `{name}`")))
}

/// Takes over what an earlier start of this worker left: at once, because two processes of one name
/// never run. Answers how many sagas it resumed.
///
/// # Errors
/// The store's.
pub(super) async fn resume_own(store: &Store, worker: &Worker) -> Result<u64, StoreError> {
    beat(store, worker).await?;
    // In this order: what was nobody's is its own then.
    let own = take_over(store, worker, &worker.name).await?;
    Ok(own + take_over(store, worker, "").await?)
}

/// Gives all open sagas of this worker back, so that the next one need not wait for the lease.
///
/// # Errors
/// The store's.
pub(super) async fn let_go(store: &Store, worker: &Worker) -> Result<(), StoreError> {
    let update = sql("UPDATE saga SET owner = '', epoch = epoch + 1
         WHERE owner = $1 AND state IN ('RUNNING', 'COMPENSATING')");
    store
        .execute(update.bind(worker.name.as_str()))
        .await
        .map(drop)
}

/// Says that this worker is alive. Others judge by whether the number moves, each on its own clock.
///
/// # Errors
/// The store's.
pub(super) async fn beat(store: &Store, worker: &Worker) -> Result<(), StoreError> {
    let beat = sql(
        "INSERT INTO workers (name, incarnation, beat) VALUES ($1, $2, 1)
         ON CONFLICT (name) DO UPDATE SET incarnation = $2, beat = workers.beat + 1",
    );
    let beat = beat
        .bind(worker.name.as_str())
        .bind(worker.incarnation.as_str());
    store.execute(beat).await.map(drop)
}

/// Who has open sagas beside this worker, and how far their beats have come; 0 for one that never
/// beat.
///
/// # Errors
/// The store's.
pub(super) async fn others(
    store: &Store,
    worker: &Worker,
) -> Result<Vec<(String, i64)>, StoreError> {
    let select = sql(
        "SELECT DISTINCT s.owner AS owner, coalesce(w.beat, 0) AS beat
         FROM saga s LEFT JOIN workers w ON w.name = s.owner
         WHERE s.state IN ('RUNNING', 'COMPENSATING') AND s.owner <> $1",
    );
    let rows = store.rows(select.bind(worker.name.as_str())).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("owner")?, row.try_get("beat")?)))
        .collect()
}

/// Claims all open sagas of `owner` under a new epoch; answers how many.
///
/// # Errors
/// The store's.
pub(super) async fn take_over(
    store: &Store,
    worker: &Worker,
    owner: &str,
) -> Result<u64, StoreError> {
    let claim = sql("UPDATE saga SET owner = $1, epoch = epoch + 1, next_at = $2
         WHERE owner = $3 AND state IN ('RUNNING', 'COMPENSATING')");
    let claim = claim.bind(worker.name.as_str()).bind(wall_ms()).bind(owner);
    store.execute(claim).await
}

/// Which open sagas of a worker are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Past their deadline and still going forward: they are to be given up.
    Expired,
    /// Waiting for another try of a forward step.
    Forward,
    /// Waiting for another try to undo.
    Undo,
}

/// The ids of up to `limit` due sagas, oldest first.
///
/// # Errors
/// The store's.
pub(super) async fn due(
    store: &Store,
    worker: &Worker,
    which: Due,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let select = sql(match which {
        Due::Expired => {
            "SELECT id FROM saga WHERE state = 'RUNNING' AND deadline <= $2 AND owner = $1
             ORDER BY created_at LIMIT $3"
        }
        Due::Forward => {
            "SELECT id FROM saga WHERE state = 'RUNNING' AND next_at <= $2 AND deadline > $2
               AND owner = $1 ORDER BY created_at LIMIT $3"
        }
        Due::Undo => {
            "SELECT id FROM saga WHERE state = 'COMPENSATING' AND next_at <= $2 AND owner = $1
             ORDER BY created_at LIMIT $3"
        }
    });
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = store
        .rows(
            select
                .bind(worker.name.as_str())
                .bind(wall_ms())
                .bind(limit),
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::schema::TABLES;
    use super::*;

    const NEVER: i64 = i64::MAX;

    async fn store(dir: &TempDir) -> Store {
        let url = format!("sqlite://{}", dir.path().join("orders.db").display());
        Store::open(&url, TABLES).await.unwrap()
    }

    fn worker(name: &str) -> Worker {
        Worker {
            name: name.to_owned(),
            incarnation: format!("{name}-1"),
        }
    }

    /// A new saga of a worker.
    async fn begun(store: &Store, worker: &Worker) -> Record {
        let plan = "reserve,charge";
        let record = Record {
            id: "order-1".to_owned(),
            saga: Saga::new(Mode::Running, machine::plan(plan).unwrap(), NEVER),
            epoch: 1,
            stored: Mode::Running,
            rows: 0,
            context: Context::background(),
        };
        let mut tx = store.begin().await.unwrap();
        insert(&mut tx, &record, plan, worker, 0).await.unwrap();
        tx.commit().await.unwrap();
        record
    }

    /// Notes that a step began; whether that could be written.
    async fn note(store: &Store, worker: &Worker, record: &Record, stuck: bool) -> bool {
        let change = Change {
            step: Some(Step::Reserve),
            next_at: 0,
            attempts: 1,
            stuck,
        };
        let entry = Entry::now(Step::Reserve, Phase::Start, 1, None);
        let mut tx = store.begin().await.unwrap();
        let saved = save(&mut tx, record, &[entry], change, worker)
            .await
            .unwrap();
        if saved {
            tx.commit().await.unwrap();
        }
        saved
    }

    async fn loaded(store: &Store) -> Record {
        load(store, "order-1").await.unwrap().expect("it is there")
    }

    #[tokio::test]
    async fn worker_that_was_replaced_writes_nothing_any_more() {
        let dir = TempDir::new().unwrap();
        let store = store(&dir).await;
        let (old, new) = (worker("old"), worker("new"));
        let stale = begun(&store, &old).await;
        assert!(note(&store, &old, &stale, false).await);
        assert_eq!(take_over(&store, &new, "old").await.unwrap(), 1);
        let stale = Record { rows: 1, ..stale };
        assert!(!note(&store, &old, &stale, false).await);
        let taken = loaded(&store).await;
        assert_eq!((taken.epoch, taken.rows), (2, 1));
        assert!(note(&store, &new, &taken, false).await);
        assert_eq!(loaded(&store).await.rows, 2);
    }

    #[tokio::test]
    async fn saga_whose_state_changed_meanwhile_is_not_overwritten() {
        let dir = TempDir::new().unwrap();
        let (store, worker) = (store(&dir).await, worker("w"));
        let seen = begun(&store, &worker).await;
        let mut undone = seen.clone();
        undone.saga.mode = Mode::Compensating;
        assert!(note(&store, &worker, &undone, false).await);
        let seen = Record { rows: 1, ..seen };
        assert!(!note(&store, &worker, &seen, false).await);
        assert_eq!(loaded(&store).await.stored, Mode::Compensating);
    }

    #[tokio::test]
    async fn next_start_of_a_worker_takes_over_what_is_its_own_and_what_is_nobodys() {
        let dir = TempDir::new().unwrap();
        let (store, first, other) = (store(&dir).await, worker("w"), worker("other"));
        begun(&store, &first).await;
        assert_eq!(resume_own(&store, &other).await.unwrap(), 0);
        assert_eq!(others(&store, &other).await.unwrap(), [("w".to_owned(), 0)]);
        assert_eq!(resume_own(&store, &first).await.unwrap(), 1);
        assert_eq!(loaded(&store).await.epoch, 2);
        assert_eq!(others(&store, &other).await.unwrap(), [("w".to_owned(), 1)]);
        let_go(&store, &first).await.unwrap();
        assert_eq!(resume_own(&store, &other).await.unwrap(), 1);
        assert_eq!(loaded(&store).await.epoch, 4);
    }

    #[tokio::test]
    async fn stuck_sagas_are_marked_and_go_on() {
        let dir = TempDir::new().unwrap();
        let (store, worker) = (store(&dir).await, worker("w"));
        let record = begun(&store, &worker).await;
        for (rows, stuck) in [true, false].into_iter().enumerate() {
            let rows = i64::try_from(rows).unwrap();
            let record = Record {
                rows,
                ..record.clone()
            };
            assert!(note(&store, &worker, &record, stuck).await);
            let marked = sql("SELECT id FROM saga WHERE stuck = 1");
            assert_eq!(store.rows(marked).await.unwrap().len(), usize::from(stuck));
            let due = due(&store, &worker, Due::Forward, 5).await.unwrap();
            assert_eq!(due, ["order-1"]);
        }
    }
}
