#!/usr/bin/env bash
# Builds the example application's image; needs protoc. BASE names a base image that has Python,
# grpcio and protobuf; without it one is made of Debian packages. Prints the image's name.
#
#   [BASE=IMAGE] deploy/example/image.sh [IMAGE]
set -euo pipefail

image=${1:-localhost/word-count-application:0.1.0}
here=$(cd "$(dirname "$0")" && pwd)
protocol=$here/../../agent/proto

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
if [ -z "${BASE:-}" ]; then
  BASE=localhost/word-count-application-base
  "$here/../base.sh" "$context/base.tar" python3-grpcio python3-protobuf
  podman import --quiet "$context/base.tar" "$BASE" >/dev/null
  rm "$context/base.tar"
fi
mkdir "$context/application"
cp "$here/application.py" "$context/application/"
protoc --proto_path "$protocol" --python_out "$context/application" \
  "$protocol/sidestream/control/v1/control.proto"
chmod -R a+rX "$context/application"
podman build --quiet --format docker --network none --build-arg "BASE=$BASE" --tag "$image" \
  --file "$here/Dockerfile" "$context" >/dev/null
echo "$image"
