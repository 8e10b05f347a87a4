//! The interfaces that may be imported but lead nowhere: files and network.

use wasmtime::{
    Engine,
    component::{
        Linker, LinkerInstance, ResourceType, Type, Val,
        types::{ComponentFunc, ComponentInstance, ComponentItem},
    },
};

use super::streams::{InputStream, IoError, OutputStream, Pollable};
use crate::guest::{failure::Breach, host::Host};

/// A file, a directory, a network, a terminal: there is none.
pub(super) enum Closed {}

/// What is defined. Whatever else calls itself WASI is not granted.
const OPEN: [&str; 19] = [
    "cli/environment",
    "cli/exit",
    "cli/stderr",
    "cli/stdin",
    "cli/stdout",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stderr",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "clocks/monotonic-clock",
    "clocks/wall-clock",
    "filesystem/preopens",
    "io/error",
    "io/poll",
    "io/streams",
    "random/insecure",
    "random/insecure-seed",
    "random/random",
];

/// Whether an interface of WASI 0.2, such as `cli/stdout`, may be imported.
pub(in crate::guest) fn is_granted(interface: &str) -> bool {
    OPEN.contains(&interface) || is_closed(interface)
}

fn is_closed(interface: &str) -> bool {
    interface == "filesystem/types" || interface.starts_with("sockets/")
}

/// Defines `interface`, imported as `import` with the functions of `wanted`, if it is one of those
/// that lead nowhere: each function is denied, or traps if it has no way to say so.
pub(in crate::guest) fn close(
    linker: &mut Linker<Host>,
    engine: &Engine,
    interface: &str,
    import: &str,
    wanted: &ComponentInstance,
) -> wasmtime::Result<()> {
    if !is_closed(interface) {
        return Ok(());
    }
    let mut instance = linker.instance(import)?;
    for (name, item) in wanted.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(function) => deny(&mut instance, import, name, &function)?,
            ComponentItem::Resource(_) => instance.resource(name, resource(name), |_, _| Ok(()))?,
            ComponentItem::CoreFunc(_)
            | ComponentItem::Module(_)
            | ComponentItem::Component(_)
            | ComponentItem::ComponentInstance(_)
            | ComponentItem::Type(_) => {}
        }
    }
    Ok(())
}

/// Interfaces name the resources of `wasi:io` again where they use them.
fn resource(name: &str) -> ResourceType {
    match name {
        "error" => ResourceType::host::<IoError>(),
        "pollable" => ResourceType::host::<Pollable>(),
        "input-stream" => ResourceType::host::<InputStream>(),
        "output-stream" => ResourceType::host::<OutputStream>(),
        _ => ResourceType::host::<Closed>(),
    }
}

fn deny(
    instance: &mut LinkerInstance<'_, Host>,
    import: &str,
    name: &str,
    function: &ComponentFunc,
) -> wasmtime::Result<()> {
    let denial = denial(function);
    let what = format!("it called `{name}` of `{import}`, which is closed");
    instance.func_new(name, move |_, _, _, results| match (&denial, results) {
        (Some(code), [result]) => {
            *result = Val::Result(Err(Some(Box::new(Val::Enum(code.clone())))));
            Ok(())
        }
        _ => Err(Breach::trap(what.clone()).into()),
    })
}

/// The error code by which a function can say that it isn't allowed.
fn denial(function: &ComponentFunc) -> Option<String> {
    let Some(Type::Result(result)) = function.results().next() else { return None };
    let Some(Type::Enum(codes)) = result.err() else { return None };
    let known = ["access-denied", "not-permitted", "access"];
    known.into_iter().find(|code| codes.names().any(|name| name == *code)).map(str::to_owned)
}
