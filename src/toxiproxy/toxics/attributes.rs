//! The attributes of a toxic: a few whole numbers, always all of them, zero unless set.

use serde_json::{Map, Value};

use super::Kind;

/// Values of the attributes of one type, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    names: &'static [&'static str],
    values: Vec<i64>,
}

impl Attributes {
    /// All zero.
    pub(crate) fn new(kind: &Kind) -> Self {
        Self {
            names: kind.attributes,
            values: vec![0; kind.attributes.len()],
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

    /// Sets what `given` names, in its order, case-insensitively; unknown names and `null` are skipped.
    /// Stops at the first value of a wrong type, with what came before it kept: so does Toxiproxy.
    pub(crate) fn merge(&mut self, given: &Map<String, Value>) -> Result<(), String> {
        for (name, value) in given {
            let place = self
                .names
                .iter()
                .position(|known| known.eq_ignore_ascii_case(name));
            let Some(slot) = place.and_then(|place| self.values.get_mut(place)) else {
                continue;
            };
            match value {
                Value::Null => {}
                value => {
                    *slot = value.as_i64().ok_or_else(|| {
                        format!("json: cannot unmarshal `{value}` into `{name}` of type int64")
                    })?;
                }
            }
        }
        Ok(())
    }

    /// As JSON, every attribute of the type.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let pairs = self.names.iter().zip(&self.values);
        pairs
            .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
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
}
