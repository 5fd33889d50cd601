//! Evidence from an embedded database: read-only, in one short transaction, never a copied file.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use serde_json::{Map, Value};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{Column as _, Connection as _, Row as _, TypeInfo as _, ValueRef as _};
use tokio::sync::mpsc::Sender;

use super::{ROWS_AT_ONCE, hand_over};

/// Bound of one query, from connect to the last row.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a query; its rows go to `taker`, some at a time, as objects of their columns. Returns how many
/// there were.
pub(crate) async fn read(url: &str, query: &str, taker: Sender<Vec<Value>>) -> Result<u64, String> {
    tokio::time::timeout(QUERY_TIMEOUT, rows(url, query, taker))
        .await
        .map_err(|_| format!("the query took longer than {} s", QUERY_TIMEOUT.as_secs()))?
}

async fn rows(url: &str, query: &str, taker: Sender<Vec<Value>>) -> Result<u64, String> {
    let options: SqliteConnectOptions = url
        .parse()
        .map_err(|error| format!("`{url}` is no database URL: {error}"))?;
    let options = options
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(Duration::from_secs(5));
    let mut connection = SqliteConnection::connect_with(&options)
        .await
        .map_err(|error| error.to_string())?;
    let mut count = 0;
    {
        let query = sqlx::AssertSqlSafe(query.to_owned());
        let mut rows = sqlx::query(query).fetch(&mut connection);
        let mut some = Vec::new();
        while let Some(read) = rows.try_next().await.map_err(|error| error.to_string())? {
            some.push(object(&read)?);
            count += 1;
            if some.len() == ROWS_AT_ONCE {
                hand_over(&taker, &mut some).await?;
            }
        }
        hand_over(&taker, &mut some).await?;
    }
    connection
        .close()
        .await
        .map_err(|error| error.to_string())?;
    Ok(count)
}

fn object(row: &SqliteRow) -> Result<Value, String> {
    let mut fields = Map::new();
    for column in row.columns() {
        let raw = row
            .try_get_raw(column.ordinal())
            .map_err(|error| error.to_string())?;
        let at = column.ordinal();
        let value = if raw.is_null() {
            Value::Null
        } else {
            match raw.type_info().name() {
                "INTEGER" | "BOOLEAN" => row.try_get::<i64, _>(at).map(Value::from),
                "REAL" => row.try_get::<f64, _>(at).map(Value::from),
                "TEXT" => row.try_get::<String, _>(at).map(Value::from),
                other => return Err(format!("column `{}` is a {other}", column.name())),
            }
            .map_err(|error| error.to_string())?
        };
        fields.insert(column.name().to_owned(), value);
    }
    Ok(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_live_wal_database_is_read_but_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/a.db", folder.path().display());
        let options: SqliteConnectOptions = url.parse().unwrap();
        let options = options
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
        let mut writer = SqliteConnection::connect_with(&options).await.unwrap();
        for statement in [
            "create table t (k text, n bigint)",
            "insert into t values ('a', 7)",
        ] {
            sqlx::query(statement).execute(&mut writer).await.unwrap();
        }
        let (taker, mut taken) = tokio::sync::mpsc::channel(1);
        let query = r#"select k as "the-key", n, null as x from t"#;
        assert_eq!(read(&url, query, taker.clone()).await, Ok(1));
        let rows = [json!({"the-key": "a", "n": 7, "x": null})];
        assert_eq!(taken.recv().await.unwrap(), rows);
        assert!(read(&url, "delete from t", taker.clone()).await.is_err());
        let missing = format!("sqlite://{}/b.db", folder.path().display());
        assert!(read(&missing, "select 1", taker).await.is_err());
    }
}
