//! `--set path=value`: one value of the scenario replaced before anything is typed, so that a
//! changed value is checked like a written one.

use super::yaml::{self, Key, Node, Value};
use crate::diagnostic::{Diagnostic, Span, shape, suggestion};

/// Replaces the value at a dotted path (`phases.baseline`, `faults.psp-silent.for`). The last key
/// may be new; everything before it must exist. `file` is the number of the assignment's text.
///
/// # Errors
///
/// No `=`, a value that is no YAML, or a path that the scenario does not have.
pub(super) fn apply(tree: &mut Node, assignment: &str, file: u32) -> Result<(), Box<Diagnostic>> {
    let whole = span(file, 0, assignment.len());
    let Some((path, value)) = assignment.split_once('=') else {
        let nearest = nearest(tree, assignment);
        return Err(Box::new(
            shape::set_without_value(whole, assignment).maybe_note(nearest),
        ));
    };
    let path_span = span(file, 0, path.len());
    let keys: Vec<&str> = path.split('.').map(str::trim).collect();
    let (last, parents) = keys.split_last().unwrap_or((&"", &[]));
    if keys.contains(&"") {
        return Err(Box::new(shape::set_without_path(whole, path)));
    }
    let mut node = tree;
    for key in parents {
        node = child(node, key).map_err(|known| unknown(path_span, path, key, &known))?;
    }
    if value.trim().is_empty() {
        // A key that does not exist is the first thing to know about.
        child(node, last).map_err(|known| unknown(path_span, path, last, &known))?;
        return Err(Box::new(shape::set_without_value(whole, path)));
    }
    let value = parse_value(assignment, path.len() + 1, file)?;
    match &mut node.value {
        Value::Map(entries) => {
            match entries.iter_mut().find(|(key, _)| key.name == *last) {
                Some((_, node)) => *node = value,
                None => {
                    let name = (*last).to_owned();
                    let span = path_span;
                    entries.push((Key { name, span }, value));
                }
            }
            Ok(())
        }
        Value::List(_) => {
            *child(node, last).map_err(|known| unknown(path_span, path, last, &known))? = value;
            Ok(())
        }
        _ => Err(unknown(path_span, path, last, &[] as &[&str])),
    }
}

/// The value behind `=`, with places in the assignment: what stands before it is blanked out.
fn parse_value(assignment: &str, start: usize, file: u32) -> Result<Node, Box<Diagnostic>> {
    let blanked: String = assignment[..start]
        .chars()
        .flat_map(|c| std::iter::repeat_n(' ', c.len_utf8()))
        .collect();
    yaml::parse(&(blanked + &assignment[start..]), file)
}

fn child<'n>(node: &'n mut Node, key: &str) -> Result<&'n mut Node, Vec<String>> {
    match &mut node.value {
        Value::Map(entries) => {
            let known = entries.iter().map(|(key, _)| key.name.clone()).collect();
            let found = entries.iter_mut().find(|(known, _)| known.name == key);
            found.map(|(_, node)| node).ok_or(known)
        }
        Value::List(items) => {
            let known = (0..items.len()).map(|index| index.to_string()).collect();
            let index = key.parse::<usize>().ok();
            index.and_then(|index| items.get_mut(index)).ok_or(known)
        }
        _ => Err(Vec::new()),
    }
}

/// Which key of a path does not exist, and what does.
fn nearest(tree: &mut Node, path: &str) -> Option<String> {
    let mut node = tree;
    for key in path.split('.').map(str::trim) {
        match child(node, key) {
            Ok(inner) => node = inner,
            Err(known) => {
                let there = suggestion(key, known.iter().map(String::as_str))?;
                return Some(format!("nothing is called `{key}`; {there}"));
            }
        }
    }
    None
}

fn unknown(span: Span, path: &str, key: &str, known: &[impl AsRef<str>]) -> Box<Diagnostic> {
    let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
    Box::new(shape::set_unknown_path(span, path, key, &known))
}

fn span(file: u32, start: usize, end: usize) -> Span {
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Span {
        file,
        line: 1,
        column: narrow(start + 1),
        start: narrow(start),
        end: narrow(end),
    }
}
