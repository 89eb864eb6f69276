//! Counters of VMMs from `/proc`.

use async_trait::async_trait;
use banger_engine::meter::{Transfers, VmmMeter, VmmUsage};
use banger_engine::plan::{ProcRef, RunPlan, VmPlan};
use banger_sys::{proc, usage};

use crate::failure::blocking;

/// The VMM of a run: a child of its shim.
pub struct Processes;

#[async_trait]
impl VmmMeter for Processes {
    async fn read(&self, _vm: &VmPlan, run: &RunPlan) -> Option<VmmUsage> {
        let (shim, pid) = (run.shim?, run.vmm_pid?);
        blocking(move || Ok(of_child(shim, pid))).await.ok()?
    }
}

/// Counters of the process `pid` if it is a child of `shim`. The id alone would not identify it:
/// the kernel may have given it to another process since the VMM ended.
fn of_child(shim: ProcRef, pid: u32) -> Option<VmmUsage> {
    let process = usage::process(pid).filter(|process| process.parent == shim.pid)?;
    // Checked afterwards: while the shim lives, its process id is not another process's.
    if proc::start_time(shim.pid) != Some(shim.start_time) {
        return None;
    }
    Some(VmmUsage {
        sampled_us: process.sampled_us,
        uptime_ms: process.age_ms,
        cpu_time_us: process.cpu_time_us,
        resident_bytes: process.resident_bytes,
        // Other users' processes, such as those in a jail, show this to root only.
        disk: usage::storage_io(pid).map(|moved| Transfers {
            inward_bytes: moved.read_bytes,
            outward_bytes: moved.written_bytes,
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_the_child_of_the_shim_is_measured() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let shim = proc::reference(std::process::id()).unwrap();
        // The kernel counts pages in batches, so a process that has just begun may have none.
        let usage = loop {
            let usage = of_child(shim, child.id()).unwrap();
            if usage.resident_bytes > 0 || usage.uptime_ms > 10_000 {
                break usage;
            }
            std::thread::yield_now();
        };
        assert!(usage.resident_bytes > 0 && usage.sampled_us > 0, "{usage:?}");
        assert!(usage.disk.is_some(), "a process of this user: {usage:?}");
        let other = ProcRef { start_time: shim.start_time + 1, ..shim };
        assert_eq!(of_child(other, child.id()), None, "the shim ended, its id is in use again");
        let parent = ProcRef { pid: 1, ..shim };
        assert_eq!(of_child(parent, child.id()), None, "the child of another process");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of_child(shim, child.id()), None, "the VMM has ended");
    }
}
