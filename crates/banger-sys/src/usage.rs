//! Resource counters of processes and network interfaces: proc(5),
//! Documentation/ABI/testing/sysfs-class-net-statistics of the kernel.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::time::{ClockId, clock_gettime};

/// Maximum size of a file in bytes; each has less than 2 KiB.
const MAX_FILE: u64 = 16 * 1024;

/// Counters of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Parent.
    pub parent: u32,
    /// Time of the sample: microseconds since the host booted, also while it slept.
    pub sampled_us: u64,
    /// Milliseconds since the process started.
    pub age_ms: u64,
    /// CPU time of all its threads, user and system, in microseconds. The kernel counts in ticks,
    /// usually of 10 ms.
    pub cpu_time_us: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
}

/// Bytes that a process transferred from and to storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageIo {
    /// Bytes read; those in the page cache are not counted.
    pub read_bytes: u64,
    /// Bytes written, counted when they reach the page cache.
    pub written_bytes: u64,
}

/// Bytes that a network interface transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceIo {
    /// Bytes received by the host.
    pub received_bytes: u64,
    /// Bytes sent by the host.
    pub sent_bytes: u64,
}

fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// Counters of the process with this id; `None` if there is none.
pub fn process(pid: u32) -> Option<ProcessUsage> {
    let stat = read(format!("/proc/{pid}/stat")).ok()?;
    // The clock of the start time in the file.
    let now = clock_gettime(ClockId::Boottime);
    let now_us = u64::try_from(now.tv_sec).ok()? * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000;
    let tick_us = 1_000_000 / clock_ticks_per_second().max(1);
    parse_stat(&stat, now_us, tick_us, u64::try_from(page_size()).ok()?)
}

/// Fields are counted from the last parenthesis: the process name may contain spaces and
/// parentheses.
fn parse_stat(stat: &str, now_us: u64, tick_us: u64, page: u64) -> Option<ProcessUsage> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // proc(5) numbers the fields from 1; the first one here is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let started_us = field(22)?.saturating_mul(tick_us);
    Some(ProcessUsage {
        parent: u32::try_from(field(4)?).ok()?,
        sampled_us: now_us,
        age_ms: now_us.saturating_sub(started_us) / 1000,
        cpu_time_us: field(14)?.saturating_add(field(15)?).saturating_mul(tick_us),
        resident_bytes: field(24)?.saturating_mul(page),
    })
}

/// Storage transfers of a process; `None` if there is none, or if this process may not read them
/// (the permission of ptrace(2), PTRACE_MODE_READ_FSCREDS).
pub fn storage_io(pid: u32) -> Option<StorageIo> {
    parse_io(&read(format!("/proc/{pid}/io")).ok()?)
}

fn parse_io(text: &str) -> Option<StorageIo> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line?.trim().parse().ok()
    };
    Some(StorageIo { read_bytes: value("read_bytes")?, written_bytes: value("write_bytes")? })
}

/// Transfers of a network interface; `None` if there is none.
pub fn interface(name: &str) -> Option<InterfaceIo> {
    let folder = Path::new("/sys/class/net").join(name).join("statistics");
    let counter = |name: &str| read(folder.join(name)).ok()?.trim().parse().ok();
    Some(InterfaceIo { received_bytes: counter("rx_bytes")?, sent_bytes: counter("tx_bytes")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_parsed_behind_a_name_with_parentheses() {
        let stat = "7 (a) b (c)) S 42 7 7 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 4 0 1000 9 25 0";
        let usage = parse_stat(stat, 12_345_678, 10_000, 4096).unwrap();
        let expected = ProcessUsage {
            parent: 42,
            sampled_us: 12_345_678,
            age_ms: 2_345,
            cpu_time_us: 2_000_000,
            resident_bytes: 25 * 4096,
        };
        assert_eq!(usage, expected);
        for text in ["", "7 (x", "7 (x) S 1", "7 (x) S x 7 7 0 -1 1 1 2 3 4 1 1 7 8 2 0 4 0 1 9 2"]
        {
            assert_eq!(parse_stat(text, 0, 1, 1), None, "{text}");
        }
    }

    #[test]
    fn io_counts_storage_only() {
        let text = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 4096\nwrite_bytes: 8192\n\
                    cancelled_write_bytes: 5\n";
        assert_eq!(parse_io(text), Some(StorageIo { read_bytes: 4096, written_bytes: 8192 }));
        assert_eq!(parse_io("rchar: 1\n"), None);
    }

    #[test]
    fn counters_of_this_process_are_read() {
        let before = process(std::process::id()).unwrap();
        let mut sum = 0_u64;
        // The clock of CPU time has ticks.
        let after = loop {
            (0..1_000_000_u64).for_each(|n| sum = sum.wrapping_mul(31).wrapping_add(n));
            let now = process(std::process::id()).unwrap();
            if now.cpu_time_us > before.cpu_time_us {
                break now;
            }
        };
        assert!(sum > 0 && after.sampled_us > before.sampled_us);
        assert!(after.resident_bytes > 1 << 16 && after.age_ms >= before.age_ms);
        assert!(storage_io(std::process::id()).is_some());
        assert_eq!((process(u32::MAX), storage_io(u32::MAX)), (None, None));
        assert!(interface("lo").is_some() && interface("no-such-link").is_none());
    }
}
