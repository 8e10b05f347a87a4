//! The bindings that are checked in are those of the WIT package that is checked in.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};

#[test]
fn bindings_are_those_of_the_wit_package() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wit = fs::read(here.join("../../wit/transform.wit")).unwrap();
    let digest: String = Sha256::digest(&wit).iter().map(|byte| format!("{byte:02x}")).collect();
    let bindings = fs::read_to_string(here.join("src/bindings.rs")).unwrap();
    assert!(
        bindings.lines().take(2).any(|line| line.ends_with(&digest)),
        "wit/transform.wit has changed: run sdk/rust/bindings.sh"
    );
}
