//! A closed WASI 0.2, for what tool chains import whether it is used or not. There is no code
//! behind it that could open a file or a connection: no files, no network, no environment, no
//! arguments. Time stands still within a call, waits are over at once, random numbers follow from
//! the task and the record that a call begins with, and what is printed becomes log lines.

mod closed;
mod datagrams;
mod random;
mod streams;

use sha2::{Digest as _, Sha256};
use sidestream_core::record::Timestamp;
use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType},
};

use super::{failure::Breach, host::Host};

use self::{
    closed::Closed,
    random::Random,
    streams::{InputStream, OutputStream, Pollable},
};
pub(super) use self::{
    closed::{close, is_granted},
    random::Call,
};

/// The version that everything here is defined as; the linker takes it for every other 0.2.
const VERSION: &str = "0.2.0";

/// What an instance sees of the world.
#[derive(Debug)]
pub(super) struct Surroundings {
    wall_clock: Timestamp,
    monotonic_ms: u64,
    random: Random,
    /// Drawn once: what a language's tables are seeded with stays the same for a task.
    insecure_seed: (u64, u64),
}

impl Surroundings {
    /// Surroundings whose random numbers follow from `seed`.
    pub(super) fn new(seed: &[u8]) -> Self {
        let seed: [u8; 32] = Sha256::digest(seed).into();
        let mut random = Random::new(&seed, Call::Initialise);
        let insecure_seed = (random.number(), random.number());
        Self { wall_clock: 0, monotonic_ms: 0, random, insecure_seed }
    }

    /// Begins a call: sets the clocks, of which the monotonic one stays where it is if time went
    /// back, and begins with other random numbers.
    pub(super) fn begin(&mut self, call: Call, wall_clock: Timestamp) {
        self.wall_clock = wall_clock;
        self.monotonic_ms = self.monotonic_ms.max(u64::try_from(wall_clock).unwrap_or(0));
        self.random.begin(call);
    }
}

/// A time of `wasi:clocks/wall-clock`.
#[derive(Clone, Copy, Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

fn datetime(milliseconds: Timestamp) -> Datetime {
    let milliseconds = u64::try_from(milliseconds).unwrap_or(0);
    let below = u32::try_from(milliseconds % 1_000).expect("below a thousand");
    Datetime { seconds: milliseconds / 1_000, nanoseconds: below * 1_000_000 }
}

type Context<'a> = StoreContextMut<'a, Host>;

/// Defines all of it but the closed interfaces, which [`close`] defines as a module imports them.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    streams::add_to_linker(linker)?;
    add_clocks(linker)?;
    add_random(linker)?;
    add_command_line(linker)?;
    add_terminals(linker)?;
    let mut preopens = linker.instance(&name("filesystem/preopens"))?;
    preopens
        .func_wrap("get-directories", |_, (): ()| Ok((Vec::<(Resource<Closed>, String)>::new(),)))
}

fn name(interface: &str) -> String {
    format!("wasi:{interface}@{VERSION}")
}

fn add_clocks(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut wall = linker.instance(&name("clocks/wall-clock"))?;
    wall.func_wrap("now", |host: Context<'_>, (): ()| {
        Ok((datetime(host.data().surroundings.wall_clock),))
    })?;
    wall.func_wrap("resolution", |_, (): ()| Ok((datetime(1),)))?;

    let mut monotonic = linker.instance(&name("clocks/monotonic-clock"))?;
    monotonic.func_wrap("now", |host: Context<'_>, (): ()| {
        Ok((host.data().surroundings.monotonic_ms.saturating_mul(1_000_000),))
    })?;
    monotonic.func_wrap("resolution", |_, (): ()| Ok((1_000_000_u64,)))?;
    for wait in ["subscribe-instant", "subscribe-duration"] {
        monotonic.func_wrap(wait, |_, (_when,): (u64,)| Ok((Resource::<Pollable>::new_own(0),)))?;
    }
    Ok(())
}

fn add_random(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    for (interface, bytes, number) in [
        ("random/random", "get-random-bytes", "get-random-u64"),
        ("random/insecure", "get-insecure-random-bytes", "get-insecure-random-u64"),
    ] {
        let mut random = linker.instance(&name(interface))?;
        random.func_wrap(bytes, |mut host: Context<'_>, (count,): (u64,)| {
            Ok((host.data_mut().surroundings.random.bytes(count)?,))
        })?;
        random.func_wrap(number, |mut host: Context<'_>, (): ()| {
            Ok((host.data_mut().surroundings.random.number(),))
        })?;
    }
    let mut seed = linker.instance(&name("random/insecure-seed"))?;
    seed.func_wrap("insecure-seed", |host: Context<'_>, (): ()| {
        Ok((host.data().surroundings.insecure_seed,))
    })
}

fn add_command_line(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut environment = linker.instance(&name("cli/environment"))?;
    environment.func_wrap("get-environment", |_, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
    environment.func_wrap("get-arguments", |_, (): ()| Ok((Vec::<String>::new(),)))?;
    environment.func_wrap("initial-cwd", |_, (): ()| Ok((None::<String>,)))?;

    let mut exit = linker.instance(&name("cli/exit"))?;
    exit.func_wrap("exit", |_, (status,): (Result<(), ()>,)| -> wasmtime::Result<()> {
        let status = if status.is_ok() { "success" } else { "failure" };
        Err(Breach::trap(format!("it ended itself, saying {status}")).into())
    })?;
    exit.func_wrap("exit-with-code", |_, (code,): (u8,)| -> wasmtime::Result<()> {
        Err(Breach::trap(format!("it ended itself with code {code}")).into())
    })?;

    linker
        .instance(&name("cli/stdin"))?
        .func_wrap("get-stdin", |_, (): ()| Ok((Resource::<InputStream>::new_own(0),)))?;
    linker.instance(&name("cli/stdout"))?.func_wrap("get-stdout", |_, (): ()| {
        Ok((Resource::<OutputStream>::new_own(OutputStream::OUT),))
    })?;
    linker.instance(&name("cli/stderr"))?.func_wrap("get-stderr", |_, (): ()| {
        Ok((Resource::<OutputStream>::new_own(OutputStream::ERR),))
    })
}

fn add_terminals(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    for resource in ["terminal-input", "terminal-output"] {
        linker.instance(&name(&format!("cli/{resource}")))?.resource(
            resource,
            ResourceType::host::<Closed>(),
            |_, _| Ok(()),
        )?;
    }
    for stream in ["stdin", "stdout", "stderr"] {
        linker
            .instance(&name(&format!("cli/terminal-{stream}")))?
            .func_wrap(&format!("get-terminal-{stream}"), |_, (): ()| {
                Ok((None::<Resource<Closed>>,))
            })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_never_goes_back() {
        let mut surroundings = Surroundings::new(b"");
        surroundings.begin(Call::Initialise, 5_000);
        surroundings.begin(Call::Initialise, 4_000);
        assert_eq!((surroundings.wall_clock, surroundings.monotonic_ms), (4_000, 5_000));
        let time = datetime(5_250);
        assert_eq!((time.seconds, time.nanoseconds), (5, 250_000_000));
    }
}
