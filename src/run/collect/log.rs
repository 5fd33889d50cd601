//! Evidence from a service's log: its JSON lines.

use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc::Sender;

use super::{ROWS_AT_ONCE, hand_over};

/// Longest line that is read as JSON; longer ones are skipped and counted.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Reads a log; lines that are JSON objects, and wanted, go to `taker`, some at a time. Returns how
/// many were no objects.
pub(crate) async fn read(
    path: &Path,
    is_wanted: impl Fn(&Value) -> bool,
    taker: Sender<Vec<Value>>,
) -> Result<u64, String> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut some = Vec::new();
    let mut skipped = 0;
    // Whether what is read now is the rest of a line that was too long.
    let mut within = false;
    loop {
        line.clear();
        let limit = LINE_BYTES_MAX as u64;
        let read = (&mut reader).take(limit).read_until(b'\n', &mut line).await;
        if read.map_err(|error| error.to_string())? == 0 {
            break;
        }
        let is_whole = line.ends_with(b"\n") || line.len() < LINE_BYTES_MAX;
        let is_rest = std::mem::replace(&mut within, !is_whole);
        match serde_json::from_slice(&line) {
            _ if is_rest || line.trim_ascii().is_empty() => {}
            Ok(value @ Value::Object(_)) if is_whole => some.extend(Some(value).filter(&is_wanted)),
            _ => skipped += 1,
        }
        if some.len() == ROWS_AT_ONCE {
            hand_over(&taker, &mut some).await?;
        }
    }
    hand_over(&taker, &mut some).await?;
    Ok(skipped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn lines_that_are_no_objects_are_counted_and_too_long_ones_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        std::fs::write(
            &path,
            format!("{{\"a\":1}}\nplain\n\n{long}\n[1]\n{{\"a\":3}}\n{{\"a\":2}}"),
        )
        .unwrap();
        let (taker, mut taken) = tokio::sync::mpsc::channel(1);
        let is_wanted = |row: &Value| row["a"] != 3;
        assert_eq!(read(&path, is_wanted, taker.clone()).await, Ok(3));
        let rows = [json!({"a": 1}), json!({"a": 2})];
        assert_eq!(taken.recv().await.unwrap(), rows);
        let nowhere = folder.path().join("b.log");
        assert!(read(&nowhere, is_wanted, taker).await.is_err());
    }
}
