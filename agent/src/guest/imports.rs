//! What a module may import, and which world it exports.

use wasmtime::{
    Engine,
    component::{Component, Linker, types::ComponentItem},
};

use super::{Error, World, host::Host, text, wasi};

/// How many interfaces a module may import. WASI 0.2 has less than forty.
const IMPORTS_MAX: usize = 200;
/// How many names a list of them shows, and how much of each.
const NAMES_MAX: usize = 20;
const NAME_BYTES_MAX: usize = 80;

/// What a module may import, for people.
const GRANTED: &str = "granted are `state` and `telemetry` of sidestream:transform@0.1, and a \
                       closed WASI 0.2 (cli, clocks, filesystem, io, random, sockets)";

/// Refuses a module that imports what isn't granted, and defines in `linker` those of its imports
/// that lead nowhere.
pub(super) fn check(
    module: &str,
    engine: &Engine,
    component: &Component,
    linker: &mut Linker<Host>,
) -> Result<(), Error> {
    let ty = component.component_type();
    let count = ty.imports(engine).count();
    if count > IMPORTS_MAX {
        return Err(Error::TooMuch {
            module: module.to_owned(),
            reason: format!(
                "it imports {count} interfaces and may import {IMPORTS_MAX}; remove those that it \
                 doesn't need"
            ),
        });
    }
    for (import, item) in ty.imports(engine) {
        let refused = |reason: &str| Error::Import {
            module: module.to_owned(),
            import: import.to_owned(),
            reason: reason.to_owned(),
        };
        let ComponentItem::ComponentInstance(wanted) = item.ty else {
            return Err(refused(GRANTED));
        };
        match Interface::parse(import) {
            Some(Interface::Own) => {}
            Some(Interface::Wasi(interface)) if wasi::is_granted(interface) => {
                wasi::close(linker, engine, interface, import, &wanted)
                    .map_err(|error| refused(&error.to_string()))?;
            }
            _ => return Err(refused(GRANTED)),
        }
    }
    Ok(())
}

/// The names of what a component imports.
pub(super) fn names(engine: &Engine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    let names = ty.imports(engine).map(|(name, _)| text::clean(name, NAME_BYTES_MAX));
    names.take(IMPORTS_MAX).collect()
}

/// Whose an imported interface is.
enum Interface<'a> {
    /// One of `wit/transform.wit`.
    Own,
    /// One of WASI 0.2.
    Wasi(&'a str),
}

impl<'a> Interface<'a> {
    fn parse(import: &'a str) -> Option<Self> {
        let (name, version) = import.split_once('@')?;
        match name.split_once(':')? {
            ("sidestream", "transform/types" | "transform/state" | "transform/telemetry")
                if version.starts_with("0.1.") =>
            {
                Some(Self::Own)
            }
            ("wasi", interface) if version.starts_with("0.2.") => Some(Self::Wasi(interface)),
            _ => None,
        }
    }
}

/// Says which import it is whose type is not what is granted under its name.
pub(super) fn mistyped(
    module: &str,
    engine: &Engine,
    component: &Component,
    error: &wasmtime::Error,
) -> Error {
    let message = format!("{error:#}");
    let ty = component.component_type();
    let import = ty.imports(engine).map(|(name, _)| name).find(|name| message.contains(*name));
    Error::Import {
        module: module.to_owned(),
        import: import.unwrap_or("an interface").to_owned(),
        reason: format!("its types are not those that are granted: {message}"),
    }
}

/// Finds the world a module was built for.
pub(super) fn world(module: &str, engine: &Engine, component: &Component) -> Result<World, Error> {
    let ty = component.component_type();
    match ty.get_export(engine, World::EXPORT).map(|export| export.ty) {
        Some(ComponentItem::ComponentInstance(_)) => Ok(World::Columnar),
        Some(_) => Err(export(module, "it exports something else by this name")),
        None => {
            let name = |(name, _): (&str, _)| format!("`{}`", text::clean(name, NAME_BYTES_MAX));
            let names: Vec<_> = ty.exports(engine).map(name).take(NAMES_MAX + 1).collect();
            let reason = match names.len() {
                0 => "it exports nothing; it was built without the SDK, or cut off".to_owned(),
                1..=NAMES_MAX => format!("it exports {}; build it with the SDK", names.join(", ")),
                _ => format!(
                    "it exports {} and more; build it with the SDK",
                    names[..NAMES_MAX].join(", ")
                ),
            };
            Err(export(module, &reason))
        }
    }
}

/// Says that a module's export is not as it should be.
pub(super) fn export(module: &str, reason: &str) -> Error {
    Error::Export { module: module.to_owned(), reason: reason.to_owned() }
}
