//! Modules written by hand, to do what no SDK would do.
//!
//! [`Wat`] is a transform in the text format of WebAssembly: a few functions, and the answers they
//! give as bytes in memory, as the canonical ABI lays them out.

mod answer;

use std::path::Path;

use anyhow::{Context as _, Result};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, WorldId};

pub use self::answer::{Answer, Column, Field};

/// Where an answer of `initialise` stands in a hand-written module's memory.
const SETUP_AT: usize = 256;
/// Where an answer of `process` and `punctuate` stands.
const ANSWER_AT: usize = 1_024;
/// Where the host is given memory for what it passes in.
const HEAP_AT: usize = 4 << 20;

/// A transform in WAT. The default one wants nothing, emits nothing and writes nothing.
#[derive(Clone, Debug)]
pub struct Wat {
    /// Interfaces to import besides those of the world, as items of a WIT world.
    pub imports: String,
    /// WIT packages that `imports` names.
    pub packages: String,
    /// Fields of the core module: imports first.
    pub fields: String,
    /// The memories; the first is the one that the host writes to.
    pub memory: String,
    /// What `initialise` does before it answers.
    pub initialise: String,
    /// What `process` does before it answers.
    pub process: String,
    /// What `punctuate` does before it answers.
    pub punctuate: String,
    /// The answer of `initialise`.
    pub setup: Vec<u8>,
    /// The answer of `process` and `punctuate`.
    pub answer: Answer,
}

impl Default for Wat {
    fn default() -> Self {
        Self {
            imports: String::new(),
            packages: String::new(),
            fields: String::new(),
            memory: "(memory (export \"memory\") 128)".to_owned(),
            initialise: String::new(),
            process: String::new(),
            punctuate: String::new(),
            setup: setup(false, &[]),
            answer: Answer::default(),
        }
    }
}

impl Wat {
    /// A module that counts records by key: see `counter.wat`.
    #[must_use]
    pub fn counter() -> Self {
        Self {
            fields: include_str!("counter.wat").to_owned(),
            process: "(return (call $count (local.get 0)))".to_owned(),
            punctuate: "(return (call $tick (local.get 1)))".to_owned(),
            ..Self::default()
        }
    }

    /// The core module.
    pub fn core_module(&self) -> Result<Vec<u8>> {
        let Self { fields, memory, initialise, process, punctuate, .. } = self;
        let setup = escape(&self.setup);
        let answer = escape(&self.answer.bytes(ANSWER_AT));
        let parameters = "i32 ".repeat(13);
        let text = format!(
            r#"(module
                {fields}
                {memory}
                (data (i32.const {SETUP_AT}) "{setup}")
                (data (i32.const {ANSWER_AT}) "{answer}")
                (global $free (mut i32) (i32.const {HEAP_AT}))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
                    (global.set $free (i32.add (local.get $at) (local.get 3)))
                    (local.get $at))
                (func (export "sidestream:transform/transform@0.1.0#initialise")
                    (param {parameters}) (result i32)
                    {initialise}
                    (i32.const {SETUP_AT}))
                (func $process (export "sidestream:transform/transform@0.1.0#process")
                    (param i32) (result i32)
                    (global.set $free (i32.const {HEAP_AT}))
                    {process}
                    (i32.const {ANSWER_AT}))
                (func (export "sidestream:transform/transform@0.1.0#punctuate")
                    (param i32 i64 i32 i64 i64) (result i32)
                    {punctuate}
                    (i32.const {ANSWER_AT})))"#
        );
        wat::parse_str(&text).with_context(|| text.chars().take(4_000).collect::<String>())
    }

    /// The component.
    pub fn component(&self) -> Result<Vec<u8>> {
        let Self { imports, packages, .. } = self;
        let wit = format!(
            "package sidestream:hostile;\n{packages}\nworld module {{\n    \
             include sidestream:transform/columnar@0.1.0;\n    {imports}\n}}\n"
        );
        component(self.core_module()?, &wit, "module")
    }
}

/// Turns a core module into a component of `world` of a WIT package, which may use those of
/// `wit/`.
pub fn component(core_module: Vec<u8>, wit: &str, world: &str) -> Result<Vec<u8>> {
    let (resolve, world) = resolve(wit, world)?;
    encode(core_module, &resolve, world)
}

/// A component of `world` of a WIT package that imports all there is of it, and traps when it is
/// called.
pub fn importer(wit: &str, world: &str) -> Result<Vec<u8>> {
    let (resolve, world) = resolve(wit, world)?;
    let abi = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);
    let core_module = wit_component::dummy_module(&resolve, world, abi);
    encode(core_module, &resolve, world)
}

fn resolve(wit: &str, world: &str) -> Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    resolve.push_dir(folder)?;
    let package = resolve.push_str("module.wit", wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    Ok((resolve, world))
}

fn encode(mut core_module: Vec<u8>, resolve: &Resolve, world: WorldId) -> Result<Vec<u8>> {
    embed_component_metadata(&mut core_module, resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(&core_module)?.encode()
}

/// The bytes of an answer of `initialise`: whether it wants headers, and its schedules (by wall
/// clock, so many milliseconds apart).
#[must_use]
pub fn setup(headers: bool, intervals_ms: &[u64]) -> Vec<u8> {
    let schedules_at = u32::try_from(SETUP_AT + 16).expect("it is low");
    let count = u32::try_from(intervals_ms.len()).expect("there are few");
    let mut bytes = vec![0, 0, 0, 0, u8::from(headers), 0, 0, 0];
    bytes.extend(schedules_at.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    for interval in intervals_ms {
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(interval.to_le_bytes());
    }
    bytes
}

/// The bytes of an error of `initialise`.
#[must_use]
pub fn refusal(message: &str) -> Vec<u8> {
    let message_at = u32::try_from(SETUP_AT + 12).expect("it is low");
    let count = u32::try_from(message.len()).expect("it is short");
    let mut bytes = vec![1, 0, 0, 0];
    bytes.extend(message_at.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(message.bytes());
    bytes
}

fn escape(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}
