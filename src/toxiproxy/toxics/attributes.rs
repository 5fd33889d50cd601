//! The attributes of a toxic: a few whole numbers, always all of them, zero unless set; and the extras of
//! our own toxics, which have other types and are shown only when they are set.

use serde_json::{Map, Value};

use super::Kind;

/// An attribute that is no whole number.
#[derive(Debug)]
pub(crate) struct Extra {
    /// As clients send it.
    pub(crate) name: &'static str,
    /// What it must be, for the error.
    pub(crate) wants: &'static str,
    /// Whether a value is that.
    pub(crate) fits: fn(&Value) -> bool,
}

impl Extra {
    /// Yes or no.
    pub(crate) const fn flag(name: &'static str) -> Self {
        Self {
            name,
            wants: "bool",
            fits: Value::is_boolean,
        }
    }

    /// Text.
    pub(crate) const fn text(name: &'static str) -> Self {
        Self {
            name,
            wants: "string",
            fits: Value::is_string,
        }
    }

    /// A number from 0 to 1.
    pub(crate) const fn share(name: &'static str) -> Self {
        Self {
            name,
            wants: "number from 0 to 1",
            fits: |value| {
                value
                    .as_f64()
                    .is_some_and(|share| (0.0..=1.0).contains(&share))
            },
        }
    }
}

/// Values of the attributes of one type, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    names: &'static [&'static str],
    values: Vec<i64>,
    known: &'static [Extra],
    extras: Vec<Value>,
}

impl PartialEq for Extra {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Extra {}

impl Attributes {
    /// All zero, and no extras.
    pub(crate) fn new(kind: &Kind) -> Self {
        Self {
            names: kind.attributes,
            values: vec![0; kind.attributes.len()],
            known: kind.extras,
            extras: vec![Value::Null; kind.extras.len()],
        }
    }

    /// The value of an attribute; zero for one that the type does not have.
    pub(crate) fn get(&self, name: &str) -> i64 {
        let place = self.names.iter().position(|known| *known == name);
        place
            .and_then(|place| self.values.get(place))
            .copied()
            .unwrap_or(0)
    }

    /// The value of an extra; `null` while it is not set.
    pub(crate) fn extra(&self, name: &str) -> &Value {
        let place = self.known.iter().position(|extra| extra.name == name);
        place
            .and_then(|place| self.extras.get(place))
            .unwrap_or(&Value::Null)
    }

    /// The value of a share; `otherwise` while it is not set.
    pub(crate) fn share(&self, name: &str, otherwise: f64) -> f64 {
        self.extra(name).as_f64().unwrap_or(otherwise)
    }

    /// Whether a flag is set.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.extra(name).as_bool().unwrap_or(false)
    }

    /// Sets what `given` names, in its order, case-insensitively; unknown names and `null` are skipped.
    /// Stops at the first value of a wrong type, with what came before it kept: so does Toxiproxy.
    pub(crate) fn merge(&mut self, given: &Map<String, Value>) -> Result<(), String> {
        given
            .iter()
            .filter(|(_, value)| !value.is_null())
            .try_for_each(|(name, value)| self.set(name, value))
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let wrong =
            |wants: &str| format!("json: cannot unmarshal `{value}` into `{name}` of type {wants}");
        let mut numbers = self.names.iter().zip(&mut self.values);
        if let Some((_, slot)) = numbers.find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            *slot = value.as_i64().ok_or_else(|| wrong("int64"))?;
        }
        let mut extras = self.known.iter().zip(&mut self.extras);
        if let Some((extra, slot)) = extras.find(|(extra, _)| extra.name.eq_ignore_ascii_case(name))
        {
            if !(extra.fits)(value) {
                return Err(wrong(extra.wants));
            }
            slot.clone_from(value);
        }
        Ok(())
    }

    /// As JSON: every number of the type, and the extras that are set.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let numbers = self.names.iter().zip(&self.values);
        let numbers = numbers.map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
        let extras = self.known.iter().zip(&self.extras);
        let extras = extras.filter(|(_, value)| !value.is_null());
        numbers
            .chain(extras.map(|(extra, value)| (extra.name.to_owned(), value.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind;
    use super::*;

    fn merge(text: &str) -> (Result<(), String>, Attributes) {
        let mut attributes = Attributes::new(kind("latency").unwrap());
        let result = attributes.merge(&serde_json::from_str(text).unwrap());
        (result, attributes)
    }

    #[test]
    fn failing_merge_keeps_what_came_before() {
        let (result, attributes) = merge(r#"{"latency":77,"jitter":"x"}"#);
        assert!(result.is_err());
        assert_eq!(
            (attributes.get("latency"), attributes.get("jitter")),
            (77, 0)
        );
    }

    #[test]
    fn only_json_integers_are_integers() {
        for text in [
            r#"{"latency":1.5}"#,
            r#"{"latency":1e3}"#,
            r#"{"latency":"1"}"#,
        ] {
            assert!(merge(text).0.is_err(), "{text}");
        }
        let (result, attributes) = merge(r#"{"LATENCY":5,"jitter":null,"other":true}"#);
        assert_eq!((result, attributes.get("latency")), (Ok(()), 5));
    }

    #[test]
    fn extras_are_checked_and_shown_only_when_set() {
        let shown = |text: &str| Value::Object(merge(text).1.to_json()).to_string();
        assert_eq!(shown("{}"), r#"{"latency":0,"jitter":0}"#);
        assert_eq!(
            shown(r#"{"distribution":"normal"}"#),
            r#"{"latency":0,"jitter":0,"distribution":"normal"}"#
        );
        for text in [r#"{"distribution":"weird"}"#, r#"{"distribution":1}"#] {
            assert!(merge(text).0.is_err(), "{text}");
        }
    }
}
