//! `ports: [http, admin]` or `ports: { http: auto, mgmt: 15672 }`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::text::{Scalar, Spanned, Text};

/// The ports of a service with what they are pinned to.
#[derive(Clone, Debug, Default)]
pub struct Ports(pub Vec<(Text, Option<Spanned<Scalar>>)>);

impl Ports {
    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter().map(|(name, _)| name.value.as_str())
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PortsVisitor;

        impl<'de> Visitor<'de> for PortsVisitor {
            type Value = Ports;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names, or a mapping of names to `auto` or a number")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ports, A::Error> {
                let mut ports = Vec::new();
                while let Some(name) = seq.next_element()? {
                    ports.push((name, None));
                }
                Ok(Ports(ports))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ports, A::Error> {
                let mut ports = Vec::new();
                while let Some((name, pin)) = map.next_entry()? {
                    ports.push((name, Some(pin)));
                }
                Ok(Ports(ports))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Ports, E> {
                Ok(Ports::default())
            }
        }

        deserializer.deserialize_any(PortsVisitor)
    }
}

impl JsonSchema for Ports {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ports".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "array", "items": { "type": "string" } },
                {
                    "type": "object",
                    "additionalProperties": {
                        "anyOf": [
                            { "const": "auto" },
                            { "type": "integer", "minimum": 1, "maximum": 65535 }
                        ]
                    }
                }
            ]
        })
    }
}
