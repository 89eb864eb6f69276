#!/usr/bin/env bash
# Makes the lab's disk: a Debian host with systemd, as a developer has one.
#   scripts/lab/image/build.sh FOLDER     leaves lab.ext4, vmlinuz and initrd.img in FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$1" && pwd)
export PATH=$PATH:/usr/sbin:/sbin
suite=bookworm
packages=$(grep -v '^#' "$here/packages.txt" | paste -sd,)
tree=$out/tree
# mmdebstrap works here, not in the machine's folder for temporary files.
mkdir -p "$out/work" && export TMPDIR=$out/work
# An initramfs with nothing but what the lab's devices need: under emulation its size is time.
early='set -e; cp -r "$HERE/early/." "$1/"'
# Units, network, and an ordinary user with sudo.
late='set -e; cp -r "$HERE/files/." "$1/"; chroot "$1" sh -s <"$HERE/customize.sh"'
# In namespaces of its own, so that nothing stays mounted or running however it ends.
HERE=$here unshare --mount --pid --fork --kill-child --mount-proc -- \
  mmdebstrap --variant=minbase --include="$packages" \
  --dpkgopt=path-exclude='/usr/share/man/*' --dpkgopt=path-exclude='/usr/share/info/*' \
  --dpkgopt=path-exclude='/usr/share/locale/*' --dpkgopt=path-exclude='/usr/share/doc/*' \
  --aptopt='Apt::Install-Recommends "false"' \
  --essential-hook="$early" --customize-hook="$late" "$suite" "$tree"
cp "$tree"/boot/vmlinuz-* "$out/vmlinuz"
cp "$tree"/boot/initrd.img-* "$out/initrd.img"
mke2fs -q -t ext4 -L lab -d "$tree" -E assume_storage_prezeroed=1 \
  "$out/lab.ext4" 16G
rm -rf "$tree" "$out/work"
