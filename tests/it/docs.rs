//! What `docs/` says is there is there, all of it, and its files are sound.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use chaos_harness::plan::{self, BuildOptions};
use chaos_harness::scenario::{self, LoadOptions};
use serde_json::Value;

fn page(name: &str) -> String {
    let path = Path::new("docs").join(name);
    fs::read_to_string(path).expect("a committed page")
}

/// A closed set of the scenario schema: the words that choose, each with its keys.
fn words_of(set: &str) -> Vec<(String, Vec<String>)> {
    let schema = fs::read("schema/scenario.schema.json").expect("a committed schema");
    let schema: Value = serde_json::from_slice(&schema).expect("JSON");
    let choices = schema["$defs"][set]["oneOf"].as_array().expect("choices");
    let word = |choice: &Value| match choice["const"].as_str() {
        Some(word) => Some((word.to_owned(), Vec::new())),
        None => {
            let (word, kind) = choice["properties"].as_object()?.iter().next()?;
            Some((word.clone(), keys_of(&schema, kind)))
        }
    };
    choices.iter().filter_map(word).collect()
}

fn keys_of(schema: &Value, kind: &Value) -> Vec<String> {
    let long_form = kind["anyOf"].as_array().into_iter().flatten();
    let mut references = std::iter::once(kind).chain(long_form);
    let name = references.find_map(|it| it["$ref"].as_str()?.strip_prefix("#/$defs/"));
    let keys = name.and_then(|name| schema["$defs"][name]["properties"].as_object());
    keys.map_or(Vec::new(), |keys| keys.keys().cloned().collect())
}

/// Everything between characters that no key holds.
fn words_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .collect()
}

#[test]
fn every_property_is_explained_with_every_key() {
    let page = page("properties.md");
    let sections: Vec<(&str, &str)> = page
        .split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .collect();
    let everywhere = words_in(page.split("\n## ").next().expect("an introduction"));
    let known = words_of("ExpectFile");
    for (word, keys) in &known {
        let section = sections.iter().find(|(title, _)| title == word);
        let (_, text) = section.unwrap_or_else(|| panic!("no section on `{word}`"));
        let told = words_in(text);
        for key in keys {
            let is_told = told.contains(key.as_str()) || everywhere.contains(key.as_str());
            assert!(is_told, "`{word}` does not explain `{key}`");
        }
    }
    for (title, _) in sections {
        assert!(known.iter().any(|it| it.0 == title), "no such: {title}");
    }
}

#[test]
fn every_fault_is_explained_with_every_key() {
    let page = page("faults.md");
    let rows: Vec<&str> = page.lines().filter(|it| it.starts_with("| `")).collect();
    let rows: Vec<&str> = rows
        .into_iter()
        .filter(|it| !it.contains("| what"))
        .collect();
    let known = words_of("InjectFile");
    for (word, keys) in &known {
        let is_about = |row: &&&str| {
            let cell = row[3..].split(['`', ':']).next();
            cell == Some(word.as_str())
        };
        let row = rows.iter().find(is_about);
        let told = words_in(row.unwrap_or_else(|| panic!("no row on `{word}`")));
        for key in keys {
            assert!(
                told.contains(key.as_str()),
                "`{word}` does not explain `{key}`"
            );
        }
    }
    assert_eq!(rows.len(), known.len(), "a row for each fault and no other");
}

/// Blocks that begin with ```` ```yaml file=NAME ````.
fn files_of(page: &str) -> Vec<(&str, &str)> {
    let blocks = page.split("```yaml file=").skip(1);
    blocks
        .filter_map(|block| block.split("\n```").next()?.split_once('\n'))
        .collect()
}

#[test]
fn files_of_the_guide_make_a_sound_plan() {
    let page = page("your-own-system.md");
    let folder = tempfile::tempdir().expect("a folder");
    let files = files_of(&page);
    for (name, text) in &files {
        fs::write(folder.path().join(name), text).expect("written");
    }
    let scenarios: Vec<&str> = files
        .iter()
        .filter(|(_, text)| text.contains("\nexpect:"))
        .map(|it| it.0)
        .collect();
    assert_eq!((files.len(), scenarios.len()), (2, 1));
    for name in scenarios {
        let loaded = scenario::load(&folder.path().join(name), &LoadOptions::default());
        let planned = loaded.and_then(|loaded| plan::build(&loaded, &BuildOptions::default()));
        if let Err(mistakes) = planned {
            panic!("{}", mistakes.render(false));
        }
    }
}
