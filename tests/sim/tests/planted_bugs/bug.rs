//! What a planted bug is, and where its changes are in a source.

use std::{
    env, fs,
    ops::Range,
    path::{Path, PathBuf},
};

/// A change that breaks a rule.
pub(crate) struct Bug {
    pub(crate) name: String,
    /// The rule.
    pub(crate) why: String,
    /// The first seed to try: what is rare is looked for where it was found.
    pub(crate) first: String,
    pub(crate) changes: Vec<Change>,
}

/// A replacement of a text that is there exactly once, within the body of one function. What else
/// it takes (a method, say) goes into a body too: an `impl` there is as good as one outside.
pub(crate) struct Change {
    pub(crate) file: String,
    pub(crate) find: String,
    pub(crate) replace: String,
}

impl Change {
    /// Where in its file it is.
    pub(crate) fn place(&self, text: &str) -> Result<Range<usize>, String> {
        let Self { file, find, .. } = self;
        let places: Vec<usize> = text.match_indices(find.as_str()).map(|(at, _)| at).collect();
        match places[..] {
            [at] => Ok(at..at + find.len()),
            _ => Err(format!("{file} has this {} times, not once:\n{find}", places.len())),
        }
    }
}

/// Reads a bug: `why:`, maybe `first:`, then for each change `file:`, `<<<<`, what to find, `====`,
/// what to put in its place, `>>>>`.
pub(crate) fn parse(name: &str, text: &str) -> Bug {
    let mut bug = Bug {
        name: name.to_owned(),
        why: String::new(),
        first: "0".to_owned(),
        changes: Vec::new(),
    };
    let mut file = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(why) = line.strip_prefix("why: ") {
            why.clone_into(&mut bug.why);
        } else if let Some(first) = line.strip_prefix("first: ") {
            first.clone_into(&mut bug.first);
        } else if let Some(path) = line.strip_prefix("file: ") {
            path.clone_into(&mut file);
        } else if line == "<<<<" {
            let mut until = |end: &str| {
                let lines: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
                lines.join("\n")
            };
            let (find, replace) = (until("===="), until(">>>>"));
            bug.changes.push(Change { file: file.clone(), find, replace });
        }
    }
    assert!(!bug.why.is_empty() && !bug.changes.is_empty(), "{name} is not a bug");
    bug
}

/// All bugs, or only those that `BUGS` names (parts of names, with commas).
pub(crate) fn bugs() -> Vec<Bug> {
    let only = env::var("BUGS").unwrap_or_default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bugs");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy();
            parse(&name, &fs::read_to_string(path).unwrap())
        })
        .filter(|bug| only.is_empty() || only.split(',').any(|name| bug.name.contains(name)))
        .collect()
}
