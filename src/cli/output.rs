//! What a command was asked for: on standard output, or in a file of the user's.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;

use super::Failure;

/// Writes the result of a command to standard output.
///
/// # Errors
///
/// When standard output takes no more, unless its reader has seen enough (`chaos plan … | head`).
pub(super) fn print(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written
            .context("cannot write to standard output")
            .map_err(Failure::not_carried_out),
    }
}

/// Writes a whole file at once, or standard output for `-`.
///
/// # Errors
///
/// When it cannot be written; a file that was there before is then unharmed.
pub(super) fn write_to(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if path == Path::new("-") || path == Path::new("/dev/stdout") {
        return print(bytes);
    }
    let written = match path.symlink_metadata() {
        // A pipe, a device or a link is written to, never replaced.
        Ok(found) if !found.is_file() => std::fs::write(path, bytes),
        _ => replace(path, bytes),
    };
    written
        .with_context(|| format!("cannot write `{}`", path.display()))
        .map_err(Failure::not_carried_out)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let half = path.with_file_name(format!(".{name}.{:08x}", rand::random::<u32>()));
    let written = std::fs::write(&half, bytes).and_then(|()| std::fs::rename(&half, path));
    if written.is_err() {
        // The half file is of no use to anybody; the first error is the one to tell.
        let _ = std::fs::remove_file(&half);
    }
    written
}
