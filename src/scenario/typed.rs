//! Nodes to typed values: a serde deserializer that knows where everything stands, so that a
//! mistake of shape is a [`Diagnostic`] at its place. It knows nothing of what the types mean.

use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Unexpected, Visitor,
};

use super::yaml::{Key, Node, Value};
use crate::diagnostic::{Diagnostic, Span, shape};

/// Reads a typed value from a tree.
///
/// # Errors
///
/// The first mistake of shape.
pub(super) fn from_node<T: DeserializeOwned>(node: &Node) -> Result<T, Box<Diagnostic>> {
    T::deserialize(Reader::root(node)).map_err(|error| Box::new(error.diagnose(node.span)))
}

/// The name by which `Spanned` asks for its place.
pub(super) const SPANNED: &str = "$spanned";

#[derive(Debug)]
pub(super) struct ShapeError {
    mistake: Mistake,
    span: Option<Span>,
}

#[derive(Debug)]
enum Mistake {
    UnknownKey(String, &'static [&'static str]),
    UnknownWord(String, &'static [&'static str]),
    Missing(&'static str),
    Type { found: String, expected: String },
    NotOne { known: String, given: Vec<String> },
    TakesNoValue(String),
    Other(String),
}

impl ShapeError {
    fn new(mistake: Mistake) -> Self {
        Self {
            mistake,
            span: None,
        }
    }

    /// Places the error unless something deeper has placed it.
    fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }

    fn diagnose(self, fallback: Span) -> Diagnostic {
        let span = self.span.unwrap_or(fallback);
        match self.mistake {
            Mistake::UnknownKey(key, expected) => shape::unknown_key(span, &key, expected),
            Mistake::UnknownWord(word, expected) => shape::unknown_word(span, &word, expected),
            Mistake::Missing(key) => shape::missing_key(span, key),
            Mistake::Type { found, expected } => shape::wrong_type(span, &found, &expected),
            Mistake::NotOne { known, given } => {
                let given: Vec<&str> = given.iter().map(String::as_str).collect();
                shape::not_one(span, &known, &given)
            }
            Mistake::TakesNoValue(word) => shape::takes_no_value(span, &word),
            Mistake::Other(why) => shape::malformed(span, &why),
        }
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.mistake)
    }
}

impl std::error::Error for ShapeError {}

impl de::Error for ShapeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Mistake::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Mistake::Type {
            found: words(&found),
            expected: plain(&expected.to_string()),
        })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Mistake::UnknownKey(field.to_owned(), expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Mistake::UnknownWord(variant.to_owned(), expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Mistake::Missing(field))
    }
}

fn words(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("the number `{value}`"),
        Unexpected::Signed(value) => format!("the number `{value}`"),
        Unexpected::Float(value) => format!("the number `{value}`"),
        Unexpected::Str(text) => format!("the text `{text}`"),
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a mapping".into(),
        other => other.to_string(),
    }
}

/// What the library expects, in words that a reader of YAML knows.
fn plain(expected: &str) -> String {
    let words = match expected {
        "u8" => "a whole number (0 to 255)",
        "u16" => "a whole number (0 to 65535)",
        "u32" => "a whole number (0 to 4294967295)",
        "u64" | "usize" => "a whole number (0 or more)",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a string" => "a text",
        other => other,
    };
    words.to_owned()
}

/// Reads one node. `at` is where mistakes about a whole mapping or list are shown: its key.
#[derive(Clone, Copy)]
struct Reader<'n> {
    node: &'n Node,
    at: Span,
}

impl<'n> Reader<'n> {
    fn root(node: &'n Node) -> Self {
        Self {
            node,
            at: node.span,
        }
    }

    fn under(node: &'n Node, key: &Key) -> Self {
        let at = match node.value {
            Value::List(_) | Value::Map(_) | Value::Null => key.span,
            _ => node.span,
        };
        Self { node, at }
    }

    fn wrong(&self, expected: &str) -> ShapeError {
        let found = match &self.node.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(_, spelled) => Unexpected::Other(spelled),
            Value::Text(text) => Unexpected::Str(text),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        };
        de::Error::invalid_type(found, &expected)
    }

    fn list<V: Visitor<'n>>(self, items: &'n [Node], visitor: V) -> Result<V::Value, ShapeError> {
        visitor.visit_seq(Items {
            rest: items.iter(),
            at: self.at,
        })
    }

    fn map<V: Visitor<'n>>(
        self,
        entries: &'n [(Key, Node)],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        visitor.visit_map(Entries {
            rest: entries.iter(),
            value: None,
        })
    }

    fn any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number, _) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            },
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => self.list(items, visitor),
            Value::Map(entries) => self.map(entries, visitor),
        }
    }
}

/// The name by which `Scalar` asks for the text of any scalar, as it was written.
pub(super) const SCALAR: &str = "$scalar";

impl<'n> Deserializer<'n> for Reader<'n> {
    type Error = ShapeError;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        self.any(visitor).map_err(|error| error.at(self.at))
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|error| error.at(self.at))
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        let result = match &self.node.value {
            _ if name == SPANNED => visitor.visit_seq(Placed {
                reader: self,
                step: 0,
            }),
            Value::Map(entries) => self.map(entries, visitor),
            // `kill` alone is `kill: {}`; what such a mapping needs is then said by its type.
            Value::Null => self.map(&[], visitor),
            _ => Err(self.wrong(&format!("a mapping with {}", quoted(fields)))),
        };
        result.map_err(|error| error.at(self.at))
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        if name != SCALAR {
            return visitor
                .visit_newtype_struct(self)
                .map_err(|error| error.at(self.at));
        }
        match &self.node.value {
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Number(_, spelled) => visitor.visit_borrowed_str(spelled),
            Value::Bool(value) => visitor.visit_string(value.to_string()),
            _ => Err(self.wrong("a single value")),
        }
        .map_err(|error| error.at(self.at))
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        let result = match &self.node.value {
            Value::Text(word) => visitor.visit_enum(Choice {
                word,
                at: self.node.span,
                content: None,
            }),
            Value::Map(entries) => match entries.as_slice() {
                [(key, node)] => visitor.visit_enum(Choice {
                    word: &key.name,
                    at: key.span,
                    content: Some(Reader::under(node, key)),
                }),
                several => Err(ShapeError::new(Mistake::NotOne {
                    known: quoted(variants),
                    given: several.iter().map(|(key, _)| key.name.clone()).collect(),
                })),
            },
            _ => Err(self.wrong(&format!("one of {}", quoted(variants)))),
        };
        result.map_err(|error| error.at(self.at))
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'n>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

fn quoted(names: &[&str]) -> String {
    let shown = names.len().min(8);
    let mut list: Vec<String> = names[..shown]
        .iter()
        .map(|name| format!("`{name}`"))
        .collect();
    if shown < names.len() {
        list.push("…".into());
    }
    list.join(", ")
}

struct Items<'n> {
    rest: std::slice::Iter<'n, Node>,
    at: Span,
}

impl<'n> de::SeqAccess<'n> for Items<'n> {
    type Error = ShapeError;

    fn next_element_seed<T: DeserializeSeed<'n>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ShapeError> {
        let Some(node) = self.rest.next() else {
            return Ok(None);
        };
        let at = match node.span.line {
            0 => self.at,
            _ => node.span,
        };
        seed.deserialize(Reader { node, at }).map(Some)
    }
}

struct Entries<'n> {
    rest: std::slice::Iter<'n, (Key, Node)>,
    value: Option<(&'n Key, &'n Node)>,
}

impl<'n> de::MapAccess<'n> for Entries<'n> {
    type Error = ShapeError;

    fn next_key_seed<K: DeserializeSeed<'n>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ShapeError> {
        let Some((key, node)) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some((key, node));
        seed.deserialize(KeyReader(key))
            .map(Some)
            .map_err(|error| error.at(key.span))
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, ShapeError> {
        let (key, node) = self
            .value
            .take()
            .ok_or_else(|| de::Error::custom("a value was read before its key"))?;
        let reader = Reader::under(node, key);
        seed.deserialize(reader)
            .map_err(|error| error.at(reader.at))
    }
}

#[derive(Clone, Copy)]
struct KeyReader<'n>(&'n Key);

impl<'n> Deserializer<'n> for KeyReader<'n> {
    type Error = ShapeError;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        visitor.visit_borrowed_str(&self.0.name)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        visitor.visit_seq(PlacedKey {
            key: self.0,
            step: 0,
        })
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'n>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any option newtype_struct enum
    }
}

/// Hands `Spanned` its place, then its value.
struct Placed<'n> {
    reader: Reader<'n>,
    step: u8,
}

impl<'n> de::SeqAccess<'n> for Placed<'n> {
    type Error = ShapeError;

    fn next_element_seed<T: DeserializeSeed<'n>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ShapeError> {
        self.step += 1;
        match self.step {
            1 => seed.deserialize(place(self.reader.at)).map(Some),
            2 => seed.deserialize(self.reader).map(Some),
            _ => Ok(None),
        }
    }
}

/// The same for a key.
struct PlacedKey<'n> {
    key: &'n Key,
    step: u8,
}

impl<'n> de::SeqAccess<'n> for PlacedKey<'n> {
    type Error = ShapeError;

    fn next_element_seed<T: DeserializeSeed<'n>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ShapeError> {
        self.step += 1;
        match self.step {
            1 => seed.deserialize(place(self.key.span)).map(Some),
            2 => seed.deserialize(KeyReader(self.key)).map(Some),
            _ => Ok(None),
        }
    }
}

/// A span as the five numbers that `Spanned` reads.
fn place(span: Span) -> de::value::SeqDeserializer<std::array::IntoIter<u32, 5>, ShapeError> {
    let numbers = [span.file, span.line, span.column, span.start, span.end];
    de::value::SeqDeserializer::new(numbers.into_iter())
}

/// An externally tagged choice: a word alone, or one key with its content.
struct Choice<'n> {
    word: &'n str,
    at: Span,
    content: Option<Reader<'n>>,
}

impl<'n> de::EnumAccess<'n> for Choice<'n> {
    type Error = ShapeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'n>>(self, seed: V) -> Result<(V::Value, Self), ShapeError> {
        let word: de::value::StrDeserializer<'_, ShapeError> = self.word.into_deserializer();
        let value = seed.deserialize(word).map_err(|error| error.at(self.at))?;
        Ok((value, self))
    }
}

impl<'n> de::VariantAccess<'n> for Choice<'n> {
    type Error = ShapeError;

    fn unit_variant(self) -> Result<(), ShapeError> {
        match self.content {
            Some(reader) if !matches!(reader.node.value, Value::Null) => {
                let mistake = Mistake::TakesNoValue(self.word.to_owned());
                Err(ShapeError::new(mistake).at(reader.at))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'n>>(self, seed: T) -> Result<T::Value, ShapeError> {
        static NOTHING: Node = Node {
            value: Value::Null,
            span: Span {
                file: 0,
                line: 0,
                column: 0,
                start: 0,
                end: 0,
            },
        };
        let reader = self.content.unwrap_or(Reader {
            node: &NOTHING,
            at: self.at,
        });
        seed.deserialize(reader)
            .map_err(|error| error.at(reader.at))
    }

    fn tuple_variant<V: Visitor<'n>>(self, _: usize, _: V) -> Result<V::Value, ShapeError> {
        Err(de::Error::custom("tuples are not used in these files"))
    }

    fn struct_variant<V: Visitor<'n>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ShapeError> {
        Err(de::Error::custom(
            "struct variants are not used in these files",
        ))
    }
}
