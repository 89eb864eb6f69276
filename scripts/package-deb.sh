#!/usr/bin/env bash
# Makes a Debian package of a finished build and prints its path.
#
#   scripts/package-deb.sh [FOLDER]     FOLDER (default target) receives the package
#
# BUILD (default target/release) is the build. Needs dpkg-deb and readelf.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target} build=${BUILD:-target/release}
version=$(sed -nE 's/^version = "(.*)"/\1/p' Cargo.toml | head -n1)
arch=$(dpkg --print-architecture)
name=banger_${version}_$arch
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"

PREFIX=/usr DESTDIR=$stage BUILD=$build scripts/install.sh install
doc=$stage/usr/share/doc/banger
mkdir -p "$doc" "$stage/DEBIAN"
cp README.md docs/*.md "$doc/"
cp LICENSE* "$doc/" 2>/dev/null || true

# The newest version of the C library that a program asks for.
glibc=$(find "$stage/usr/lib/banger" -maxdepth 1 -type f -exec readelf --wide --version-info {} + |
  grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n1)
cat >"$stage/DEBIAN/control" <<CONTROL
Package: banger
Version: $version
Architecture: $arch
Maintainer: The banger developers <banger@localhost>
Section: admin
Priority: optional
Installed-Size: $(du -sk "$stage/usr" | cut -f1)
Depends: libc6 (>= ${glibc#GLIBC_}), libgcc-s1, e2fsprogs, kmod, xz-utils, dpkg
Recommends: qemu-system-x86, mmdebstrap, git, nftables, openssh-client
Description: real Linux machines in one command
 Each machine is a microVM of Firecracker or QEMU with a kernel, disks and a
 network of its own, ready in seconds and cheap to delete.
CONTROL
# The helper is set up by the administrator, once (\`banger-root install\`): the package never starts
# a service. An existing one gets the programs and units of this version; VMs go on.
cat >"$stage/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ] &&
  [ -e /etc/systemd/system/banger-root.service ]; then
  /usr/lib/banger/banger-root install >/dev/null
fi
SCRIPT
cat >"$stage/DEBIAN/prerm" <<'SCRIPT'
#!/bin/sh
set -e
# Refused while there are VMs: their disks would remain without a program to delete them.
if [ "$1" = remove ] && [ -e /etc/systemd/system/banger-root.service ]; then
  /usr/lib/banger/banger-root uninstall
fi
SCRIPT
chmod 755 "$stage/DEBIAN/postinst" "$stage/DEBIAN/prerm"
dpkg-deb --build --root-owner-group "$stage" "$out/$name.deb" >/dev/null
echo "$out/$name.deb"
