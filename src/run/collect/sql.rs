//! Evidence from an embedded database: read-only, in one short transaction, never a copied file.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use serde_json::{Map, Value};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{Column as _, Connection as _, Row as _, TypeInfo as _, ValueRef as _};

/// Bound of one query, from connect to the last row.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a query; each row goes to `row` as an object of its columns. Returns how many there were.
pub(crate) async fn read(
    url: &str,
    query: &str,
    row: impl FnMut(Value) -> Result<(), String>,
) -> Result<u64, String> {
    tokio::time::timeout(QUERY_TIMEOUT, rows(url, query, row))
        .await
        .map_err(|_| format!("the query took longer than {} s", QUERY_TIMEOUT.as_secs()))?
}

async fn rows(
    url: &str,
    query: &str,
    mut row: impl FnMut(Value) -> Result<(), String>,
) -> Result<u64, String> {
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
        while let Some(read) = rows.try_next().await.map_err(|error| error.to_string())? {
            row(object(&read)?)?;
            count += 1;
        }
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
        let mut seen = Vec::new();
        let keep = |row| {
            seen.push(row);
            Ok(())
        };
        assert_eq!(
            read(&url, r#"select k as "the-key", n, null as x from t"#, keep).await,
            Ok(1)
        );
        assert_eq!(seen, [json!({"the-key": "a", "n": 7, "x": null})]);
        assert!(read(&url, "delete from t", |_| Ok(())).await.is_err());
        let missing = format!("sqlite://{}/b.db", folder.path().display());
        assert!(read(&missing, "select 1", |_| Ok(())).await.is_err());
    }
}
