//! A JSON value written as YAML: bodies, feed rows, values to wait for.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// Any value.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Json(pub serde_json::Value);

impl JsonSchema for Json {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "any".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!(true)
    }
}
