//! What is refused before it gets a record.

use std::time::Duration;

use sidestream::guest::{Compile, Config, Engine, Error};
use sidestream_core::task::{FailureKind, Processor};
use sidestream_tests::{
    agent,
    modules::{self, Wat, refusal, setup},
};

use crate::harness::{WASI, batch, check_failure, config, context, engine, instance, state};

fn refused(bytes: &[u8]) -> Error {
    engine().load(bytes, "hostile").expect_err("it is refused")
}

#[test]
fn what_is_not_a_component_is_refused() {
    let counter = Wat::counter();
    let component = counter.component().unwrap();
    assert!(matches!(refused(b"#!/bin/sh"), Error::NotWasm { .. }));
    assert!(matches!(refused(&counter.core_module().unwrap()), Error::CoreModule { .. }));
    for bytes in (0..component.len()).step_by(97).chain([component.len() - 1]) {
        match refused(&component[..bytes]) {
            Error::Truncated { .. } => {}
            // Cut between two of its sections: what is left is a component without exports.
            Error::Export { reason, .. } => assert!(reason.contains("or cut off"), "{reason}"),
            other => panic!("{bytes}: {other}"),
        }
    }
    let mut garbled = component.clone();
    garbled[8..].fill(0xff);
    assert!(matches!(refused(&garbled), Error::Invalid { .. } | Error::Truncated { .. }));
    let small = Engine::new(&Config { module_bytes_max: 100, ..config() }).unwrap();
    assert!(matches!(small.load(&component, "m"), Err(Error::TooLarge { .. })));
}

#[test]
fn a_compilation_has_an_end() {
    let component = Wat::counter().component().unwrap();
    let hasty = compiles_apart(Config { compile_time_max: Duration::ZERO, ..config() });
    let error = hasty.load(&component, "m").unwrap_err();
    assert!(matches!(&error, Error::CompileTime { .. }), "{error}");
    assert!(error.to_string().contains("`limits.compile_time_max`"), "{error}");
}

/// As the agent does it.
fn compiles_apart(config: Config) -> Engine {
    let program = agent::binary().expect("it was built");
    let compile = Compile::InProcess(program);
    Engine::new(&Config { compile, ..config }).expect("the machine runs WebAssembly")
}

#[test]
fn what_is_compiled_apart_is_the_same_and_its_faults_are_told_as_well() {
    let component = Wat::counter().component().unwrap();
    let apart = compiles_apart(config());
    let module = apart.load(&component, "m").unwrap();
    assert_eq!(module.imports(), engine().load(&component, "m").unwrap().imports());
    let mut guest = module.instantiate(&context()).unwrap();
    guest.process(&batch(), &mut state()).unwrap();
    let garbled = [&component[..8], &[0xff; 100]].concat();
    let [here, there] = [engine(), &apart].map(|engine| engine.load(&garbled, "m").unwrap_err());
    assert_eq!(here.to_string(), there.to_string());
    let absent = Compile::InProcess("absent/program".into());
    let error = Engine::new(&Config { compile: absent, ..config() }).unwrap();
    let error = error.load(&component, "m").unwrap_err().to_string();
    assert!(error.contains("absent/program"), "{error}");
}

/// One function that takes much more memory to compile than the module has bytes.
fn bomb() -> anyhow::Result<Vec<u8>> {
    let step = "(local.set 0 (i32.mul (local.get 0) (i32.load (local.get 0))))\n";
    let bomb =
        format!("(func $bomb (param i32) (result i32) {} (local.get 0))", step.repeat(200_000));
    Wat { fields: bomb, ..Wat::default() }.component()
}

#[test]
fn a_bomb_for_the_compiler_blames_only_itself() {
    let (bomb, innocent) = (bomb().unwrap(), Wat::counter().component().unwrap());
    let engine = compiles_apart(Config { compile_memory_bytes_max: 64 << 20, ..config() });
    std::thread::scope(|scope| {
        let bombs = [(); 2].map(|()| scope.spawn(|| engine.load(&bomb, "bomb")));
        engine.load(&innocent, "innocent").unwrap();
        for bomb in bombs {
            let error = bomb.join().unwrap().unwrap_err();
            assert!(matches!(&error, Error::CompileMemory { .. }), "{error}");
            let message = error.to_string();
            assert!(message.contains("`bomb`") && message.contains("`limits.compile_memory_max`"));
        }
    });
}

#[test]
fn forbidden_imports_are_refused_by_name() {
    let import = |import: &str, packages: &str| {
        let module = Wat {
            imports: format!("import {import};"),
            packages: packages.to_owned(),
            fields: format!("(import \"{import}\" \"send\" (func $send (result i32)))"),
            process: "(drop (call $send))".to_owned(),
            ..Wat::default()
        };
        refused(&module.component().unwrap()).to_string()
    };
    let error = import("wasi:http/outgoing-handler@0.2.3", WASI);
    assert!(error.contains("imports `wasi:http/outgoing-handler@0.2.3`"), "{error}");
    assert!(error.contains("`state` and `telemetry`"), "{error}");
    let own = "package evil:corp { interface door { send: func() -> u32; } }";
    let error = import("evil:corp/door", own);
    assert!(error.contains("imports `evil:corp/door`"), "{error}");
    let later = "package sidestream:transform@9.0.0 { interface state { send: func() -> u32; } }";
    let error = import("sidestream:transform/state@9.0.0", later);
    assert!(error.contains("imports `sidestream:transform/state@9.0.0`"), "{error}");
}

#[test]
fn a_grant_does_not_stretch_to_other_types() {
    let packages = "package wasi:random@0.2.3 { interface random { roll: func() -> u32; } }";
    let module = Wat {
        imports: "import wasi:random/random@0.2.3;".to_owned(),
        packages: packages.to_owned(),
        fields: "(import \"wasi:random/random@0.2.3\" \"roll\" (func $roll (result i32)))"
            .to_owned(),
        process: "(drop (call $roll))".to_owned(),
        ..Wat::default()
    };
    let error = refused(&module.component().unwrap()).to_string();
    assert!(error.contains("imports `wasi:random/random@0.2.3`"), "{error}");
    assert!(error.contains("roll"), "{error}");
}

#[test]
fn another_world_is_refused_by_name() {
    let core = wat::parse_str(r#"(module (func (export "run")))"#).unwrap();
    let wit = "package some:thing; world other { export run: func(); }";
    let component = modules::component(core, wit, "other").unwrap();
    let error = refused(&component).to_string();
    assert!(error.contains("sidestream:transform/columnar@0.1.0"), "{error}");
    assert!(error.contains("it exports `run`"), "{error}");
}

#[test]
fn a_module_that_does_not_initialise_says_why() {
    let refuses = Wat { setup: refusal("no such table"), ..Wat::default() };
    check_failure(&instance(&refuses).err().unwrap(), FailureKind::Initialise, "no such table");
    let traps = Wat { initialise: "unreachable".to_owned(), ..Wat::default() };
    check_failure(&instance(&traps).err().unwrap(), FailureKind::Initialise, "it trapped");
}

#[test]
fn punctuations_that_make_no_sense_are_refused() {
    for interval in [0, u64::MAX] {
        let module = Wat { setup: setup(false, &[interval]), ..Wat::default() };
        check_failure(&instance(&module).err().unwrap(), FailureKind::Malformed, "every");
    }
    let many = Wat { setup: setup(false, &[1; 30]), ..Wat::default() };
    assert_eq!(instance(&many).expect("thirty are fine").setup().schedules.len(), 30);
    let engine = Engine::new(&Config { schedules_max: 29, ..config() }).unwrap();
    let module = engine.load(&many.component().unwrap(), "many").unwrap();
    let failure = module.instantiate(&context()).err().unwrap();
    check_failure(&failure, FailureKind::Limit, "30 punctuations and may have 29");
}
