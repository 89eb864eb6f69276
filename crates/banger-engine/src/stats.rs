//! Samples of the resource usage of VMs. Nothing is measured between two requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use banger_api::VmId;
use banger_api::size::MIB;
use banger_api::stats::{CpuStats, DiskIo, MemoryStats, NetworkIo, RunStats, Source, VmStats};
use banger_api::vm::VmState;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::drivers::Drivers;
use crate::engine::Engine;
use crate::meter::{GuestUsage, Transfers};
use crate::op_counts::OpCounts;
use crate::plan::{RunPlan, VmPlan};
use crate::shared::Published;

/// Number of VMs that are measured in parallel.
const MAX_PARALLEL: usize = 64;
/// Time limit for the agent of one guest to answer.
const GUEST_TIMEOUT: Duration = Duration::from_millis(500);
/// Time limit for the agents of all guests of one request. Later ones are not asked.
const ALL_GUESTS_TIMEOUT: Duration = Duration::from_secs(2);

/// VMs of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Running and paused VMs.
    Running,
    /// All VMs.
    All,
    /// VMs of these ids, in any state. Ids without a VM are ignored.
    Ids(BTreeSet<VmId>),
}

/// Whether guest agents are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestView {
    /// They are asked, within a time limit.
    Asked,
    /// They are not asked.
    Omitted,
}

/// What all VMs together have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Number of VMs in each state, by its name.
    pub states: BTreeMap<&'static str, u64>,
    /// vCPUs of running VMs.
    pub vcpus: u64,
    /// Memory of running VMs, in bytes.
    pub memory_bytes: u64,
}

fn is_running(state: VmState) -> bool {
    matches!(state, VmState::Running | VmState::Paused)
}

impl Engine {
    /// Numbers of operations by kind since the daemon started.
    pub fn operation_counts(&self) -> Vec<OpCounts> {
        self.shared.ops.counts()
    }

    /// Durations since the daemon started.
    pub fn timings(&self) -> &crate::timings::Timings {
        &self.operation_news().timings
    }

    /// States of all VMs, and what the specifications of running ones reserve.
    pub fn reserved(&self) -> Reserved {
        let mut reserved = Reserved::default();
        for vm in self.all() {
            *reserved.states.entry(vm.record.state.as_str()).or_default() += 1;
            if let Some(run) = vm.record.run.as_ref().filter(|_| is_running(vm.record.state)) {
                reserved.vcpus += u64::from(run.spec.vcpus);
                reserved.memory_bytes += run.spec.memory_mib.saturating_mul(MIB);
            }
        }
        let unreadable = self.unreadable_tags().len() as u64;
        *reserved.states.entry(VmState::Broken.as_str()).or_default() += unreadable;
        reserved
    }

    /// One sample of each selected VM, sorted by name.
    pub async fn stats(&self, selection: &Selection, guest: GuestView) -> Vec<VmStats> {
        let selected = |id: &VmId, state: VmState| match selection {
            Selection::Running => is_running(state),
            Selection::All => true,
            Selection::Ids(ids) => ids.contains(id),
        };
        let slots = Arc::new(Semaphore::new(MAX_PARALLEL));
        let deadline = Instant::now() + ALL_GUESTS_TIMEOUT;
        let mut samples = JoinSet::new();
        for vm in self.all() {
            if !selected(&vm.record.plan.id, vm.record.state) {
                continue;
            }
            let (drivers, slots) = (self.shared.drivers.clone(), slots.clone());
            samples.spawn(async move {
                // The semaphore is never closed.
                let _slot = slots.acquire().await;
                sample(&drivers, &vm, guest, deadline).await
            });
        }
        let mut all = Vec::new();
        while let Some(sampled) = samples.join_next().await {
            match sampled {
                Ok(stats) => all.push(stats),
                Err(error) => tracing::error!(%error, "sample of a VM"),
            }
        }
        let unreadable = self.unreadable_tags().into_iter();
        all.extend(unreadable.filter(|vm| selected(&vm.id, VmState::Broken)).map(|vm| VmStats {
            id: vm.id,
            name: vm.name,
            state: VmState::Broken,
            disk: None,
            run: None,
        }));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

async fn sample(
    drivers: &Drivers,
    published: &Published,
    guest: GuestView,
    deadline: Instant,
) -> VmStats {
    let record = &published.record;
    let plan = &record.plan;
    let disk = match drivers.storage(plan) {
        Ok(storage) => Some(storage.usage(plan, record.spec_in_force()).await),
        Err(_) => None,
    };
    let run = match &record.run {
        Some(run) if is_running(record.state) => {
            // The agent of a paused guest cannot answer.
            let asked = guest == GuestView::Asked && record.state == VmState::Running;
            let guest = if asked { guest_usage(drivers, plan, deadline).await } else { None };
            run_stats(drivers, plan, run, guest.unwrap_or_default()).await
        }
        _ => None,
    };
    VmStats { id: plan.id.clone(), name: plan.name.clone(), state: record.state, disk, run }
}

/// The answer of the guest's agent; none if it does not answer in time.
async fn guest_usage(drivers: &Drivers, plan: &VmPlan, all: Instant) -> Option<GuestUsage> {
    let now = Instant::now();
    let deadline = all.min(now + GUEST_TIMEOUT);
    if deadline <= now {
        return None;
    }
    timeout_at(deadline, drivers.guest.usage(plan)).await.ok()?.ok()
}

async fn run_stats(
    drivers: &Drivers,
    plan: &VmPlan,
    run: &RunPlan,
    guest: GuestUsage,
) -> Option<RunStats> {
    let nic = match drivers.network(plan).ok()?.counters() {
        Some(meter) => meter.read(plan).await,
        None => None,
    };
    // Last, so that the time of the sample is that of the CPU time.
    let vmm = drivers.vmm(plan).ok()?.meter()?.read(plan, run).await?;
    Some(RunStats {
        sampled_us: vmm.sampled_us,
        uptime_ms: vmm.uptime_ms,
        cpu: CpuStats { vcpus: run.spec.vcpus, time_us: vmm.cpu_time_us },
        memory: MemoryStats {
            limit_bytes: run.spec.memory_mib.saturating_mul(MIB),
            resident_bytes: vmm.resident_bytes,
            guest: guest.memory,
        },
        disk_io: preferred(vmm.disk, guest.disk).map(|(moved, source)| DiskIo {
            read_bytes: moved.inward_bytes,
            written_bytes: moved.outward_bytes,
            source,
        }),
        network: preferred(nic, guest.network).map(|(moved, source)| NetworkIo {
            received_bytes: moved.inward_bytes,
            sent_bytes: moved.outward_bytes,
            source,
        }),
    })
}

/// The counters of the host, or those of the guest if the host has none.
fn preferred(host: Option<Transfers>, guest: Option<Transfers>) -> Option<(Transfers, Source)> {
    let host = host.map(|moved| (moved, Source::Host));
    host.or_else(|| guest.map(|moved| (moved, Source::Guest)))
}
