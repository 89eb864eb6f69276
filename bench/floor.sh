#!/usr/bin/env bash
# The floor: the same VMM, companion, kernel, initramfs and disks, started by hand with nothing
# around them. Prints the milliseconds from the first process until the guest reports ready.
#   bench/floor.sh CONFIG.json KERNEL INITRAMFS MODULES IMAGE BLANK_ROOT BLANK_WORK APPEND MEMORY_MIB
set -euo pipefail
config=$1 kernel=$2 initramfs=$3 modules=$4 image=$5 blank_root=$6 blank_work=$7 append=$8 memory=$9
qemu=${QEMU:-qemu-system-x86_64} companion=${VHOST_DEVICE_VSOCK:-vhost-device-vsock}
dir=$(mktemp -d) && cd "$dir"
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
begin=$(date +%s%N)
cp --sparse=always "$blank_root" root.ext4
cp --sparse=always "$blank_work" work.ext4
# Answers the guest's hello with its configuration and waits for the line that says ready.
socat UNIX-LISTEN:v.sock_10789 SYSTEM:"read hello; cat $config; read ready; echo \"\$ready\" >ready" &
answer=$!
"$companion" --guest-cid 3 --socket vhost.sock --uds-path v.sock >companion.log 2>&1 &
while [ ! -S vhost.sock ]; do sleep 0.001; done
"$qemu" -accel tcg,tb-size=64 -M microvm,memory-backend=mem,x-option-roms=off,pit=off,pic=off \
  -cpu max \
  -smp 1 -m "${memory}M" -object memory-backend-memfd,id=mem,size="${memory}M",share=on \
  -kernel "$kernel" -initrd "$initramfs" -append "$append" -serial file:console.log \
  -chardev socket,id=vsock,path=vhost.sock -device vhost-user-vsock-device,chardev=vsock \
  -drive if=none,id=root,file=root.ext4,format=raw -device virtio-blk-device,drive=root,serial=root \
  -drive if=none,id=work,file=work.ext4,format=raw -device virtio-blk-device,drive=work,serial=work \
  -drive if=none,id=image,file="$image",format=raw,readonly=on \
  -device virtio-blk-device,drive=image,serial=image \
  -drive if=none,id=modules,file="$modules",format=raw,readonly=on \
  -device virtio-blk-device,drive=modules,serial=modules \
  -netdev user,id=net,ipv6=off -device virtio-net-device,netdev=net,mac=02:00:00:00:00:01 \
  -nodefaults -no-user-config -nographic -no-reboot >qemu.log 2>&1 &
wait "$answer"
grep -q '"ready"' ready || { cat console.log qemu.log companion.log ready >&2; exit 1; }
echo $((($(date +%s%N) - begin) / 1000000))
