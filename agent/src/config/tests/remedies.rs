//! What the agent advises, it takes.

use std::path::{Path, PathBuf};

use super::client_properties::owned;

/// The Rust files of the agent that are no tests.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        match path.is_dir() {
            true if name != "tests" => sources(&path, files),
            false if name.ends_with(".rs") && name != "tests.rs" => files.push(path),
            _ => {}
        }
    }
}

/// The texts in quotes of a source, without its tests.
fn texts(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let source = source.lines().map(|line| match line.trim_start().starts_with("//") {
        true => "",
        false => line,
    });
    let source = source.collect::<Vec<_>>().join("\n").replace("'\"'", "").replace("\\\"", "'");
    source.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn no_message_advises_a_property_that_the_agent_keeps_for_itself() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut looked_at = 0;
    for file in files {
        for text in texts(&std::fs::read_to_string(&file).unwrap()) {
            looked_at += 1;
            // A name alone is set or refused, not advised.
            let named = owned().find(|name| text.contains(*name) && text.contains(' '));
            if let Some(name) = named.filter(|name| name.contains('.')) {
                panic!("{} speaks of {name}: {text:?}", file.display());
            }
        }
    }
    assert!(looked_at > 1_000, "{looked_at} texts");
}
