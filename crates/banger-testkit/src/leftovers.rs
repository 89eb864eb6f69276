//! Detects objects that a test did not remove.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Leftovers of a home: processes with a working folder or environment in it, VMs, run files,
/// sockets. Empty if the test cleaned up.
pub fn leftovers(home: &Path) -> Vec<String> {
    let mut found = processes(home);
    let vms = home.join("state/vms");
    for entry in fs::read_dir(&vms).into_iter().flatten().flatten() {
        found.push(format!("{} is left", entry.path().display()));
    }
    found
}

/// Processes whose working folder or environment points into the home.
pub fn processes(home: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let marker = [b"BANGER_HOME=", home.as_os_str().as_bytes()].concat();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.path();
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        let works_there = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(home));
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let started_from = environment.split(|byte| *byte == 0).any(|pair| pair == marker);
        if works_there || started_from {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            // One that has ended and waits for its parent has no command line any more.
            if !line.is_empty() {
                found.push(format!("process {pid} is left: {line}"));
            }
        }
    }
    found
}
