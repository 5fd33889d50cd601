//! The database of one service: a thin wrapper on `sqlx` that bounds every operation.
//!
//! - one connection writes, four read (SQLite, WAL: readers never wait for the writer);
//! - a transaction takes the write lock when it begins, so it never fails half-way for being too late;
//! - waiting for a connection is bounded by 1 s, each statement by 2 s, and a locked database is tried
//!   again for a bounded time;
//! - SQL is portable: `$1` parameters, TEXT ids, BIGINT cents and milliseconds, no booleans.
//!
//! It knows nothing of business tables: each service hands in its own `CREATE TABLE IF NOT EXISTS …`.
//! Next: `outbox`, `consumer`, `idempotency`, which put their rows into a caller's [`Tx`].

use std::future::Future;
use std::sync::{Arc, Once};
use std::time::Duration;

use sqlx::any::{AnyArguments, AnyPoolOptions, install_default_drivers};
use sqlx::error::ErrorKind;
use sqlx::{Any, AnyPool, Connection, Transaction};
use tokio::sync::Notify;

pub use sqlx::Row as RowExt;
pub use sqlx::any::AnyRow as Row;

use super::killpoint::Killed;

/// The operation that may have been done although it took too long.
pub(crate) const COMMIT: &str = "commit";
/// How long to wait for a connection of the pool.
const ACQUIRE: Duration = Duration::from_secs(1);
/// How long one statement may take.
const STATEMENT: Duration = Duration::from_secs(2);
/// How long SQLite itself waits for somebody else's write lock.
const BUSY_TIMEOUT_MS: u32 = 2_000;
/// How long `BEGIN` may take: it is the one statement that waits for the lock.
const BEGIN: Duration = Duration::from_millis(2_500);
/// How often a locked database is tried again.
const BUSY_TRIES: u32 = 2;
/// Readers beside the one writer.
const READERS: u32 = 4;

/// A statement with its bound values.
pub type Query<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

/// Starts a statement: `sql("SELECT … WHERE id = $1").bind(id)`.
pub fn sql<'q>(text: &'static str) -> Query<'q> {
    sqlx::query(text)
}

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection became free, or a statement took too long. It may still have happened.
    #[error("`{0}` took longer than {1:?}")]
    TimedOut(&'static str, Duration),
    /// Somebody else holds the write lock.
    #[error("the database is locked")]
    Busy,
    /// A row with the same key is there already.
    #[error("a unique key exists already")]
    Unique,
    /// A kill point whose action is `fail`.
    #[error(transparent)]
    Killed(#[from] Killed),
    /// A stored value does not have the form that the code expects.
    #[error("stored value is unreadable: {0}")]
    Corrupt(String),
    /// Anything else.
    #[error("database: {0}")]
    Database(sqlx::Error),
}

impl StoreError {
    /// Whether the database is what is wrong, locked, slow or sick, and not what was to be written.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::TimedOut(..) | Self::Busy | Self::Killed(_) => true,
            Self::Unique | Self::Corrupt(_) => false,
            Self::Database(sqlx::Error::Database(cause)) => cause.kind() == ErrorKind::Other,
            Self::Database(sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }) => false,
            Self::Database(_) => true,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::TimedOut("acquire", ACQUIRE),
            sqlx::Error::Database(cause) if cause.is_unique_violation() => Self::Unique,
            sqlx::Error::Database(cause) if is_busy(cause.as_ref()) => Self::Busy,
            _ => Self::Database(error),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Corrupt(error.to_string())
    }
}

/// SQLITE_BUSY (5) and SQLITE_LOCKED (6) with any extension, and serialization failures of PostgreSQL.
fn is_busy(error: &dyn sqlx::error::DatabaseError) -> bool {
    let Some(code) = error.code() else {
        return false;
    };
    code == "40001"
        || code
            .parse::<u32>()
            .is_ok_and(|code| matches!(code & 0xff, 5 | 6))
}

/// The database of one service; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    writer: AnyPool,
    readers: AnyPool,
    outbox_filled: Arc<Notify>,
}

impl Store {
    /// Opens the database at `url` (`sqlite:///path/file.db`), creates the file and all tables that are
    /// missing: the kit's own, then those of `migrations` in order. Each must be repeatable.
    ///
    /// # Errors
    /// The file cannot be opened or created, or a migration fails.
    pub async fn open(url: &str, migrations: &[&'static str]) -> Result<Self, StoreError> {
        Self::open_with(url, migrations, "NORMAL").await
    }

    /// As [`Store::open`], with SQLite's `synchronous` at `NORMAL` (outlives `kill -9`) or `FULL`
    /// (outlives a power cut too).
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(
        url: &str,
        migrations: &[&'static str],
        synchronous: &str,
    ) -> Result<Self, StoreError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(install_default_drivers);
        let synchronous = if synchronous.eq_ignore_ascii_case("full") {
            "FULL"
        } else {
            "NORMAL"
        };
        let url = with_create_mode(url);
        // The writer comes first: it creates the file and switches it to WAL before anybody reads.
        let writer = pool(&url, 1, synchronous).await?;
        let readers = pool(&url, READERS, synchronous).await?;
        let store = Self {
            writer,
            readers,
            outbox_filled: Arc::default(),
        };
        let mut tx = store.begin().await?;
        for migration in KIT_TABLES.iter().chain(migrations) {
            tx.execute(sql(migration)).await?;
        }
        tx.commit().await?;
        Ok(store)
    }

    /// Begins a transaction that may write. Dropped without [`Tx::commit`] it changes nothing.
    ///
    /// # Errors
    /// The writer is taken or the database is locked for longer than the limits.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let begin = self.writer.begin_with("BEGIN IMMEDIATE");
            match bounded("begin", BEGIN, begin).await {
                Err(StoreError::Busy) if tries < BUSY_TRIES => {}
                Err(error) => return Err(error),
                Ok(inner) => {
                    let outbox_filled = Arc::clone(&self.outbox_filled);
                    return Ok(Tx {
                        inner,
                        outbox_filled,
                        filled: false,
                    });
                }
            }
        }
    }

    /// Runs one writing statement in a transaction of its own; answers the number of rows it changed.
    ///
    /// # Errors
    /// As [`Store::begin`], or the statement fails.
    pub async fn execute(&self, query: Query<'_>) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let rows = tx.execute(query).await?;
        tx.commit().await?;
        Ok(rows)
    }

    /// All rows of a reading statement.
    ///
    /// # Errors
    /// No connection in time, or the statement fails.
    pub async fn rows(&self, query: Query<'_>) -> Result<Vec<Row>, StoreError> {
        bounded("read", ACQUIRE + STATEMENT, query.fetch_all(&self.readers)).await
    }

    /// The first row of a reading statement, if there is one.
    ///
    /// # Errors
    /// As [`Store::rows`].
    pub async fn row(&self, query: Query<'_>) -> Result<Option<Row>, StoreError> {
        bounded(
            "read",
            ACQUIRE + STATEMENT,
            query.fetch_optional(&self.readers),
        )
        .await
    }

    /// Whether the database answers. For readiness checks.
    ///
    /// # Errors
    /// As [`Store::rows`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.row(sql("SELECT 1 AS one")).await.map(drop)
    }

    /// Returns after a committed transaction put events into the outbox; also for one that happened
    /// before the call and was not waited for.
    pub async fn outbox_filled(&self) {
        self.outbox_filled.notified().await;
    }

    /// Closes all connections, waiting for the statements at hand.
    pub async fn close(&self) {
        let close = async { tokio::join!(self.writer.close(), self.readers.close()) };
        if tokio::time::timeout(STATEMENT, close).await.is_err() {
            tracing::warn!("database connections did not close in time");
        }
    }
}

/// A transaction that holds the write lock.
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Any>,
    outbox_filled: Arc<Notify>,
    filled: bool,
}

impl Tx {
    /// Runs a writing statement; answers the number of rows it changed.
    ///
    /// # Errors
    /// The statement fails or takes too long. After any of them only dropping the transaction is
    /// portable; where a key may exist, say `ON CONFLICT DO NOTHING` and look at the number of rows.
    pub async fn execute(&mut self, query: Query<'_>) -> Result<u64, StoreError> {
        let done = bounded("write", STATEMENT, query.execute(&mut *self.inner)).await?;
        Ok(done.rows_affected())
    }

    /// All rows of a statement, also of `… RETURNING`.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn rows(&mut self, query: Query<'_>) -> Result<Vec<Row>, StoreError> {
        bounded("read", STATEMENT, query.fetch_all(&mut *self.inner)).await
    }

    /// The first row of a statement, if there is one.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn row(&mut self, query: Query<'_>) -> Result<Option<Row>, StoreError> {
        bounded("read", STATEMENT, query.fetch_optional(&mut *self.inner)).await
    }

    /// Makes the changes permanent, and wakes the outbox's relay when there is something for it.
    ///
    /// # Errors
    /// The commit fails (nothing changed) or takes too long (unknown).
    pub async fn commit(self) -> Result<(), StoreError> {
        bounded(COMMIT, STATEMENT, self.inner.commit()).await?;
        if self.filled {
            self.outbox_filled.notify_one();
        }
        Ok(())
    }

    /// Remembers that the relay has something to do after the commit.
    pub(crate) fn fills_outbox(&mut self) {
        self.filled = true;
    }
}

/// Runs one database operation under a time limit.
async fn bounded<T>(
    what: &'static str,
    limit: Duration,
    operation: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, operation).await {
        Ok(result) => Ok(result?),
        Err(_elapsed) => Err(StoreError::TimedOut(what, limit)),
    }
}

async fn pool(url: &str, size: u32, synchronous: &'static str) -> Result<AnyPool, StoreError> {
    let options = AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        // When SQLite itself gives a transaction up (the disk is full, say), sqlx's count of open
        // transactions stays behind and the connection never begins another: it makes way for a new one.
        .before_acquire(|connection, _| {
            let fresh = !connection.is_in_transaction();
            Box::pin(async move { Ok(fresh) })
        })
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::query("PRAGMA journal_mode = WAL")
                    .execute(&mut *connection)
                    .await?;
                let pragmas = format!(
                    "PRAGMA synchronous = {synchronous}; PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}; \
                     PRAGMA foreign_keys = ON"
                );
                sqlx::raw_sql(sqlx::AssertSqlSafe(pragmas))
                    .execute(connection)
                    .await?;
                Ok(())
            })
        });
    bounded("connect", BEGIN, options.connect(url)).await
}

/// Asks SQLite to create the file when it is missing, unless the URL says what it wants.
fn with_create_mode(url: &str) -> String {
    if url.starts_with("sqlite:") && !url.contains("mode=") {
        let separator = if url.contains('?') { '&' } else { '?' };
        return format!("{url}{separator}mode=rwc");
    }
    url.to_owned()
}

/// The tables that the kit keeps in every service's database.
const KIT_TABLES: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE,
        routing_key TEXT NOT NULL, aggregate_id TEXT NOT NULL, body TEXT NOT NULL,
        created_at BIGINT NOT NULL, claimed_until BIGINT NOT NULL DEFAULT 0,
        attempts BIGINT NOT NULL DEFAULT 0, sent_at BIGINT)",
    "CREATE INDEX IF NOT EXISTS outbox_unsent ON outbox (seq) WHERE sent_at IS NULL",
    "CREATE TABLE IF NOT EXISTS inbox (
        consumer TEXT NOT NULL, event_id TEXT NOT NULL, handled_at BIGINT NOT NULL,
        PRIMARY KEY (consumer, event_id))",
    "CREATE TABLE IF NOT EXISTS ledger (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, consumer TEXT NOT NULL, event_id TEXT NOT NULL,
        type TEXT NOT NULL, aggregate_id TEXT NOT NULL, version BIGINT NOT NULL,
        deliveries BIGINT NOT NULL, effects BIGINT NOT NULL, first_at BIGINT NOT NULL,
        last_at BIGINT NOT NULL, mono_ns BIGINT NOT NULL, incarnation TEXT NOT NULL,
        UNIQUE (consumer, event_id))",
    "CREATE TABLE IF NOT EXISTS idempotency (
        key TEXT PRIMARY KEY, request_hash TEXT NOT NULL, state TEXT NOT NULL,
        status BIGINT, response TEXT, created_at BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS idempotency_age ON idempotency (created_at)",
];

#[cfg(test)]
mod tests;
