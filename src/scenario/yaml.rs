//! YAML text to a tree of nodes with their places. The only file that knows the YAML library.
//!
//! The tree keeps the order of keys and where everything stands; duplicate keys, a second document
//! and anything beyond the budget are refused here. What the nodes mean is `typed.rs`'s business.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::diagnostic::{Diagnostic, Span, shape};

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The value.
    pub value: Value,
    /// Where it starts; scalars have an extent, mappings and lists only a beginning.
    pub span: Span,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, with the text that it was written as.
    Number(serde_json::Number, String),
    /// Any other scalar.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping with its place.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The key.
    pub name: String,
    /// Where it stands.
    pub span: Span,
}

/// Nodes of a file, counted with what aliases repeat.
const NODES_MAX: usize = 10_000;
const ALIASES_MAX: usize = 16;
const DEPTH_MAX: usize = 32;

/// Reads one document. `file` is the number of the text among the sources.
///
/// # Errors
///
/// One diagnostic about syntax, a duplicate key or the budget.
pub(super) fn parse(text: &str, file: u32) -> Result<Node, Box<Diagnostic>> {
    let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options())
        .map_err(|error| Box::new(diagnose(&error, text, file)))?;
    Ok(convert(raw, text, file))
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_depth: DEPTH_MAX,
            max_documents: 1,
            max_events: 4 * NODES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES_MAX,
            max_replay_stack_depth: DEPTH_MAX,
        },
        strict_booleans: true,
        with_snippet: false,
    }
}

fn diagnose(error: &serde_saphyr::Error, text: &str, file: u32) -> Diagnostic {
    use serde_saphyr::Error as E;
    let error = error.without_snippet();
    let span = error
        .location()
        .map_or_else(|| start_of(file), |at| span_of(at, text, file));
    match error {
        E::DuplicateMappingKey { key, .. } => {
            shape::duplicate_key(span, key.as_deref().unwrap_or("this key"))
        }
        E::Budget { .. }
        | E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. }
        | E::AliasReplayCounterOverflow { .. }
        | E::MultipleDocuments { .. } => shape::over_budget(span, &sentence(error)),
        _ => match sentence(error) {
            // The scanner's own limit, which the library hands on as text only.
            why if why == TOO_DEEP => shape::over_budget(span, &why),
            why => shape::syntax(span, &why),
        },
    }
}

/// What the scanner says of lists in lists in lists.
const TOO_DEEP: &str = "recursion limit exceeded";

/// The library's own words, without the place that stands beside them anyway.
fn sentence(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.split(" at line ").next().unwrap_or(line);
    line.trim_end_matches(['.', ' ', ':']).to_owned()
}

fn start_of(file: u32) -> Span {
    Span {
        file,
        line: 1,
        column: 1,
        start: 0,
        end: 0,
    }
}

fn span_of(at: serde_saphyr::Location, text: &str, file: u32) -> Span {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    // The scanner's own errors tell line and column only.
    let start = at
        .span()
        .byte_offset()
        .unwrap_or_else(|| offset_of(text, at.line(), at.column()))
        .min(length);
    let end = (start + at.span().byte_len().unwrap_or_default()).min(length);
    Span {
        file,
        line: narrow(at.line()),
        column: narrow(at.column()),
        start: narrow(start),
        end: narrow(end),
    }
}

/// The byte at a line and a column, both from 1; the end of the text when it has no such line.
fn offset_of(text: &str, line: u64, column: u64) -> u64 {
    let skipped = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let before: usize = text.split_inclusive('\n').take(skipped).map(str::len).sum();
    let columns = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let rest = text[before..].lines().next().unwrap_or_default();
    let within: usize = rest.chars().take(columns).map(char::len_utf8).sum();
    u64::try_from(before + within).unwrap_or(u64::MAX)
}

/// A value as the library hands it over.
enum Raw {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        let number = serde_json::Number::from_f64(value);
        Ok(number.map_or_else(|| Raw::Text(value.to_string()), Raw::Number))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = access.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

fn convert(raw: Spanned<Raw>, text: &str, file: u32) -> Node {
    let span = span_of(raw.referenced, text, file);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Number(number) => {
            let spelled = text.get(span.bytes()).unwrap_or_default().trim();
            Value::Number(number, spelled.to_owned())
        }
        Raw::Text(text) => Value::Text(text),
        Raw::List(list) => Value::List(
            list.into_iter()
                .map(|item| convert(item, text, file))
                .collect(),
        ),
        Raw::Map(map) => Value::Map(
            map.into_iter()
                .map(|(key, value)| {
                    let key = Key {
                        span: span_of(key.referenced, text, file),
                        name: key.value,
                    };
                    (key, convert(value, text, file))
                })
                .collect(),
        ),
    };
    Node { value, span }
}
