//! The JSON Schemas of the two files, made from the types that read them, so that editors know every
//! key, its meaning and its values. `schema/` holds what this writes; a test compares the two.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use super::{ScenarioFile, SystemFile};

/// File name and text of each schema.
#[must_use]
pub fn schemas() -> Vec<(&'static str, String)> {
    vec![
        ("scenario.schema.json", text(&schema_of::<ScenarioFile>())),
        ("system.schema.json", text(&schema_of::<SystemFile>())),
    ]
}

fn schema_of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>()
}

fn text(schema: &Schema) -> String {
    let text = serde_json::to_string_pretty(schema)
        .expect("a schema is plain JSON: text keys and finite numbers");
    text + "\n"
}
