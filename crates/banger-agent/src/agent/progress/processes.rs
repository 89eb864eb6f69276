//! Processes as /proc shows them: for inits that report nothing.

use std::fs;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command line, arguments separated by spaces.
    pub command: String,
    /// Whether it waits for something that may never come, so state `S` of proc_pid_stat(5): one
    /// that waits for a CPU or a disk does not.
    pub is_asleep: bool,
}

/// The children of process 1 but for the agent and its supervisor; zombies do not count.
pub fn of_init() -> Vec<Process> {
    let own = [std::process::id(), std::os::unix::process::parent_id()];
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| !own.contains(pid) && *pid != 1)
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let state = state_of_child(&stat)?;
            Some(Process { pid, command: command_of(pid), is_asleep: state == "S" })
        })
        .collect()
}

/// The command line of a process; empty for one that is gone, or of the kernel.
pub fn command_of(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.split('\0').collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// State of a child of process 1 that is no zombie, of `/proc/PID/stat`: `pid (name) state ppid …`,
/// where the name may hold anything.
fn state_of_child(stat: &str) -> Option<&str> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?);
    (state != "Z" && parent == "1").then_some(state)
}

/// Processes made since the kernel started: the line `processes` of `/proc/stat`.
pub fn made() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("processes "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_of_init_are_recognised() {
        assert_eq!(state_of_child("12 (rc) S 1 12 12 0"), Some("S"));
        assert_eq!(state_of_child("12 (a) S 7 (b) D 1 12"), Some("D"));
        assert_eq!(state_of_child("12 (rc) S 11 12"), None);
        assert_eq!(state_of_child("12 (rc) Z 1 12"), None);
        assert_eq!(state_of_child(""), None);
    }

    #[test]
    fn this_system_has_processes() {
        assert!(made().unwrap() > 1);
        assert!(command_of(std::process::id()).contains("banger"));
    }
}
