#!/usr/bin/env bash
# Makes a base image's root file system of Debian packages, where no registry has one: what the
# agent's binary links, the certificates of public authorities, and further PACKAGEs with what they
# depend on. Needs apt's lists, and no root. `podman import TAR IMAGE` makes an image of it.
#
#   deploy/base.sh TAR [PACKAGE...]
set -euo pipefail

tar=${1:?where to? deploy/base.sh TAR [PACKAGE...]}
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/packages/partial" "$work/tree"

# By the status of a machine that has nothing yet, so that everything they depend on comes too.
: >"$work/status"
apt-get install -qq --yes --no-install-recommends --download-only \
  -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" -o Dir::State::status="$work/status" \
  -o Dir::Cache::archives="$work/packages" libstdc++6 "$@" >&2
# Alone: what these depend on serves their set-up.
(cd "$work/packages" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" base-files ca-certificates >&2)
for package in "$work"/packages/*.deb; do
  dpkg-deb --extract "$package" "$work/tree"
done

# What the packages would do when they are set up.
mkdir -p "$work/tree/etc/ssl/certs" "$work/tree/var/lib/sidestream"
find "$work/tree/usr/share/ca-certificates" -name '*.crt' -exec cat {} + \
  >"$work/tree/etc/ssl/certs/ca-certificates.crt"
echo 'root:x:0:0:root:/:/usr/sbin/nologin
sidestream:x:65532:65532::/var/lib/sidestream:/usr/sbin/nologin' >"$work/tree/etc/passwd"
echo 'root:x:0:
sidestream:x:65532:' >"$work/tree/etc/group"
rm -rf "$work"/tree/usr/share/{man,locale,lintian,ca-certificates} "$work"/tree/usr/lib/*/gconv
# Of the documentation the licences stay: whoever passes the image on passes them on.
find "$work/tree/usr/share/doc" -type f ! -name copyright -delete

# The state directory belongs to the agent, everything else to root, whoever made it.
tar --create --file "$work/base.tar" --owner 0 --group 0 --directory "$work/tree" \
  --exclude ./var/lib/sidestream .
tar --append --file "$work/base.tar" --owner 65532 --group 65532 --directory "$work/tree" \
  ./var/lib/sidestream
mv "$work/base.tar" "$tar"
