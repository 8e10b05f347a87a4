//! The interfaces that may be imported but lead nowhere: files and network.

use wasmtime::{
    Engine,
    component::{
        Linker, LinkerInstance, ResourceType, Type, Val,
        types::{ComponentFunc, ComponentInstance, ComponentItem},
    },
};

use super::{
    datagrams::deny_send,
    streams::{InputStream, IoError, OutputStream, Pollable},
};
use crate::guest::{failure::Breach, host::Host, text};

/// How much of a name is shown.
const NAME_BYTES_MAX: usize = 96;

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

/// The interfaces that lead nowhere, with all functions that WASI 0.2 has in them.
const CLOSED: [(&str, &[&str]); 8] = [
    (
        "filesystem/types",
        &[
            "filesystem-error-code",
            "[method]directory-entry-stream.read-directory-entry",
            "[method]descriptor.advise",
            "[method]descriptor.append-via-stream",
            "[method]descriptor.create-directory-at",
            "[method]descriptor.get-flags",
            "[method]descriptor.get-type",
            "[method]descriptor.is-same-object",
            "[method]descriptor.link-at",
            "[method]descriptor.metadata-hash",
            "[method]descriptor.metadata-hash-at",
            "[method]descriptor.open-at",
            "[method]descriptor.read",
            "[method]descriptor.read-directory",
            "[method]descriptor.read-via-stream",
            "[method]descriptor.readlink-at",
            "[method]descriptor.remove-directory-at",
            "[method]descriptor.rename-at",
            "[method]descriptor.set-size",
            "[method]descriptor.set-times",
            "[method]descriptor.set-times-at",
            "[method]descriptor.stat",
            "[method]descriptor.stat-at",
            "[method]descriptor.symlink-at",
            "[method]descriptor.sync",
            "[method]descriptor.sync-data",
            "[method]descriptor.unlink-file-at",
            "[method]descriptor.write",
            "[method]descriptor.write-via-stream",
        ],
    ),
    ("sockets/network", &["network-error-code"]),
    ("sockets/instance-network", &["instance-network"]),
    (
        "sockets/ip-name-lookup",
        &[
            "resolve-addresses",
            "[method]resolve-address-stream.resolve-next-address",
            "[method]resolve-address-stream.subscribe",
        ],
    ),
    ("sockets/tcp-create-socket", &["create-tcp-socket"]),
    (
        "sockets/tcp",
        &[
            "[method]tcp-socket.accept",
            "[method]tcp-socket.address-family",
            "[method]tcp-socket.finish-bind",
            "[method]tcp-socket.finish-connect",
            "[method]tcp-socket.finish-listen",
            "[method]tcp-socket.hop-limit",
            "[method]tcp-socket.is-listening",
            "[method]tcp-socket.keep-alive-count",
            "[method]tcp-socket.keep-alive-enabled",
            "[method]tcp-socket.keep-alive-idle-time",
            "[method]tcp-socket.keep-alive-interval",
            "[method]tcp-socket.local-address",
            "[method]tcp-socket.receive-buffer-size",
            "[method]tcp-socket.remote-address",
            "[method]tcp-socket.send-buffer-size",
            "[method]tcp-socket.set-hop-limit",
            "[method]tcp-socket.set-keep-alive-count",
            "[method]tcp-socket.set-keep-alive-enabled",
            "[method]tcp-socket.set-keep-alive-idle-time",
            "[method]tcp-socket.set-keep-alive-interval",
            "[method]tcp-socket.set-listen-backlog-size",
            "[method]tcp-socket.set-receive-buffer-size",
            "[method]tcp-socket.set-send-buffer-size",
            "[method]tcp-socket.shutdown",
            "[method]tcp-socket.start-bind",
            "[method]tcp-socket.start-connect",
            "[method]tcp-socket.start-listen",
            "[method]tcp-socket.subscribe",
        ],
    ),
    ("sockets/udp-create-socket", &["create-udp-socket"]),
    (
        "sockets/udp",
        &[
            "[method]incoming-datagram-stream.receive",
            "[method]incoming-datagram-stream.subscribe",
            "[method]outgoing-datagram-stream.check-send",
            "[method]outgoing-datagram-stream.send",
            "[method]outgoing-datagram-stream.subscribe",
            "[method]udp-socket.address-family",
            "[method]udp-socket.finish-bind",
            "[method]udp-socket.local-address",
            "[method]udp-socket.receive-buffer-size",
            "[method]udp-socket.remote-address",
            "[method]udp-socket.send-buffer-size",
            "[method]udp-socket.set-receive-buffer-size",
            "[method]udp-socket.set-send-buffer-size",
            "[method]udp-socket.set-unicast-hop-limit",
            "[method]udp-socket.start-bind",
            "[method]udp-socket.stream",
            "[method]udp-socket.subscribe",
            "[method]udp-socket.unicast-hop-limit",
        ],
    ),
];

/// How many parts the type of an argument may have. An address, the largest that WASI has beside
/// [`SEND`]'s, has some twenty.
const ARGUMENT_PARTS_MAX: usize = 64;

/// The one function with a list of something larger than bytes: it is defined with its own types.
pub(super) const SEND: &str = "[method]outgoing-datagram-stream.send";

/// Whether an interface of WASI 0.2, such as `cli/stdout`, may be imported.
pub(in crate::guest) fn is_granted(interface: &str) -> bool {
    OPEN.contains(&interface) || functions(interface).is_some()
}

/// The functions of an interface that leads nowhere.
fn functions(interface: &str) -> Option<&'static [&'static str]> {
    CLOSED.iter().find(|(name, _)| *name == interface).map(|(_, functions)| *functions)
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
    let Some(functions) = functions(interface) else { return Ok(()) };
    let mut instance = linker.instance(import)?;
    for (name, item) in wanted.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(function) if functions.contains(&name) => {
                match name == SEND {
                    true => deny_send(&mut instance)?,
                    false => deny(&mut instance, import, name, &function)?,
                }
            }
            ComponentItem::ComponentFunc(_) => {
                let name = text::clean(name, NAME_BYTES_MAX);
                wasmtime::bail!("there is no function `{name}` in it");
            }
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
    let mut parts = 0;
    for (_, argument) in function.params() {
        measure(&argument, &mut parts).ok_or_else(|| {
            wasmtime::format_err!("the arguments of `{name}` are not those that WASI 0.2 has")
        })?;
    }
    let denial = denial(function);
    let import = text::clean(import, NAME_BYTES_MAX);
    let what = format!("it called `{name}` of `{import}`, which is closed");
    instance.func_new(name, move |_, _, _, results| match (&denial, results) {
        (Some(code), [result]) => {
            *result = Val::Result(Err(Some(Box::new(Val::Enum(code.clone())))));
            Ok(())
        }
        _ => Err(Breach::trap(what.clone()).into()),
    })
}

/// Counts the parts of an argument's type. None if there are too many, or a list of anything but
/// numbers: each of its elements would take much more of the host than of the guest, without being
/// counted.
fn measure(argument: &Type, parts: &mut usize) -> Option<()> {
    *parts += 1;
    if *parts > ARGUMENT_PARTS_MAX {
        return None;
    }
    match argument {
        Type::Bool
        | Type::S8
        | Type::U8
        | Type::S16
        | Type::U16
        | Type::S32
        | Type::U32
        | Type::S64
        | Type::U64
        | Type::Float32
        | Type::Float64
        | Type::Char
        | Type::String
        | Type::Enum(_)
        | Type::Own(_)
        | Type::Borrow(_) => Some(()),
        Type::List(list) => match list.ty() {
            Type::U8 => Some(()),
            _ => None,
        },
        Type::Flags(flags) => {
            *parts += flags.names().count();
            Some(())
        }
        Type::Record(record) => record.fields().try_for_each(|field| measure(&field.ty, parts)),
        Type::Tuple(tuple) => tuple.types().try_for_each(|ty| measure(&ty, parts)),
        Type::Variant(variant) => {
            variant.cases().filter_map(|case| case.ty).try_for_each(|ty| measure(&ty, parts))
        }
        Type::Option(option) => measure(&option.ty(), parts),
        Type::Result(result) => {
            [result.ok(), result.err()].into_iter().flatten().try_for_each(|ty| measure(&ty, parts))
        }
        _ => None,
    }
}

/// The error code by which a function can say that it isn't allowed.
fn denial(function: &ComponentFunc) -> Option<String> {
    let Some(Type::Result(result)) = function.results().next() else { return None };
    let Some(Type::Enum(codes)) = result.err() else { return None };
    let known = ["access-denied", "not-permitted", "access"];
    known.into_iter().find(|code| codes.names().any(|name| name == *code)).map(str::to_owned)
}
