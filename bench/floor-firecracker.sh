#!/usr/bin/env bash
# The floor under Firecracker: kernel, initramfs and disks as ours, the root a dm snapshot too, but
# started by hand, no jailer. Prints the milliseconds from the first process until ready.
#   bench/floor-firecracker.sh CONFIG.json KERNEL INITRAMFS MODULES IMAGE BLANK_WORK APPEND MEMORY_MIB
# CONFIG.json names disks by position: 0 root, 1 work, 2 modules. TAP and MAC, if set, give a network.
set -euo pipefail
config=$1 kernel=$2 initramfs=$3 modules=$4 image=$5 blank_work=$6 append=$7 memory=$8
firecracker=${FIRECRACKER:-firecracker} name=floor-$$ loops=()
dir=$(mktemp -d) && cd "$dir"
clean() {
  kill -9 $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true
  dmsetup remove --retry "$name" 2>/dev/null || true
  for loop in "${loops[@]}"; do losetup -d "$loop" || true; done
  cd / && rm -rf "$dir"
}
trap clean EXIT
begin=$(date +%s%N)
cp --sparse=always "$blank_work" work.ext4
truncate -s "$(stat -Lc %s "$image")" layer
loops+=("$(losetup -f --show -r "$image")"); loops+=("$(losetup -f --show layer)")
sectors=$(blockdev --getsz "${loops[0]}")
dmsetup create "$name" --table "0 $sectors snapshot ${loops[*]} P 8"
drive() { # ID PATH READ_ONLY ROOT
  printf '{"drive_id":"%s","path_on_host":"%s","is_read_only":%s,"is_root_device":%s' "$@"
  printf ',"cache_type":"Writeback"}'
}
net=${TAP:+"{\"iface_id\":\"eth0\",\"host_dev_name\":\"$TAP\",\"guest_mac\":\"${MAC:-}\"}"}
cat >vm.json <<END
{"boot-source": {"kernel_image_path": "$kernel", "initrd_path": "$initramfs", "boot_args": "$append"},
 "drives": [$(drive root "/dev/mapper/$name" false false), $(drive work work.ext4 false false),
   $(drive modules "$modules" true false)], "network-interfaces": [$net],
 "machine-config": {"vcpu_count": 1, "mem_size_mib": $memory},
 "vsock": {"guest_cid": 3, "uds_path": "v.sock"}, "entropy": {}}
END
mkfifo ready && exec 3<>ready
# A slow guest may give up its first connection without a word and dial again.
socat UNIX-LISTEN:v.sock_10789,fork \
  SYSTEM:"read hello && cat $config && read ready && echo \"\$ready\" >ready" 3>&- &
"$firecracker" --no-api --config-file vm.json >console.log 2>vmm.log 3>&- & vmm=$!
(tail --pid "$vmm" -f /dev/null >/dev/null 2>&1 3>&-; echo ended >&3) &
# Asleep meanwhile: a guest needs the processors.
read -r ready <&3
end=$(date +%s%N)
[[ $ready == *'"ready"'* ]] || { echo "$ready" >&2; tail -n 50 console.log vmm.log >&2; exit 1; }
echo $(((end - begin) / 1000000))
