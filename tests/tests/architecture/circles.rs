//! Which files of a crate name one another in a circle: none of those can be understood, or changed,
//! without all the others.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::File;

/// The circles of a crate's files, each with all files that name one another there, directly or through
/// others. `source` is the folder of the crate's `lib.rs`. What a folder's own module has is common to
/// the files in it, so to name that closes no circle; a re-export stands for what it leads to.
pub(crate) fn circles(files: &[File], source: &str) -> Vec<Vec<String>> {
    let modules = Modules::new(files, source);
    let edges = modules.edges();
    let reached: BTreeMap<_, _> =
        modules.0.keys().map(|module| (module, reached(&edges, module))).collect();
    let with = |module: &Module| -> Vec<String> {
        let others = reached[module].iter().filter(|other| reached[*other].contains(module));
        others.map(|other| modules.0[other].file.to_owned()).collect()
    };
    let circles: BTreeSet<_> = modules.0.keys().map(with).collect();
    circles.into_iter().filter(|circle| circle.len() > 1).collect()
}

/// Where a module stands, from the root of its crate.
type Module = Vec<String>;

/// The modules of a crate that are files, with what each names.
struct Modules<'a>(BTreeMap<Module, Names<'a>>);

struct Names<'a> {
    file: &'a str,
    paths: Vec<Vec<String>>,
    reexports: Vec<Vec<String>>,
}

impl<'a> Modules<'a> {
    fn new(files: &'a [File], source: &str) -> Self {
        let names = |file: &'a File| {
            let inside = file.path.strip_prefix(source)?.trim_start_matches('/');
            let (paths, reexports) = (file.own_paths(), file.reexports());
            Some((module(inside)?, Names { file: &file.path, paths, reexports }))
        };
        Self(files.iter().filter_map(names).collect())
    }

    /// The modules that each module names, without those around it.
    fn edges(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let named = |(module, names): (_, &Names<'_>)| {
            let named = names.paths.iter().filter_map(|path| self.named(module, path));
            (module, named.filter(|named| !module.starts_with(named)).collect())
        };
        self.0.iter().map(named).collect()
    }

    /// The module that a path leads to which stands in the module `from`, if it is of this crate.
    fn named(&self, from: &Module, path: &[String]) -> Option<Module> {
        let (start, path) = match path[0].as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => {
                let up = path.iter().take_while(|segment| *segment == "super").count();
                (from[..from.len().checked_sub(up)?].to_vec(), &path[up..])
            }
            child => {
                let is_child = self.0.contains_key(&[from.as_slice(), &[child.into()]].concat());
                if !is_child || path.len() == 1 {
                    return None;
                }
                (from.clone(), path)
            }
        };
        let mut module = start;
        let mut rest = path.iter().peekable();
        loop {
            let longer = rest.peek().map(|next| [module.as_slice(), &[(*next).clone()]].concat());
            match longer.filter(|longer| self.0.contains_key(longer)) {
                Some(longer) => module = longer,
                None => break,
            }
            rest.next();
        }
        let reexport = rest.next().and_then(|name| {
            let mut all = self.0.get(&module)?.reexports.iter();
            all.find(|reexport| reexport.last() == Some(name))
        });
        match reexport {
            Some(reexport) => self.named(&module, reexport),
            None => self.0.contains_key(&module).then_some(module),
        }
    }
}

/// The modules that a module names, directly or through others.
fn reached(edges: &BTreeMap<&Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        next.extend(edges[module].iter().filter(|named| reached.insert((*named).clone())));
    }
    reached
}

/// The module that a file is, by its path from the crate's source; the binary's root is of no use to
/// others.
fn module(inside: &str) -> Option<Module> {
    let path = inside.strip_suffix(".rs").filter(|path| *path != "main")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    Some(if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: &[&[&str]]) {
        let file = |(path, text): &(&str, &str)| File {
            path: format!("agent/src/{path}"),
            text: (*text).to_owned(),
        };
        let files: Vec<_> = files.iter().map(file).collect();
        let found = circles(&files, "agent/src");
        let names = |circle: &Vec<String>| -> Vec<String> {
            circle.iter().map(|path| path.trim_start_matches("agent/src/").to_owned()).collect()
        };
        assert_eq!(found.iter().map(names).collect::<Vec<_>>(), expected, "{files:?}");
    }

    #[test]
    fn circles_are_found_however_long_they_are() {
        let (a, b) = ("use crate::b::B;", "fn f() { super::a::A }");
        check(&[("a.rs", a), ("b.rs", b)], &[&["a.rs", "b.rs"]]);
        check(&[("a.rs", a), ("b.rs", "fn f() { self::a::A }")], &[]);
        let (b, c) = ("use crate::{c::{C, D}, e};", "fn f() { crate::a::A }");
        check(
            &[("a.rs", a), ("b.rs", b), ("c/mod.rs", c), ("e.rs", ""), ("lib.rs", "mod a;")],
            &[&["a.rs", "b.rs", "c/mod.rs"]],
        );
        let c = "mod tests { use crate::a::A; }";
        check(&[("a.rs", a), ("b.rs", b), ("c/mod.rs", c), ("e.rs", "")], &[]);
    }

    #[test]
    fn a_folder_may_name_its_files_and_they_what_it_has() {
        let folder = ("a/mod.rs", "mod b; mod c; use self::b::B; fn f() { c::f() }");
        check(&[folder, ("a/b.rs", "use super::A;"), ("a/c.rs", "use crate::a::A;")], &[]);
        let other = ("d.rs", "use crate::a::A;");
        check(&[folder, ("a/b.rs", "use crate::d::D;"), other], &[&["a/mod.rs", "a/b.rs", "d.rs"]]);
        check(&[folder, ("a/c.rs", "use crate::d::D;"), other], &[&["a/mod.rs", "a/c.rs", "d.rs"]]);
    }

    #[test]
    fn a_reexport_stands_for_what_it_leads_to() {
        let folder = ("a/mod.rs", "pub use self::b::{B, C}; pub(crate) use self::c::D;");
        let b = ("a/b.rs", "use super::D;");
        check(&[folder, b, ("a/c.rs", "use crate::a::C;")], &[&["a/b.rs", "a/c.rs"]]);
        check(&[folder, b, ("a/c.rs", "use crate::a::E;")], &[]);
    }
}
