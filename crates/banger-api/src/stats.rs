//! Resource usage of VMs.
//!
//! A sample contains counters, which begin with the run of the VM. Rates are differences between
//! two samples: the daemon keeps none, so that nothing is measured while no client asks.

use serde::{Deserialize, Serialize};

use crate::VmId;
use crate::names::VmName;
use crate::vm::{DiskView, VmState};

/// One sample of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmStats {
    /// Id.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// State.
    pub state: VmState,
    /// Disk usage; `null` if it is unknown.
    pub disk: Option<DiskView>,
    /// Usage of the run; `null` while the VM is not running, or if its VMM cannot be measured.
    pub run: Option<RunStats>,
}

/// Usage of a running VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunStats {
    /// Time of the sample on a clock of the host that is never set, in microseconds. Only
    /// differences between samples have a meaning.
    pub sampled_us: u64,
    /// Age of the VMM in milliseconds.
    pub uptime_ms: u64,
    /// CPU.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Transfers of the disks; `null` if they are unknown.
    pub disk_io: Option<DiskIo>,
    /// Transfers of the network interface; `null` if they are unknown.
    pub network: Option<NetworkIo>,
}

/// CPU usage of a VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CpuStats {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// CPU time of all threads of the VMM, user and system, in microseconds.
    pub time_us: u64,
}

/// Memory usage of a VM in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MemoryStats {
    /// Memory of the guest. The VMM itself needs some more.
    pub limit_bytes: u64,
    /// Resident memory of the VMM on the host.
    pub resident_bytes: u64,
    /// Memory as reported by the guest; `null` if its agent does not report it.
    pub guest: Option<GuestMemory>,
}

/// Memory as the guest's kernel reports it (`/proc/meminfo`), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GuestMemory {
    /// Memory that the guest's kernel manages (`MemTotal`).
    pub total_bytes: u64,
    /// Memory available to programs without swapping (`MemAvailable`).
    pub available_bytes: u64,
}

/// Where a counter was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// On the host.
    Host,
    /// In the guest, by its agent. The host cannot check the value.
    Guest,
}

/// Transfers of the disks of a VM in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DiskIo {
    /// Bytes read. On the host, those that came from its storage and not from its page cache.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Where they were counted.
    pub source: Source,
}

/// Transfers of the network interface of a guest in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NetworkIo {
    /// Bytes received by the guest.
    pub received_bytes: u64,
    /// Bytes sent by the guest.
    pub sent_bytes: u64,
    /// Where they were counted.
    pub source: Source,
}

/// CPU usage between two samples, in percent of one host CPU: 200 for two busy vCPUs. `None` if a
/// sample has no run, if both are of the same time, or if the VM was restarted in between.
pub fn cpu_percent(before: &VmStats, after: &VmStats) -> Option<f64> {
    let (before, after) = (before.run.as_ref()?, after.run.as_ref()?);
    let elapsed_us = after.sampled_us.checked_sub(before.sampled_us).filter(|us| *us > 0)?;
    let busy_us = after.cpu.time_us.checked_sub(before.cpu.time_us)?;
    if after.uptime_ms.saturating_add(1).saturating_mul(1000) < elapsed_us {
        return None;
    }
    Some(busy_us as f64 * 100.0 / elapsed_us as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sampled_us: u64, uptime_ms: u64, time_us: u64) -> VmStats {
        VmStats {
            id: "0123456789ab".parse().unwrap(),
            name: "web".parse().unwrap(),
            state: VmState::Running,
            disk: None,
            run: Some(RunStats {
                sampled_us,
                uptime_ms,
                cpu: CpuStats { vcpus: 1, time_us },
                memory: MemoryStats { limit_bytes: 0, resident_bytes: 0, guest: None },
                disk_io: None,
                network: None,
            }),
        }
    }

    #[test]
    fn percent_is_of_one_cpu_and_of_one_run() {
        let before = sample(1_000_000, 5_000, 400_000);
        assert_eq!(cpu_percent(&before, &sample(2_000_000, 6_000, 400_000)), Some(0.0));
        assert_eq!(cpu_percent(&before, &sample(2_000_000, 6_000, 900_000)), Some(50.0));
        assert_eq!(cpu_percent(&before, &sample(1_500_000, 5_500, 1_400_000)), Some(200.0));
        assert_eq!(cpu_percent(&before, &before), None, "no time has passed");
        assert_eq!(cpu_percent(&sample(2_000_000, 6_000, 0), &before), None, "the wrong order");
        let restarted = sample(3_000_000, 900, 500_000);
        assert_eq!(cpu_percent(&before, &restarted), None, "another run");
        assert_eq!(cpu_percent(&before, &sample(3_000_000, 900, 1)), None);
        let stopped = VmStats { run: None, ..before.clone() };
        assert_eq!(cpu_percent(&before, &stopped), None);
        assert_eq!(cpu_percent(&stopped, &before), None);
    }
}
