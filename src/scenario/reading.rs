//! From a path to a text: files are read whole, up to a bound, and whatever keeps one from being
//! read is said together with the way out.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::diagnostic::{Diagnostic, shape, suggestion};

/// Files above this are refused unread: nobody writes them by hand.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads a text file of sensible size. `needs` is what it should be: `a scenario`.
///
/// # Errors
///
/// One diagnostic about the file, without a place.
pub(super) fn read(path: &Path, name: &str, needs: &str) -> Result<String, Box<Diagnostic>> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Box::new(missing(path, name)),
        _ => Box::new(shape::unreadable(name, &error.to_string())),
    };
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_dir() {
        return Err(Box::new(folder(path, name, needs)));
    }
    let too_large = |bytes| Box::new(shape::too_large(name, bytes, FILE_BYTES_MAX));
    if metadata.len() > FILE_BYTES_MAX {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::new();
    let mut bounded = file.take(FILE_BYTES_MAX + 1);
    bounded.read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large(bytes.len() as u64));
    }
    let found = match bytes.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16 text",
        bytes if bytes.contains(&0) => "binary data",
        _ => "bytes that are not UTF-8",
    };
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Box::new(shape::not_text(name, found, needs))),
    }
}

fn missing(path: &Path, name: &str) -> Diagnostic {
    let beside = yaml_files(parent(path));
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    let help = match &beside {
        None => format!("there is no folder `{}` either", parent(path).display()),
        Some(beside) => suggestion(&wanted, beside.iter().map(String::as_str))
            .unwrap_or_else(|| "there is no YAML file in that folder".to_owned()),
    };
    shape::missing_file(name, help)
}

fn folder(path: &Path, name: &str, needs: &str) -> Diagnostic {
    let inside = yaml_files(path).unwrap_or_default();
    let example = inside.first().map(|file| path.join(file));
    let example = example.map(|file| file.display().to_string());
    shape::is_folder(name, needs, example.as_deref())
}

/// The names of the YAML files in a folder; none when it cannot be read.
fn yaml_files(folder: &Path) -> Option<Vec<String>> {
    let entries = folder.read_dir().ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| name.ends_with(".yaml") || name.ends_with(".yml"))
        .collect();
    names.sort();
    Some(names)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
