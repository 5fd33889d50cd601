//! Templates of a journey, filled in for one ticket.
//!
//! Compiled once per worker, rendered per request. It binds what it is given and draws nothing.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::plan::{Symbol, Template};

/// A substitution that nothing binds: its spelling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing binds `$({0})`")]
pub struct Unbound(pub String);

/// Where symbols get their values from.
pub trait Bind {
    /// The value of a symbol; none when this journey has none.
    fn value(&self, symbol: &Symbol) -> Option<Value>;
}

impl Bind for BTreeMap<String, Value> {
    /// By the symbol's spelling: `run:id`, `order`.
    fn value(&self, symbol: &Symbol) -> Option<Value> {
        self.get(&symbol.to_string()).cloned()
    }
}

/// Renders a template as text.
///
/// # Errors
///
/// The first symbol that nothing binds.
pub fn text(template: &Template, bind: &impl Bind) -> Result<String, Unbound> {
    template.render(|symbol| Ok(plain(&bound(symbol, bind)?)))
}

/// Renders path and query. What a substitution brings is percent-encoded where it could not stand
/// in a URI at all; separators are left to the user.
///
/// # Errors
///
/// The first symbol that nothing binds.
pub fn path(template: &Template, bind: &impl Bind) -> Result<String, Unbound> {
    template.render(|symbol| Ok(encoded(&plain(&bound(symbol, bind)?))))
}

fn bound(symbol: &Symbol, bind: &impl Bind) -> Result<Value, Unbound> {
    bind.value(symbol)
        .ok_or_else(|| Unbound(symbol.to_string()))
}

/// A value inside text: strings without quotes, the rest as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            0..=b' '
            | 127..
            | b'"'
            | b'#'
            | b'<'
            | b'>'
            | b'\\'
            | b'^'
            | b'`'
            | b'{'
            | b'|'
            | b'}' => {
                out.push_str(&format!("%{byte:02X}"));
            }
            _ => out.push(char::from(byte)),
        }
    }
    out
}

/// A JSON body with its substitutions.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonTemplate {
    /// Nothing to fill in.
    Constant(Value),
    /// A string with substitutions in it.
    Text(Template),
    /// A string that is one substitution alone: the value keeps its type.
    Single(Symbol),
    /// An array with substitutions in it.
    Array(Vec<JsonTemplate>),
    /// An object with substitutions in its values.
    Object(Vec<(String, JsonTemplate)>),
}

impl JsonTemplate {
    /// Reads the strings of a body as templates; the error is a phrase about the first bad one.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let parsed = match value {
            Value::String(text) => {
                let template = Template::parse(text)?;
                match template.single_symbol() {
                    Some(symbol) => return Ok(Self::Single(symbol.clone())),
                    None if template.symbols().next().is_some() => return Ok(Self::Text(template)),
                    // Through the template all the same: it may hold an escape.
                    None => {
                        let literal = template.render(|_| Err(String::new()))?;
                        return Ok(Self::Constant(Value::String(literal)));
                    }
                }
            }
            Value::Array(items) => {
                Self::Array(items.iter().map(Self::parse).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), Self::parse(value)?)))
                    .collect::<Result<_, String>>()?,
            ),
            other => Self::Constant(other.clone()),
        };
        Ok(parsed)
    }

    /// The body for one ticket.
    ///
    /// # Errors
    ///
    /// The first symbol that nothing binds.
    pub fn render(&self, bind: &impl Bind) -> Result<Value, Unbound> {
        Ok(match self {
            Self::Constant(value) => value.clone(),
            Self::Text(template) => Value::String(text(template, bind)?),
            Self::Single(symbol) => bound(symbol, bind)?,
            Self::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| item.render(bind))
                    .collect::<Result<_, _>>()?,
            ),
            Self::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(name, item)| Ok((name.clone(), item.render(bind)?)))
                    .collect::<Result<Map<_, _>, _>>()?,
            ),
        })
    }

    /// The symbols it needs, in order of appearance.
    pub fn symbols(&self) -> Vec<&Symbol> {
        match self {
            Self::Constant(_) => Vec::new(),
            Self::Text(template) => template.symbols().collect(),
            Self::Single(symbol) => vec![symbol],
            Self::Array(items) => items.iter().flat_map(Self::symbols).collect(),
            Self::Object(fields) => fields.iter().flat_map(|(_, item)| item.symbols()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_substitution_alone_keeps_its_type() {
        let body = json!({"n": "$(n)", "text": "n=$(n)", "list": ["$(n)", "$$(n)", 1]});
        let bind = BTreeMap::from([("n".to_owned(), json!(5))]);
        let rendered = JsonTemplate::parse(&body).unwrap().render(&bind).unwrap();
        assert_eq!(
            rendered,
            json!({"n": 5, "text": "n=5", "list": [5, "$(n)", 1]})
        );
    }

    #[test]
    fn an_unbound_symbol_is_named() {
        let body = JsonTemplate::parse(&json!({"order": "$(order)"})).unwrap();
        let nothing = BTreeMap::<String, Value>::new();
        assert_eq!(body.render(&nothing), Err(Unbound("order".into())));
        assert_eq!(body.symbols(), [&Symbol::Captured("order".into())]);
    }

    #[test]
    fn what_cannot_stand_in_a_path_is_encoded() {
        let bind = BTreeMap::from([("id".to_owned(), json!("a b/ü?x=1"))]);
        let template = Template::parse("/orders/$(id)").unwrap();
        assert_eq!(path(&template, &bind).unwrap(), "/orders/a%20b/%C3%BC?x=1");
    }
}
