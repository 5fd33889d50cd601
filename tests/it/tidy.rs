//! What reviewers would otherwise have to look for: layers, sizes, places.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module → what it may import of this crate. Anything else is an error: an edge that is needed is
/// added here, in a change that says why.
const LAYERS: &[(&str, &[&str])] = &[
    ("terminal", &[]),
    ("exit", &[]),
    ("bell", &[]),
    ("toxiproxy", &["bell"]),
    ("keeper", &[]),
    ("diagnostic", &["terminal"]),
    ("scenario", &["diagnostic"]),
    ("plan", &["scenario", "diagnostic"]),
    ("evidence", &["plan"]),
    ("load", &["plan", "evidence", "bell"]),
    ("run", &["plan", "evidence", "load", "toxiproxy", "keeper"]),
    ("verdict", &["plan", "evidence"]),
    ("report", &["plan", "evidence", "verdict"]),
    ("display", &["plan", "evidence", "verdict", "terminal"]),
];

/// `scenario` reads quantities and paths with the parsers that `plan` writes them with.
const VOCABULARY: &[(&str, &str)] = &[("scenario", "plan")];

/// Code lines (no blank lines, no comments, no tests) above which a file does more than one thing.
const CODE_LINES_MAX: usize = 600;

#[test]
fn modules_import_only_what_the_layer_table_allows() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let module = module_of(&file);
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            assert!(
                matches!(module.as_str(), "cli" | "main" | "lib"),
                "`{module}` is in no layer"
            );
            continue;
        };
        for import in imports(&read(&file)) {
            let fine = import == module
                || allowed.contains(&import.as_str())
                || VOCABULARY.contains(&(module.as_str(), import.as_str()));
            if !fine {
                wrong.push(format!("{}: imports `{import}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_one_file_names_the_sample() {
    let naming: Vec<PathBuf> = rust_files("src")
        .into_iter()
        .filter(|file| read(file).contains("sample_system"))
        .collect();
    assert_eq!(naming, [PathBuf::from("src/cli/sample.rs")]);
}

#[test]
fn goose_is_named_by_the_load_alone() {
    for file in rust_files("src") {
        let names_goose = code(&read(&file)).any(|line| line.contains("goose::"));
        assert!(
            !names_goose || module_of(&file) == "load",
            "{}",
            file.display()
        );
    }
}

#[test]
fn typed_files_keep_their_places() {
    for file in rust_files("src/scenario") {
        let text = read(&file);
        for lost in ["serde(flatten", "serde(untagged", "flatten)]", "untagged)]"] {
            assert!(
                !text.contains(lost),
                "{}: `{lost}` loses locations",
                file.display()
            );
        }
    }
}

#[test]
fn files_do_one_thing() {
    let sizes = rust_files("src")
        .into_iter()
        .chain(rust_files("sample-system/src"));
    let large: Vec<String> = sizes
        .map(|file| (code(&read(&file)).count(), file))
        .filter(|(lines, _)| *lines > CODE_LINES_MAX)
        .map(|(lines, file)| format!("{}: {lines} code lines", file.display()))
        .collect();
    assert!(large.is_empty(), "{}", large.join("\n"));
}

#[test]
fn nothing_that_is_named_is_left_undone() {
    for file in rust_files("src")
        .into_iter()
        .chain(rust_files("sample-system/src"))
    {
        for line in code(&read(&file)) {
            for mark in ["todo!(", "unimplemented!(", "TODO", "FIXME"] {
                assert!(!line.contains(mark), "{}: {line}", file.display());
            }
        }
    }
}

#[test]
fn main_is_short_enough_to_be_read() {
    assert!(read(Path::new("src/main.rs")).lines().count() <= 60);
    assert!(read(Path::new("ARCHITECTURE.md")).lines().count() <= 150);
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of this package") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path);
            }
        }
    }
    assert!(!found.is_empty(), "no Rust files in `{folder}`");
    found.into_iter().collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("readable")
}

/// `src/run/mod.rs` → `run`, `src/exit.rs` → `exit`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix("src").expect("below src");
    let first = inside.components().next().expect("a file");
    first
        .as_os_str()
        .to_string_lossy()
        .trim_end_matches(".rs")
        .to_owned()
}

/// Lines of code: no comments, no blank lines, nothing from the first `#[cfg(test)]` on.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .take_while(|line| *line != "#[cfg(test)]")
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
}

/// First segments of every `crate::` path; several of one `use crate::{…}` too.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let code: String = code(text).collect::<Vec<_>>().join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let group = &group[..group.find("};").unwrap_or(group.len())];
            let mut depth = 0;
            for item in group.split_inclusive([',', '{', '}']) {
                if depth == 0 {
                    found.extend(first_segment(item.trim()));
                }
                depth += item.matches('{').count();
                depth -= item.matches('}').count().min(depth);
            }
        } else {
            found.extend(first_segment(rest));
        }
    }
    found
}

fn first_segment(path: &str) -> Option<String> {
    let name: String = path
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}
