//! Sources with many bugs in them, of which an environment variable switches one on (mutant
//! schemata): a function that bugs `a` and `b` change gets the body
//! `{ if is("a") { … } else if is("b") { … } else { … } }`, each part of which is the whole body as
//! the bug leaves it, or as it is. Outside of bodies nothing is changed but that such a function is
//! not `const`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use proc_macro2::TokenStream;
use syn::{
    Block, Signature,
    visit::{self, Visit},
};

use crate::bug::Bug;

/// The name of the bug that a process has.
pub(crate) const SWITCH: &str = "PLANTED";

/// Texts by their path in the repository.
pub(crate) type Sources = BTreeMap<String, String>;

/// Comes before the body of a function as it is.
const ORIGINAL: &str = "/* as it is */";

/// A function of a source, by byte offsets.
struct Function {
    constness: Option<Range<usize>>,
    /// With its braces.
    body: Range<usize>,
    /// The bodies that bugs give it, by their names.
    broken: Vec<(String, String)>,
}

/// Collects functions, without those within the bodies of others.
#[derive(Default)]
struct Functions(Vec<Function>);

impl Functions {
    fn add(&mut self, signature: &Signature, block: &Block) {
        let braces = block.brace_token.span;
        self.0.push(Function {
            constness: signature.constness.as_ref().map(|of| of.span.byte_range()),
            body: braces.open().byte_range().start..braces.close().byte_range().end,
            broken: Vec::new(),
        });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig, block);
        }
    }
}

/// The functions of a source, in their order.
fn functions(text: &str) -> syn::Result<Vec<Function>> {
    let mut functions = Functions::default();
    visit::visit_file(&mut functions, &syn::parse_file(text)?);
    Ok(functions.0)
}

/// What is put where in a file.
type Edits<'a> = Vec<(Range<usize>, &'a str)>;

/// The sources with all these bugs in them, each switched on by its name in [`SWITCH`]. Fails with
/// every bug that can't be switched: one whose text is not there once, is not within the body of a
/// function, leaves no body, or changes nothing.
pub(crate) fn plant(sources: &Sources, bugs: &[Bug]) -> Result<Sources, String> {
    let mut complaints = Vec::new();
    let mut parsed: BTreeMap<String, Vec<Function>> = BTreeMap::new();
    for bug in bugs {
        if let Err(complaint) = plant_one(sources, bug, &mut parsed) {
            complaints.push(format!("{}: {complaint}", bug.name));
        }
    }
    if !complaints.is_empty() {
        return Err(complaints.join("\n"));
    }
    let mut planted = sources.clone();
    for (file, functions) in &parsed {
        planted.insert(file.clone(), switchable(file, &sources[file], functions));
    }
    planted.entry("agent/core/src/lib.rs".to_owned()).or_default().push_str("pub mod planted;\n");
    planted.insert("agent/core/src/planted.rs".to_owned(), switch());
    Ok(planted)
}

fn plant_one(
    sources: &Sources,
    bug: &Bug,
    parsed: &mut BTreeMap<String, Vec<Function>>,
) -> Result<(), String> {
    let mut edits: BTreeMap<(&str, usize), Edits<'_>> = BTreeMap::new();
    for change in &bug.changes {
        let file = &change.file;
        let text = sources.get(file).ok_or_else(|| format!("there is no {file}"))?;
        let place = change.place(text)?;
        if !parsed.contains_key(file) {
            let functions = functions(text).map_err(|error| format!("{file}: {error}"))?;
            parsed.insert(file.clone(), functions);
        }
        let is_around = |of: &Function| of.body.start < place.start && place.end < of.body.end;
        let function = parsed[file].iter().position(is_around).ok_or_else(|| {
            format!("{file} has this outside of the body of a function:\n{}", change.find)
        })?;
        edits.entry((file, function)).or_default().push((place, &change.replace));
    }
    for ((file, function), edits) in edits {
        let function = &mut parsed.get_mut(file).expect("it is parsed")[function];
        let body = edited(&sources[file], &function.body, edits)?;
        let tokens = |text: &str| text.parse::<TokenStream>().map(|tokens| tokens.to_string());
        syn::parse_str::<Block>(&body)
            .map_err(|error| format!("{file}: {error} in what is no body any more:\n{body}"))?;
        if tokens(&body).ok() == tokens(&sources[file][function.body.clone()]).ok() {
            return Err(format!("it changes nothing in {file}"));
        }
        function.broken.push((bug.name.clone(), body));
    }
    Ok(())
}

/// A part of a text with edits in it.
fn edited(
    text: &str,
    part: &Range<usize>,
    mut edits: Vec<(Range<usize>, &str)>,
) -> Result<String, String> {
    edits.sort_by_key(|(place, _)| place.start);
    let (mut edited, mut at) = (String::new(), part.start);
    for (place, replace) in edits {
        edited += text.get(at..place.start).ok_or("two of its changes overlap")?;
        edited += replace;
        at = place.end;
    }
    Ok(edited + &text[at..part.end])
}

/// A source whose functions have the bodies that bugs give them beside their own.
fn switchable(file: &str, text: &str, functions: &[Function]) -> String {
    let of_core = file.starts_with("agent/core/");
    let module = if of_core { "crate::planted" } else { "::sidestream_core::planted" };
    let (mut result, mut at) = (String::new(), 0);
    for Function { constness, body, broken } in functions.iter().filter(|of| !of.broken.is_empty())
    {
        if let Some(constness) = constness {
            result += &text[at..constness.start];
            at = constness.end;
        }
        result += &text[at..body.start];
        result += "{ ";
        for (bug, body) in broken {
            result += &format!("if {module}::is(\"{bug}\") {body} else ");
        }
        result += &format!("{ORIGINAL} {} }}", &text[body.clone()]);
        at = body.end;
    }
    result + &text[at..]
}

/// The module that knows which bug is switched on.
fn switch() -> String {
    format!(
        "use std::{{env, sync::LazyLock}};\n\n\
         static PLANTED: LazyLock<Option<String>> = LazyLock::new(|| env::var({SWITCH:?}).ok());\n\n\
         pub fn is(bug: &str) -> bool {{\n    PLANTED.as_deref() == Some(bug)\n}}\n"
    )
}

/// The bugs whose bodies the compiler complains of, as far as it names places in them
/// (`--> file:line:column`).
pub(crate) fn accused<'a>(planted: &'a Sources, said: &str) -> BTreeSet<&'a str> {
    let place = |line: &str| {
        let mut parts = line.trim_start().strip_prefix("--> ")?.rsplitn(3, ':');
        let (column, row) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((planted.get(parts.next()?)?, row, column))
    };
    let bug = |(text, row, column): (&'a String, usize, usize)| {
        let above: usize = text.split_inclusive('\n').take(row - 1).map(str::len).sum();
        let before = text.get(..above + column)?;
        let (_, body) = before.rsplit_once("planted::is(\"")?;
        let (name, body) = body.split_once('"')?;
        (!body.contains(ORIGINAL)).then_some(name)
    };
    said.lines().filter_map(place).filter_map(bug).collect()
}

mod tests {
    use super::{SWITCH, Sources, accused, plant};
    use crate::bug::{Bug, parse};

    const CORE: &str = "agent/core/src/sum.rs";
    const SIMULATOR: &str = "tests/sim/src/sum.rs";

    /// A bug from its changes: file, what to find, what to put in its place.
    fn bug(name: &str, changes: &[(&str, &str, &str)]) -> Bug {
        let change = |(file, find, replace): &(&str, &str, &str)| {
            format!("file: {file}\n<<<<\n{find}\n====\n{replace}\n>>>>\n")
        };
        parse(
            name,
            &format!("why: sums are right\n{}", changes.iter().map(change).collect::<String>()),
        )
    }

    fn sources(text: &str) -> Sources {
        [(CORE, text), (SIMULATOR, text)]
            .map(|(file, text)| (file.to_owned(), text.to_owned()))
            .into()
    }

    /// What bugs make of a file of the core.
    fn planted(text: &str, bugs: &[Bug]) -> String {
        plant(&sources(text), bugs).unwrap().remove(CORE).unwrap()
    }

    #[test]
    fn bugs_of_a_function_stand_beside_its_own_body() {
        let text = "/// é\nfn sum(a: u8, b: u8) -> u8 {\n    a + b\n}\n\nfn other() {}\n";
        let bugs = [bug("less", &[(CORE, "a + b", "a - b")]), bug("one", &[(CORE, "a +", "1 +")])];
        let expected = "/// é\nfn sum(a: u8, b: u8) -> u8 { \
                        if crate::planted::is(\"less\") {\n    a - b\n} else \
                        if crate::planted::is(\"one\") {\n    1 + b\n} else \
                        /* as it is */ {\n    a + b\n} }\n\nfn other() {}\n";
        assert_eq!(planted(text, &bugs), expected);
    }

    #[test]
    fn a_bug_is_in_all_of_its_places_under_one_name() {
        let text = "fn sum() { 1; 2 }\nfn difference() { 3 }\n";
        let changes = [(CORE, "2", "4"), (CORE, "1", "5"), (CORE, "3", "6"), (SIMULATOR, "3", "7")];
        let planted = plant(&sources(text), &[bug("all", &changes)]).unwrap();
        let core = "fn sum() { if crate::planted::is(\"all\") { 5; 4 } else /* as it is */ { 1; 2 } }\n\
                    fn difference() { if crate::planted::is(\"all\") { 6 } else /* as it is */ { 3 } }\n";
        assert_eq!(planted[CORE], core);
        let simulator = "fn difference() { if ::sidestream_core::planted::is(\"all\") { 7 } else";
        assert!(planted[SIMULATOR].contains(simulator), "{}", planted[SIMULATOR]);
        assert!(planted["agent/core/src/lib.rs"].ends_with("pub mod planted;\n"));
        assert!(planted["agent/core/src/planted.rs"].contains(&format!("{SWITCH:?}")));
    }

    #[test]
    fn functions_of_every_kind_are_found() {
        for (text, until_body) in [
            ("mod a { mod b { fn sum() { fn inner() { 1 } } } }", "mod a { mod b { fn sum() "),
            ("impl A { pub(super) const fn sum() { 1 } }", "impl A { pub(super)  fn sum() "),
            ("impl A for B<{ 2 }> { fn sum() { 1 } }", "impl A for B<{ 2 }> { fn sum() "),
            ("trait A { fn none(); fn sum() { || { 1 } } }", "trait A { fn none(); fn sum() "),
        ] {
            let planted = planted(text, &[bug("bug", &[(CORE, "1", "0")])]);
            let expected = format!("{until_body}{{ if crate::planted::is(\"bug\") {{");
            assert!(planted.starts_with(&expected), "{planted}");
        }
    }

    #[test]
    fn what_cannot_be_switched_is_refused() {
        let text = "const A: u8 = 1;\nfn sum(a: u8) {\n    a + 2 + 2; // 3\n}\nfn other() {}\n";
        for (find, replace, complaint) in [
            ("7", "8", "0 times, not once"),
            ("2", "8", "2 times, not once"),
            ("= 1;", "= 2;", "outside of the body of a function"),
            ("(a: u8) {\n", "(a: u16) {\n", "outside of the body of a function"),
            ("3\n}\nfn", "4\n}\nfn", "outside of the body of a function"),
            ("2;", "2; } fn more() {", "no body any more"),
            ("2;", "2; {", "no body any more"),
            ("2;", "2;", "it changes nothing"),
            ("2; // 3", "2;   // 4", "it changes nothing"),
        ] {
            let error = plant(&sources(text), &[bug("odd", &[(CORE, find, replace)])]).unwrap_err();
            assert!(error.starts_with("odd: ") && error.contains(complaint), "{find}: {error}");
        }
        let overlapping = bug("odd", &[(CORE, "a + 2", "a"), (CORE, "+ 2 +", "-")]);
        let error = plant(&sources(text), &[overlapping]).unwrap_err();
        assert!(error.contains("two of its changes overlap"), "{error}");
        let elsewhere = bug("odd", &[("agent/core/src/none.rs", "1", "2")]);
        assert!(plant(&sources(text), &[elsewhere]).unwrap_err().contains("there is no"));
    }

    #[test]
    fn errors_of_the_compiler_are_those_of_bugs() {
        let text = "fn sum() {\n    1\n}\nfn other() {}\n";
        let bugs = [bug("two", &[(CORE, "1", "2")]), bug("three", &[(CORE, "1", "3")])];
        let planted = plant(&sources(text), &bugs).unwrap();
        let said = |digit: char| {
            let (row, line) =
                planted[CORE].lines().enumerate().find(|(_, line)| line.contains(digit)).unwrap();
            format!("error: odd\n   --> {CORE}:{}:{}\n", row + 1, line.find(digit).unwrap() + 1)
        };
        let all = [said('2'), said('3')].concat();
        assert_eq!(accused(&planted, &all).into_iter().collect::<Vec<_>>(), ["three", "two"]);
        assert_eq!(accused(&planted, &said('1')).len(), 0);
    }
}
