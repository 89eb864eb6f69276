//! Orders of the list of VMs.

use std::cmp::Ordering;

use banger_api::vm::VmState;

use super::vms::Vm;

/// A column by which the list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortBy {
    /// Name.
    Name,
    /// State.
    State,
    /// CPU usage.
    Cpu,
    /// Memory usage.
    Memory,
    /// Disk usage.
    Disk,
    /// Age.
    Age,
}

impl SortBy {
    /// All, in the order of the columns.
    pub const ALL: [Self; 6] =
        [Self::Name, Self::State, Self::Cpu, Self::Memory, Self::Disk, Self::Age];

    /// The next one.
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|one| *one == self).unwrap_or_default();
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

/// Compares two VMs by a column.
pub fn compare(by: SortBy, a: &Vm, b: &Vm) -> Ordering {
    let number = |value: Option<f64>| value.unwrap_or(-1.0);
    match by {
        SortBy::Name => a.summary.name.cmp(&b.summary.name),
        SortBy::State => rank(a.summary.state).cmp(&rank(b.summary.state)),
        SortBy::Cpu => number(a.cpu_now()).total_cmp(&number(b.cpu_now())),
        SortBy::Memory => a.memory_used().cmp(&b.memory_used()),
        SortBy::Disk => a.disk_used().cmp(&b.disk_used()),
        // The youngest first.
        SortBy::Age => b.created_ms.cmp(&a.created_ms),
    }
}

/// Order of states: what needs attention first.
fn rank(state: VmState) -> u8 {
    match state {
        VmState::Broken => 0,
        VmState::Starting => 1,
        VmState::Stopping => 2,
        VmState::Deleting => 3,
        VmState::Running => 4,
        VmState::Paused => 5,
        VmState::Stopped => 6,
    }
}
