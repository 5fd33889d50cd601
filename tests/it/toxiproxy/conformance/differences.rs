//! `docs/toxiproxy.md` names every difference from the original and the test that shows it, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::transcript;

/// A row of the table: its name, and the file and function of its test.
struct Row {
    name: String,
    file: String,
    test: Option<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of the table of differences: `` | `name` | Toxiproxy | chaos proxy | `file` `test` | ``.
fn rows() -> Vec<Row> {
    let page = fs::read_to_string(root().join("docs/toxiproxy.md")).unwrap();
    let table = page.lines().filter(|line| line.starts_with("| `"));
    table
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, name, toxiproxy, chaos, test, _] = cells[..] else {
                panic!("not four cells: {line}");
            };
            assert!(!toxiproxy.is_empty() && !chaos.is_empty(), "{line}");
            let mut quoted = test.split('`').skip(1).step_by(2).map(str::to_owned);
            Row {
                name: name.trim_matches('`').to_owned(),
                file: quoted.next().expect("a file"),
                test: quoted.next(),
            }
        })
        .collect()
}

#[test]
fn every_difference_in_the_documentation_has_its_test() {
    let rows = rows();
    assert!(rows.len() > 20);
    for Row { name, file, test } in rows {
        let text = fs::read_to_string(root().join(&file))
            .unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
        match test {
            Some(test) => assert!(
                text.contains(&format!("fn {test}(")),
                "{name}: no `{test}` in {file}"
            ),
            None => assert!(
                transcript::differences(&text).any(|shown| shown == name),
                "{name}: not shown by {file}"
            ),
        }
    }
}

#[test]
fn every_difference_in_the_tests_is_in_the_documentation() {
    let documented: BTreeSet<String> = rows().into_iter().map(|row| row.name).collect();
    let mut shown: BTreeSet<String> = [
        transcript::ROUTES,
        transcript::DECODING,
        transcript::PROXIES,
        transcript::TOXICS,
    ]
    .into_iter()
    .flat_map(transcript::differences)
    .map(str::to_owned)
    .collect();
    for file in ["connections.rs", "process.rs", "timing.rs"] {
        let path = Path::new("tests/it/toxiproxy/conformance").join(file);
        let text = fs::read_to_string(root().join(path)).unwrap();
        let named = text.split("differs(\"").skip(1);
        shown.extend(named.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    let missing: Vec<&String> = shown.difference(&documented).collect();
    assert!(missing.is_empty(), "not documented: {missing:?}");
}
