//! Versions of one module for tests of swaps: the guest `versions`, patched to behave well or
//! badly, and files that are no module for a pipeline at all.

use std::{fs, ops::Range};

use anyhow::{Context, Result, ensure};

use crate::{agent, modules};

/// What stands before the switches in the guest.
const MARKER: &[u8] = b"sidestream-test-version:";

/// How a version behaves. All emit and write what is right, as long as they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// All is well.
    Good,
    /// It traps when it is initialised.
    TrapAtInitialise,
    /// It rejects its pipeline when it is initialised, with the words of [`REJECTED`].
    RejectAtInitialise,
    /// Each instance traps at its record of this number; the first one is 1.
    TrapAt(u32),
    /// It works so many times as long on each record.
    Slow(u32),
    /// It keeps so many bytes for each record.
    Leak(u32),
    /// Its values have so many bytes at least.
    Grow(u32),
}

/// What a version says that rejects its pipeline.
pub const REJECTED: &str = "it rejects every pipeline, as it was told";

impl Behaviour {
    /// The switch in the guest, and its parameter.
    const fn switch(self) -> (char, u32) {
        match self {
            Self::Good => ('g', 0),
            Self::TrapAtInitialise => ('i', 0),
            Self::RejectAtInitialise => ('r', 0),
            Self::TrapAt(number) => ('t', number),
            Self::Slow(times) => ('s', times),
            Self::Leak(bytes) => ('l', bytes),
            Self::Grow(bytes) => ('o', bytes),
        }
    }
}

/// A version that behaves so, as a component.
pub fn module(version: u32, behaviour: Behaviour) -> Result<Vec<u8>> {
    let path = agent::modules().join("versions.wasm");
    let built = fs::read(&path);
    let mut bytes = built.with_context(|| format!("no {}: `./dev guests`", path.display()))?;
    let (letter, parameter) = behaviour.switch();
    let switches = format!("{version:010}:{letter}:{parameter:010}");
    let place = switches_in(&bytes, switches.len())?;
    bytes[place].copy_from_slice(switches.as_bytes());
    Ok(bytes)
}

/// Where the switches are: behind the only marker.
fn switches_in(bytes: &[u8], length: usize) -> Result<Range<usize>> {
    let mut markers = bytes.windows(MARKER.len()).enumerate().filter(|(_, part)| *part == MARKER);
    let (at, _) = markers.next().context("the guest has no marker")?;
    ensure!(markers.next().is_none(), "the guest has several markers");
    let place = at + MARKER.len()..at + MARKER.len() + length;
    let switches = bytes.get(place.clone()).context("the guest ends in its marker")?;
    let alike = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b':';
    ensure!(switches.iter().all(alike), "there are no switches behind the marker");
    Ok(place)
}

/// A file that is no WebAssembly.
#[must_use]
pub fn not_a_module() -> Vec<u8> {
    b"#!/bin/sh\necho this is not WebAssembly\n".to_vec()
}

/// A good version of which the last third is missing.
pub fn truncated(version: u32) -> Result<Vec<u8>> {
    let mut bytes = module(version, Behaviour::Good)?;
    bytes.truncate(bytes.len() / 3 * 2);
    Ok(bytes)
}

/// A sound component of a world that has nothing to do with transforms.
pub fn wrong_world() -> Result<Vec<u8>> {
    let core = wat::parse_str(r#"(module (func (export "greet") (result i32) i32.const 42))"#)?;
    let world = "package example:other;\nworld other { export greet: func() -> u32; }\n";
    modules::component(core, world, "other")
}

/// Something that somebody wants to swap in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Candidate {
    /// A version of the guest.
    Version(Behaviour),
    /// See [`not_a_module`].
    NotAModule,
    /// See [`truncated`].
    Truncated,
    /// See [`wrong_world`].
    WrongWorld,
}

impl Candidate {
    /// One that is to be kept.
    pub const GOOD: Self = Self::Version(Behaviour::Good);

    /// Those that are not to stay, each bad in a way of its own.
    pub const BAD: [Self; 10] = [
        Self::NotAModule,
        Self::Truncated,
        Self::WrongWorld,
        Self::Version(Behaviour::TrapAtInitialise),
        Self::Version(Behaviour::RejectAtInitialise),
        Self::Version(Behaviour::TrapAt(1)),
        Self::Version(Behaviour::TrapAt(1_000)),
        Self::Version(Behaviour::Slow(10)),
        Self::Version(Behaviour::Leak(16 << 10)),
        Self::Version(Behaviour::Grow(2_000)),
    ];

    /// Its file's content.
    pub fn bytes(self, version: u32) -> Result<Vec<u8>> {
        match self {
            Self::Version(behaviour) => module(version, behaviour),
            Self::NotAModule => Ok(not_a_module()),
            Self::Truncated => truncated(version),
            Self::WrongWorld => wrong_world(),
        }
    }

    /// Whether it is refused before any of its code sees a record.
    #[must_use]
    pub const fn is_refused(self) -> bool {
        match self {
            Self::NotAModule | Self::Truncated | Self::WrongWorld => true,
            Self::Version(behaviour) => {
                matches!(behaviour, Behaviour::TrapAtInitialise | Behaviour::RejectAtInitialise)
            }
        }
    }

    /// Whether no record can come out of it, wherever it runs.
    #[must_use]
    pub const fn is_mute(self) -> bool {
        self.is_refused() || matches!(self, Self::Version(Behaviour::TrapAt(1)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sidestream::guest::{Config, Context, Engine, Guest, Output, Store};
    use sidestream_core::{
        record::{Batch, Origin, Records},
        task::{Effects, Failure, FailureKind, Processor as _, State},
    };
    use sidestream_sim::contract::processor::Committed;

    use super::*;

    fn engine() -> Engine {
        Engine::new(&Config::default()).unwrap()
    }

    fn start(engine: &Engine, version: u32, behaviour: Behaviour) -> Result<Guest, Failure> {
        let module = engine.load(&module(version, behaviour).unwrap(), "versions").unwrap();
        module.instantiate(&Context {
            application: "test".to_owned(),
            transform: "stamp".to_owned(),
            partition: 1,
            inputs: vec!["in".to_owned()],
            outputs: vec![Output { name: "out".to_owned(), partitions: Some(4) }],
            stores: vec![Store { name: "stamps".to_owned(), index: 0 }],
            config: "{}".to_owned(),
        })
    }

    /// A batch of so many records.
    fn process(guest: &mut Guest, count: usize) -> Result<Effects, Failure> {
        let batch = Batch {
            partition: 1,
            stream_time: -1,
            wall_clock: 0,
            origin: Origin::default(),
            inputs: vec![0; count],
            records: Records {
                offsets: (0..).take(count).collect(),
                timestamps: vec![0; count],
                timestamp_types: vec![0; count],
                keys: (0..count).map(|_| Some(&b"k"[..])).collect(),
                values: (0..count).map(|_| None).collect(),
                ..Records::default()
            },
        };
        let empty = Committed { stores: vec![BTreeMap::new()] };
        guest.process(&batch, &mut State::new(Box::new(empty), 1))
    }

    #[test]
    fn a_good_one_says_its_version() {
        let mut guest = start(&engine(), 4_294_967_295, Behaviour::Good).unwrap();
        let effects = process(&mut guest, 2).unwrap();
        assert_eq!(effects.emits.values.data(), b"12");
        let headers = effects.emits.headers.unwrap();
        assert_eq!(headers.values.data(), b"in104294967295in114294967295");
    }

    #[test]
    fn bad_ones_are_bad_in_their_ways() {
        let engine = engine();
        let trapped = start(&engine, 1, Behaviour::TrapAtInitialise).err().unwrap();
        assert_eq!(trapped.kind, FailureKind::Initialise, "{trapped}");
        assert!(trapped.to_string().contains("trapped as it was initialised"), "{trapped}");
        let rejected = start(&engine, 1, Behaviour::RejectAtInitialise).err().unwrap();
        assert!(rejected.to_string().contains(REJECTED), "{rejected}");
        let mut trapping = start(&engine, 1, Behaviour::TrapAt(1_000)).unwrap();
        process(&mut trapping, 999).unwrap();
        assert_eq!(process(&mut trapping, 1).unwrap_err().kind, FailureKind::Trap);
        let mut grown = start(&engine, 1, Behaviour::Grow(2_000)).unwrap();
        assert_eq!(process(&mut grown, 3).unwrap().emits.values.data().len(), 6_000);
    }

    #[test]
    fn what_leaks_soon_has_several_times_the_memory() {
        let engine = engine();
        let memory = |behaviour| {
            let before = engine.memory_bytes();
            let mut guest = start(&engine, 1, behaviour).unwrap();
            process(&mut guest, 100).unwrap();
            engine.memory_bytes() - before
        };
        let (good, leaking) = (memory(Behaviour::Good), memory(Behaviour::Leak(64 << 10)));
        assert!(leaking > 4 * good, "{leaking} bytes instead of {good}");
    }

    #[test]
    fn what_is_slow_takes_several_times_the_time() {
        let engine = engine();
        let taken = |behaviour| {
            let mut guest = start(&engine, 1, behaviour).unwrap();
            process(&mut guest, 1).unwrap();
            // The fastest of some: others work on this machine too.
            let measure = |_| {
                let begun = std::time::Instant::now();
                process(&mut guest, 100).unwrap();
                begun.elapsed()
            };
            (0..5).map(measure).min().unwrap()
        };
        let (good, slow) = (taken(Behaviour::Good), taken(Behaviour::Slow(10)));
        assert!(slow > 5 * good, "{slow:?} instead of {good:?} for a hundred records");
    }

    #[test]
    fn what_is_no_module_for_a_pipeline_does_not_load() {
        let engine = engine();
        for candidate in [Candidate::NotAModule, Candidate::Truncated, Candidate::WrongWorld] {
            let bytes = candidate.bytes(1).unwrap();
            assert!(engine.load(&bytes, "versions").is_err(), "{candidate:?}");
        }
    }

    #[test]
    fn a_guest_without_exactly_one_marker_is_not_patched() {
        let marker = || MARKER.iter().copied();
        let guest: Vec<u8> = marker().chain([b'0'; 30]).collect();
        assert_eq!(switches_in(&guest, 23).unwrap(), 24..47);
        switches_in(b"nothing", 23).unwrap_err();
        switches_in(&guest[..40], 23).unwrap_err();
        switches_in(&[&guest[..], &guest[..]].concat(), 23).unwrap_err();
        switches_in(&[MARKER, &[0; 30]].concat(), 23).unwrap_err();
    }
}
