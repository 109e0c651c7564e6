//! The JSON Schema of definition files.

use std::sync::LazyLock;

use serde_json::Value;

use super::canonical::canonical_json;
use super::document::Document;

/// The JSON Schema of definition files, for editors; `sagas/saga.schema.json` is this, pretty-printed.
#[must_use]
pub fn json_schema() -> &'static Value {
    // through canonical JSON, so that the fields are sorted whatever the build makes of objects
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let sorted = canonical_json(&schemars::schema_for!(Document));
        serde_json::from_str(&sorted).expect("canonical JSON is JSON")
    });
    &SCHEMA
}
