//! Resource counters of the guest: proc(5), and the kernel's Documentation/admin-guide/iostats.rst
//! and Documentation/ABI/testing/sysfs-class-net-statistics.

use std::fs;

use banger_agent_proto::http::{MemoryUsage, TransferUsage, Usage};

/// Unit of `/proc/diskstats` in bytes, whatever the sector size of the disk is.
const SECTOR: u64 = 512;

/// All counters now.
pub fn now() -> Usage {
    let read = |path: &str| fs::read_to_string(path).ok();
    Usage {
        memory: read("/proc/meminfo").and_then(|text| memory(&text)),
        disk: read("/proc/diskstats").map(|text| disks(&text)),
        network: read("/proc/net/dev").map(|text| interfaces(&text, is_device)),
    }
}

fn memory(text: &str) -> Option<MemoryUsage> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(MemoryUsage { total_bytes: bytes("MemTotal")?, available_bytes: bytes("MemAvailable")? })
}

/// Transfers of the whole virtio disks: partitions and device-mapper devices would count twice.
fn disks(text: &str) -> TransferUsage {
    let whole = |name: &str| {
        let letters = name.strip_prefix("vd").unwrap_or_default();
        !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    let sums = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let sectors = |place: usize| fields.get(place)?.parse::<u64>().ok();
        whole(fields.get(2)?).then_some((sectors(5)?, sectors(9)?))
    });
    total(sums.map(|(read, written)| (read.saturating_mul(SECTOR), written.saturating_mul(SECTOR))))
}

/// Transfers of the interfaces that `counts` selects.
fn interfaces(text: &str, counts: impl Fn(&str) -> bool) -> TransferUsage {
    total(text.lines().filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<&str> = counters.split_whitespace().collect();
        let bytes = |place: usize| counters.get(place)?.parse::<u64>().ok();
        counts(name.trim()).then_some((bytes(0)?, bytes(8)?))
    }))
}

/// Whether an interface is a device of the VM, not the loopback or one of the guest's own bridges.
fn is_device(name: &str) -> bool {
    fs::exists(format!("/sys/class/net/{name}/device")).unwrap_or(false)
}

fn total(transfers: impl Iterator<Item = (u64, u64)>) -> TransferUsage {
    transfers.fold(TransferUsage::default(), |sum, (inward, outward)| TransferUsage {
        inward_bytes: sum.inward_bytes.saturating_add(inward),
        outward_bytes: sum.outward_bytes.saturating_add(outward),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_kibibytes() {
        let text = "MemTotal:         498624 kB\nMemFree:  1 kB\nMemAvailable:     400000 kB\n";
        let expected = MemoryUsage { total_bytes: 498_624 * 1024, available_bytes: 400_000 * 1024 };
        assert_eq!(memory(text), Some(expected));
        assert_eq!(memory("MemTotal: 1 kB\n"), None);
        assert_eq!(memory("MemTotal: x kB\nMemAvailable: 1 kB\n"), None);
    }

    #[test]
    fn whole_disks_are_counted_once() {
        let text = " 254       0 vda 10 0 100 5 20 0 200 6 0 7 8\n \
                    254       1 vda1 10 0 90 5 20 0 190 6 0 7 8\n \
                    254      16 vdb 10 0 1 5 20 0 2 6 0 7 8\n   \
                    7       0 loop0 10 0 50 5 20 0 50 6 0 7 8\n broken\n";
        let expected = TransferUsage { inward_bytes: 101 * 512, outward_bytes: 202 * 512 };
        assert_eq!(disks(text), expected);
    }

    #[test]
    fn interfaces_of_the_guest_itself_are_not_counted() {
        let text = "Inter-|   Receive                            |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes\n    \
                    lo:    500       5    0    0    0     0          0         0      500 5 0 0\n  \
                    eth0:    1000       5    0    0    0     0          0         0      70 5 0 0\n\
                    docker0: 9 9 0 0 0 0 0 0 9 9\n";
        let expected = TransferUsage { inward_bytes: 1000, outward_bytes: 70 };
        assert_eq!(interfaces(text, |name| name == "eth0"), expected);
    }

    #[test]
    fn this_machine_has_counters() {
        let usage = now();
        let memory = usage.memory.unwrap();
        assert!(memory.total_bytes > memory.available_bytes && memory.available_bytes > 0);
        assert!(usage.disk.is_some() && usage.network.is_some());
    }
}
