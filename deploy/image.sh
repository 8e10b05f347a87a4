#!/usr/bin/env bash
# Builds the agent's image from a binary that is there. BASE names a base image that the machine has
# or can pull, with glibc, libstdc++ and CA certificates; without it one is made of Debian packages.
# Prints the image's name.
#
#   [BASE=IMAGE] deploy/image.sh BINARY [IMAGE]
set -euo pipefail

binary=${1:?which binary? deploy/image.sh BINARY [IMAGE]}
image=${2:-localhost/sidestream:0.1.0}
here=$(cd "$(dirname "$0")" && pwd)

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
if [ -z "${BASE:-}" ]; then
  BASE=localhost/sidestream-base
  "$here/base.sh" "$context/base.tar"
  podman import --quiet "$context/base.tar" "$BASE" >/dev/null
  rm "$context/base.tar"
fi
if grep --quiet --binary-files=text SIDESTREAM_CRASH_AT "$binary"; then
  echo "$binary can be made to crash by its environment, for tests: cargo build --release --package" \
    "sidestream builds one that can't" >&2
fi
cp "$here/../LICENSE" "$here/NOTICE" "$context/"
# Names of functions stay in, for backtraces; what else debuggers read does not.
strip --strip-debug -o "$context/sidestream" "$binary"
podman build --quiet --format docker --network none --build-arg "BASE=$BASE" --tag "$image" \
  --file "$here/Dockerfile" "$context" >/dev/null
echo "$image"
