//! The last lines of a log, for messages about whoever wrote it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Lines that are shown.
const LINES: usize = 10;
/// How far back they are looked for.
const BYTES: u64 = 16 << 10;
/// Longest line shown, in characters.
const LINE_CHARS: usize = 300;

/// The last lines of a file; none when it cannot be read.
pub(crate) fn log_tail(path: &Path) -> Vec<String> {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let first = lines.len().saturating_sub(LINES);
    lines[first..]
        .iter()
        .map(|line| line.chars().take(LINE_CHARS).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_shown_and_a_missing_log_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let lines: Vec<String> = (0..50).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, lines.concat()).unwrap();
        let tail = log_tail(&path);
        assert_eq!((tail.len(), tail[9].as_str()), (LINES, "line 49"));
        assert!(log_tail(&folder.path().join("b.log")).is_empty());
    }
}
