//! Where each key of a pipeline file belongs, by the schema.

use serde_json::Value;

use crate::config::schema::schema;

/// Sections whose names do not say how they are called.
const NAMES: &[(&str, &str)] = &[
    ("TransformSection", "a transform"),
    ("InputSection", "an input"),
    ("OutputSection", "an output"),
    ("StoreSection", "a store"),
    ("RetrySection", "`retry` of a transform"),
    ("DeadLetterSection", "`on_error` of a transform"),
    ("ReadOnlySection", "`control.read_only`"),
    ("TlsSection", "`control.tls`"),
];

/// Every place where `key` may stand, by the names of these places.
pub(crate) fn homes(key: &str) -> Vec<String> {
    let schema = schema();
    let has = |section: &Value| section["properties"].get(key).is_some();
    let sections = schema["$defs"].as_object().into_iter().flatten();
    let mut homes: Vec<_> =
        sections.filter(|(_, section)| has(section)).map(|(name, _)| place(name)).collect();
    if has(&schema) {
        homes.insert(0, "the top of the file".to_owned());
    }
    homes
}

/// The one place where `key` may stand, unless it is the top of the file or there are several.
pub(crate) fn home(key: &str) -> Option<String> {
    match homes(key).as_slice() {
        [home] if home != "the top of the file" => Some(home.clone()),
        _ => None,
    }
}

/// What the place of a section's keys is called.
pub(crate) fn place(section: &str) -> String {
    let name = NAMES.iter().find(|(known, _)| *known == section);
    let own = || format!("`{}`", section.trim_end_matches("Section").to_lowercase());
    name.map_or_else(own, |(_, name)| (*name).to_owned())
}
