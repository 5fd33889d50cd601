//! Evidence from a service's log: its JSON lines.

use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

/// Longest line that is read as JSON; longer ones are skipped and counted.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Reads a log; each line that is a JSON object goes to `row`. Returns the lines that were not.
pub(crate) async fn read(
    path: &Path,
    mut row: impl FnMut(Value) -> Result<(), String>,
) -> Result<u64, String> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
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
            Ok(value @ Value::Object(_)) if is_whole => row(value)?,
            _ => skipped += 1,
        }
    }
    Ok(skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_that_are_no_objects_are_counted_and_too_long_ones_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        std::fs::write(
            &path,
            format!("{{\"a\":1}}\nplain\n\n{long}\n[1]\n{{\"a\":2}}"),
        )
        .unwrap();
        let mut seen = Vec::new();
        let keep = |row| {
            seen.push(row);
            Ok(())
        };
        assert_eq!(read(&path, keep).await, Ok(3));
        assert_eq!(seen.len(), 2);
        assert!(
            read(&folder.path().join("b.log"), |_| Ok(()))
                .await
                .is_err()
        );
    }
}
