//! Largest memory of the daemon and its worker, and disk space of a folder, during some work.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Interval between two samples.
const SAMPLE: Duration = Duration::from_millis(5);
/// Argument by which a worker is known (`banger_image::images::worker`).
const WORKER: &[u8] = b"image-worker";

/// What was seen.
#[derive(Debug, Default)]
pub struct Peaks {
    /// Largest resident memory of the daemon (`VmHWM`).
    pub daemon_kib: u64,
    /// Largest resident memory of a worker.
    pub worker_kib: u64,
    /// Largest number of allocated bytes.
    pub disk: u64,
    /// Allocated bytes after the work.
    pub left: u64,
}

/// Does the work, and watches the daemon with this process id, its workers, and this folder.
pub fn watch<T>(daemon: u64, folder: &Path, work: impl FnOnce() -> T) -> (Peaks, T) {
    // Memory that earlier work has needed does not count: proc_pid_clear_refs(5).
    let _ = fs::write(format!("/proc/{daemon}/clear_refs"), "5");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peaks = Peaks::default();
            while !over.load(Ordering::SeqCst) {
                peaks.disk = peaks.disk.max(allocated(folder));
                for worker in children(daemon).into_iter().filter(|child| is_worker(*child)) {
                    peaks.worker_kib = peaks.worker_kib.max(largest_kib(worker));
                }
                std::thread::sleep(SAMPLE);
            }
            peaks
        });
        let done = work();
        over.store(true, Ordering::SeqCst);
        let mut peaks = watcher.join().unwrap_or_default();
        peaks.daemon_kib = largest_kib(daemon);
        peaks.left = allocated(folder);
        peaks.disk = peaks.disk.max(peaks.left);
        (peaks, done)
    })
}

/// Bytes of all files below a folder, each file once however many names it has.
pub fn allocated(folder: &Path) -> u64 {
    let (mut seen, mut sum, mut todo) = (HashSet::new(), 0, vec![folder.to_owned()]);
    while let Some(path) = todo.pop() {
        // Files vanish meanwhile.
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(entry.path());
            } else if seen.insert((meta.dev(), meta.ino())) {
                sum += meta.blocks() * 512;
            }
        }
    }
    sum
}

fn children(parent: u64) -> Vec<u64> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u64>().ok()));
    }
    children
}

fn is_worker(process: u64) -> bool {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == WORKER)
}

fn largest_kib(process: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|kib| kib.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let folder = std::env::temp_dir().join(format!("xtask-usage-{}", std::process::id()));
        fs::create_dir_all(folder.join("below")).unwrap();
        fs::write(folder.join("one"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(folder.join("one"), folder.join("below/two")).unwrap();
        let bytes = allocated(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
    }

    #[test]
    fn this_process_has_memory() {
        assert!(largest_kib(u64::from(std::process::id())) > 100);
        assert_eq!(largest_kib(u64::MAX), 0);
    }
}
