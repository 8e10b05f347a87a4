#!/bin/bash
# Prints the environment, one KEY=VALUE a line, in which `cargo build --target wasm32-unknown-unknown`
# works. Where the active tool chain has that target (`rustup target add wasm32-unknown-unknown`)
# nothing needs to be set and nothing is printed.
#
# Elsewhere Debian's rustc for the web, which can make WASM, is unpacked into a private folder and
# its standard library built once, in about a minute. No package is installed for that, and the
# active tool chain stays as it is. SIDESTREAM_GUEST_TOOLCHAIN names another folder.
set -euo pipefail

target=wasm32-unknown-unknown
prefix=${SIDESTREAM_GUEST_TOOLCHAIN:-${SIDESTREAM_CACHE:-$HOME/.cache/sidestream}/guest-toolchain}
packages=(rustc-web libstd-rust-web-1.96 libstd-rust-web-dev rust-web-src libllvm22)

has_target() { [ -e "$(rustc --print target-libdir --target $target)" ]; }

# The linker comes with rustup's tool chains; Debian has it as lld.
linker() {
  local host bundled
  host=$(rustc -vV | sed -n 's/^host: //p')
  bundled=$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld
  if [ -x "$bundled" ]; then echo "$bundled"; return; fi
  command -v wasm-ld-22 || command -v wasm-ld-19 || command -v wasm-ld ||
    { echo "no linker for WASM: install rustup's tool chain, or the package lld" >&2; return 1; }
}

unpack() {
  mkdir -p "$prefix/packages"
  (cd "$prefix/packages" && apt-get -q download "${packages[@]}")
  local package
  for package in "${packages[@]}"; do
    dpkg --fsys-tarfile "$prefix/packages/$package"_*.deb |
      tar -x -C "$prefix" --wildcards --exclude='./usr/share' './usr/*'
  done
  rm -rf "$prefix/packages"
  cat > "$prefix/rustc" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH=$prefix/usr/lib/x86_64-linux-gnu exec $prefix/usr/bin/rustc "\$@"
WRAPPER
  chmod +x "$prefix/rustc"
}

# Builds an empty crate with its own standard library, and keeps the library.
build_standard_library() {
  local work=$prefix/standard-library library=$prefix/usr/lib/rustlib/$target/lib
  mkdir -p "$work/src" "$library"
  : > "$work/src/lib.rs"
  printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' > "$work/Cargo.toml"
  (cd "$work" && env -u CARGO_INCREMENTAL RUSTC="$prefix/rustc" RUSTC_BOOTSTRAP=1 \
    RUSTFLAGS=-Cembed-bitcode=yes CARGO_TARGET_DIR="$work/target" \
    cargo build --release -Z build-std=std,panic_abort --target $target)
  rm -f "$work/target/$target/release/deps"/libempty*
  cp "$work/target/$target/release/deps"/*.rlib "$library/"
  rm -rf "$work"
}

if has_target; then exit 0; fi
lld=$(linker)
mkdir -p "$(dirname "$prefix")"
exec 9> "$prefix.lock"
flock 9
if [ ! -e "$prefix/complete" ]; then
  rm -rf "$prefix"
  { unpack && build_standard_library && touch "$prefix/complete"; } >&2
fi
echo "RUSTC=$prefix/rustc"
echo "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$lld"
