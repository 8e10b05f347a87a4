#!/usr/bin/env bash
# Builds the agent's image from a binary that is there. BASE names a base image that the machine has
# or can pull; without it one is made of Debian packages. Prints the image's name.
#
#   [BASE=IMAGE] deploy/image.sh BINARY [IMAGE]
set -euo pipefail

binary=${1:?which binary? deploy/image.sh BINARY [IMAGE]}
image=${2:-localhost/sidestream}
here=$(cd "$(dirname "$0")" && pwd)
base=${BASE:-$("$here/base.sh")}

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
# Names of functions stay in, for backtraces; what else debuggers read does not.
strip --strip-debug -o "$context/sidestream" "$binary"
buildah build --quiet --format docker --build-arg "BASE=$base" --tag "$image" \
  --file "$here/Dockerfile" "$context" >/dev/null
echo "$image"
