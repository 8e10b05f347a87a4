#!/bin/bash
# Builds the example modules and those of the tests to WASM components, modules/<name>.wasm beside
# this script. What hasn't changed is neither built nor written again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

target=wasm32-unknown-unknown
compiled=${CARGO_TARGET_DIR:-${SIDESTREAM_CACHE:-$HOME/.cache/sidestream}/target}
export CARGO_TARGET_DIR=$compiled

# Modules have a target folder of their own: another compiler than the agent's may build them.
environment=$(./toolchain.sh)
# shellcheck disable=SC2086 # one KEY=VALUE a word
env $environment CARGO_TARGET_DIR="$compiled/modules" \
  cargo build --quiet --release --lib --workspace --target $target

built=()
for manifest in */Cargo.toml word-count/*/Cargo.toml ../tests/guests/*/Cargo.toml; do
  grep -q cdylib "$manifest" || continue
  name=$(basename "$(dirname "$manifest")")
  built+=("$compiled/modules/$target/release/${name//-/_}.wasm")
done
cargo run --quiet -p componentize -- modules "${built[@]}"
ls -l modules/*.wasm
