#!/usr/bin/env bash
# Makes a base image of Debian packages, where no registry has one: only what the binary links and
# the certificates of public authorities. Prints the image's name.
#
#   deploy/base.sh [IMAGE]
set -euo pipefail

image=${1:-localhost/sidestream-base}
packages=(base-files libc6 libgcc-s1 libstdc++6 ca-certificates)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/packages" "$work/tree"
(cd "$work/packages" && apt-get download -qq -o APT::Sandbox::User=root "${packages[@]}" >&2)
for package in "$work"/packages/*.deb; do
  dpkg-deb --extract "$package" "$work/tree"
done
# What the packages would do when they are set up.
mkdir -p "$work/tree/etc/ssl/certs" "$work/tree/var/lib/sidestream" "$work/tree/tmp"
find "$work/tree/usr/share/ca-certificates" -name '*.crt' -exec cat {} + \
  >"$work/tree/etc/ssl/certs/ca-certificates.crt"
echo 'root:x:0:0:root:/:/usr/sbin/nologin
sidestream:x:65532:65532::/var/lib/sidestream:/usr/sbin/nologin' >"$work/tree/etc/passwd"
echo 'root:x:0:
sidestream:x:65532:' >"$work/tree/etc/group"
rm -rf "$work"/tree/usr/share/{doc,man,locale,lintian,ca-certificates} "$work"/tree/usr/lib/*/gconv
chown -R 0:0 "$work/tree"
chown 65532:65532 "$work/tree/var/lib/sidestream"
chmod 1777 "$work/tree/tmp"

container=$(buildah from scratch)
buildah add --quiet "$container" "$work/tree" / >/dev/null
buildah commit --quiet --rm "$container" "$image" >/dev/null
echo "$image"
