//! The JSON Schema of the pipeline file.

use crate::config::file::File;

/// The JSON Schema of the pipeline file, made from the types that read it.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(File);
    schema.insert("title".into(), "Sidestream pipeline".into());
    schema.to_value()
}
