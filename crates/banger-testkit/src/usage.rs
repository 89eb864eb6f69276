//! What a process holds, from proc(5).

use std::fs;

/// Resident memory of a process in KiB.
///
/// # Panics
/// It has ended.
#[track_caller]
pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    match kib {
        Some(kib) => kib,
        None => panic!("process {pid} has ended"),
    }
}

/// Number of open descriptors of a process.
///
/// # Panics
/// It has ended.
#[track_caller]
pub fn descriptors(pid: u32) -> usize {
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(folder) => folder.count(),
        Err(error) => panic!("process {pid}: {error}"),
    }
}
