//! The tables of the bus, and every operation on them as a function of a transaction.

use uuid::Uuid;

use super::Declared;
use crate::kit::bus::client::Publication;
use crate::kit::bus::{Confirmation, DeadLetter, Delivery, Depth, matches};
use crate::kit::clock::wall_ms;
use crate::kit::store::{Row, RowExt, Store, StoreError, Tx, sql};

/// How long a fetched message is invisible to others.
const VISIBILITY_MS: i64 = 5_000;

/// `messages` holds what is ready (`tag` is null, `available_at` has passed), delayed (not yet) and
/// unacked (`tag` is set, until `available_at`).
pub(super) const TABLES: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS queues (name TEXT PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS bindings (
        queue TEXT NOT NULL, pattern TEXT NOT NULL, PRIMARY KEY (queue, pattern))",
    "CREATE TABLE IF NOT EXISTS messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, event_id TEXT NOT NULL,
        routing_key TEXT NOT NULL, body TEXT NOT NULL, available_at BIGINT NOT NULL,
        deliveries BIGINT NOT NULL DEFAULT 0, tag TEXT, consumer TEXT, incarnation TEXT,
        UNIQUE (queue, event_id))",
    "CREATE INDEX IF NOT EXISTS messages_queue ON messages (queue, seq)",
    "CREATE TABLE IF NOT EXISTS dead_letters (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, event_id TEXT NOT NULL,
        routing_key TEXT NOT NULL, body TEXT NOT NULL, reason TEXT NOT NULL,
        deliveries BIGINT NOT NULL, at_ms BIGINT NOT NULL)",
];

/// Something that changes the queues.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Publish(Vec<Publication>),
    Fetch {
        queue: String,
        consumer: String,
        incarnation: String,
        max: u32,
    },
    Ack {
        queue: String,
        tag: String,
    },
    Nack {
        queue: String,
        tag: String,
        delay_ms: i64,
    },
    Dead {
        queue: String,
        tag: String,
        reason: String,
    },
    Declare {
        queue: String,
        patterns: Vec<String>,
    },
    Replay {
        queue: String,
    },
}

/// What an operation did.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Confirmations(Vec<Confirmation>),
    Deliveries(Vec<Delivery>),
    /// The number of messages that it changed.
    Changed(u64),
}

impl Default for Answer {
    fn default() -> Self {
        Self::Changed(0)
    }
}

/// Carries out one operation.
pub(super) async fn apply(tx: &mut Tx, operation: &Operation) -> Result<Answer, StoreError> {
    match operation {
        Operation::Publish(batch) => publish(tx, batch).await,
        Operation::Fetch {
            queue,
            consumer,
            incarnation,
            max,
        } => fetch(tx, queue, consumer, incarnation, *max).await,
        Operation::Ack { queue, tag } => {
            let delete = sql("DELETE FROM messages WHERE queue = $1 AND tag = $2");
            tx.execute(delete.bind(queue).bind(tag))
                .await
                .map(Answer::Changed)
        }
        Operation::Nack {
            queue,
            tag,
            delay_ms,
        } => {
            let update = sql("UPDATE messages SET tag = NULL, available_at = $1
                 WHERE queue = $2 AND tag = $3");
            let update = update.bind(wall_ms() + delay_ms).bind(queue).bind(tag);
            tx.execute(update).await.map(Answer::Changed)
        }
        Operation::Dead { queue, tag, reason } => bury(tx, queue, tag, reason).await,
        Operation::Declare { queue, patterns } => {
            declare(tx, queue, patterns).await?;
            Ok(Answer::Changed(0))
        }
        Operation::Replay { queue } => replay(tx, queue).await,
    }
}

/// Declares all queues that exist from the start.
pub(super) async fn declare_all(store: &Store, topology: &[Declared]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    for (queue, patterns) in topology {
        declare(&mut tx, queue, patterns).await?;
    }
    tx.commit().await
}

/// The queue exists from now on and gets exactly what `patterns` say.
async fn declare(tx: &mut Tx, queue: &str, patterns: &[String]) -> Result<(), StoreError> {
    let insert = sql("INSERT INTO queues (name) VALUES ($1) ON CONFLICT DO NOTHING");
    tx.execute(insert.bind(queue)).await?;
    tx.execute(sql("DELETE FROM bindings WHERE queue = $1").bind(queue))
        .await?;
    for pattern in patterns {
        let insert = sql("INSERT INTO bindings (queue, pattern) VALUES ($1, $2)
             ON CONFLICT DO NOTHING");
        tx.execute(insert.bind(queue).bind(pattern)).await?;
    }
    Ok(())
}

/// One row per publication and queue that wants it. A queue that still has the event keeps one.
async fn publish(tx: &mut Tx, batch: &[Publication]) -> Result<Answer, StoreError> {
    let bindings = tx
        .rows(sql("SELECT queue, pattern FROM bindings ORDER BY queue"))
        .await?;
    let bindings: Vec<(String, String)> = bindings
        .iter()
        .map(|row| Ok((row.try_get("queue")?, row.try_get("pattern")?)))
        .collect::<Result<_, sqlx::Error>>()?;
    let mut confirmations = Vec::with_capacity(batch.len());
    for publication in batch {
        let wants = |(queue, pattern): &'_ (String, String)| {
            matches(pattern, &publication.routing_key).then(|| queue.clone())
        };
        let mut queues: Vec<String> = bindings.iter().filter_map(wants).collect();
        queues.dedup();
        for queue in &queues {
            let insert = sql(
                "INSERT INTO messages (queue, event_id, routing_key, body, available_at)
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            )
            .bind(queue)
            .bind(&publication.event_id)
            .bind(&publication.routing_key)
            .bind(&publication.body)
            .bind(wall_ms());
            tx.execute(insert).await?;
        }
        let unroutable = queues.is_empty();
        confirmations.push(match unroutable {
            true => Confirmation::Unroutable,
            false => Confirmation::Confirmed,
        });
    }
    Ok(Answer::Confirmations(confirmations))
}

/// Releases what an earlier incarnation of this consumer held, then hands out the oldest messages that
/// are due, up to `max` unsettled ones.
async fn fetch(
    tx: &mut Tx,
    queue: &str,
    consumer: &str,
    incarnation: &str,
    max: u32,
) -> Result<Answer, StoreError> {
    let now = wall_ms();
    let release = sql("UPDATE messages SET tag = NULL, available_at = $1
         WHERE queue = $2 AND tag IS NOT NULL AND consumer = $3 AND incarnation <> $4");
    tx.execute(
        release
            .bind(now)
            .bind(queue)
            .bind(consumer)
            .bind(incarnation),
    )
    .await?;
    let held = sql("SELECT count(*) AS held FROM messages
         WHERE queue = $1 AND tag IS NOT NULL AND incarnation = $2 AND available_at > $3");
    let held = tx.row(held.bind(queue).bind(incarnation).bind(now)).await?;
    let held: i64 = held.map_or(Ok(0), |row| row.try_get("held"))?;
    let room = (i64::from(max) - held).max(0);
    let update = sql(
        "UPDATE messages SET deliveries = deliveries + 1, available_at = $1,
             consumer = $2, incarnation = $3, tag = $4 || '.' || seq
         WHERE seq IN (SELECT seq FROM messages WHERE queue = $5 AND available_at <= $6
             ORDER BY seq LIMIT $7)
         RETURNING seq, tag, routing_key, body, deliveries",
    )
    .bind(now + VISIBILITY_MS)
    .bind(consumer)
    .bind(incarnation)
    .bind(Uuid::new_v4().simple().to_string())
    .bind(queue)
    .bind(now)
    .bind(room);
    let mut rows = Vec::new();
    for row in tx.rows(update).await? {
        rows.push((row.try_get::<i64, _>("seq")?, delivery(&row)?));
    }
    rows.sort_by_key(|(seq, _)| *seq);
    Ok(Answer::Deliveries(
        rows.into_iter().map(|(_, delivery)| delivery).collect(),
    ))
}

fn delivery(row: &Row) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        tag: row.try_get("tag")?,
        routing_key: row.try_get("routing_key")?,
        body: row.try_get("body")?,
        deliveries: count(row, "deliveries")?,
    })
}

fn count<T: TryFrom<i64>>(row: &Row, column: &str) -> Result<T, StoreError> {
    let value: i64 = row.try_get(column)?;
    T::try_from(value).map_err(|_| StoreError::Corrupt(format!("{column} is {value}")))
}

/// Moves a message to the dead letters.
async fn bury(tx: &mut Tx, queue: &str, tag: &str, reason: &str) -> Result<Answer, StoreError> {
    let insert = sql("INSERT INTO dead_letters
         (queue, event_id, routing_key, body, reason, deliveries, at_ms)
         SELECT queue, event_id, routing_key, body, $1, deliveries, $2
         FROM messages WHERE queue = $3 AND tag = $4");
    tx.execute(insert.bind(reason).bind(wall_ms()).bind(queue).bind(tag))
        .await?;
    let delete = sql("DELETE FROM messages WHERE queue = $1 AND tag = $2");
    tx.execute(delete.bind(queue).bind(tag))
        .await
        .map(Answer::Changed)
}

/// Puts all dead letters back as new messages.
async fn replay(tx: &mut Tx, queue: &str) -> Result<Answer, StoreError> {
    let insert = sql(
        "INSERT INTO messages (queue, event_id, routing_key, body, available_at)
         SELECT queue, event_id, routing_key, body, $1 FROM dead_letters WHERE queue = $2
         ORDER BY seq ON CONFLICT DO NOTHING",
    );
    tx.execute(insert.bind(wall_ms()).bind(queue)).await?;
    let delete = sql("DELETE FROM dead_letters WHERE queue = $1").bind(queue);
    tx.execute(delete).await.map(Answer::Changed)
}

/// Whether somebody declared the queue.
pub(super) async fn exists(store: &Store, queue: &str) -> Result<bool, StoreError> {
    let select = sql("SELECT name FROM queues WHERE name = $1").bind(queue);
    Ok(store.row(select).await?.is_some())
}

/// How much waits in each queue, by name; also the empty ones.
pub(super) async fn depths(store: &Store) -> Result<Vec<(String, Depth)>, StoreError> {
    let select = sql("SELECT q.name AS name,
             (SELECT count(*) FROM messages m WHERE m.queue = q.name AND m.tag IS NULL
                 AND m.available_at <= $1) AS ready,
             (SELECT count(*) FROM messages m WHERE m.queue = q.name AND m.tag IS NULL
                 AND m.available_at > $1) AS delayed,
             (SELECT count(*) FROM messages m WHERE m.queue = q.name AND m.tag IS NOT NULL)
                 AS unacked,
             (SELECT count(*) FROM dead_letters d WHERE d.queue = q.name) AS dead
         FROM queues q ORDER BY q.name");
    let rows = store.rows(select.bind(wall_ms())).await?;
    rows.iter()
        .map(|row| {
            let depth = Depth {
                ready: count(row, "ready")?,
                delayed: count(row, "delayed")?,
                unacked: count(row, "unacked")?,
                dead: count(row, "dead")?,
            };
            Ok((row.try_get("name")?, depth))
        })
        .collect()
}

/// Dead letters after a cursor, of one queue or, with an empty name, of all.
pub(super) async fn dead_letters(
    store: &Store,
    queue: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<DeadLetter>, StoreError> {
    let select = sql(
        "SELECT seq, queue, event_id, routing_key, body, reason, deliveries, at_ms
         FROM dead_letters WHERE ($1 = '' OR queue = $1) AND seq > $2 ORDER BY seq LIMIT $3",
    );
    let rows = store
        .rows(select.bind(queue).bind(after).bind(limit))
        .await?;
    rows.iter()
        .map(|row| {
            Ok(DeadLetter {
                seq: row.try_get("seq")?,
                queue: row.try_get("queue")?,
                event_id: row.try_get("event_id")?,
                routing_key: row.try_get("routing_key")?,
                body: row.try_get("body")?,
                reason: row.try_get("reason")?,
                deliveries: count(row, "deliveries")?,
                at_ms: row.try_get("at_ms")?,
            })
        })
        .collect()
}
