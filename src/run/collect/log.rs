//! Evidence from a service's log: its JSON lines.

use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Longest line that is read as JSON; longer ones are skipped and counted.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Reads a log; each line that is a JSON object goes to `row`. Returns the lines that were not.
pub(crate) async fn read(
    path: &Path,
    mut row: impl FnMut(Value) -> Result<(), String>,
) -> Result<u64, String> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| format!("its log cannot be read: {error}"))?;
    let mut lines = BufReader::new(file).split(b'\n');
    let mut skipped = 0;
    while let Some(line) = lines
        .next_segment()
        .await
        .map_err(|error| error.to_string())?
    {
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(value @ Value::Object(_)) if line.len() <= LINE_BYTES_MAX => row(value)?,
            _ => skipped += 1,
        }
    }
    Ok(skipped)
}
