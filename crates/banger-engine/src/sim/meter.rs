//! Simulated counters: each VM has a load of its own, which changes over time.

use async_trait::async_trait;
use banger_api::size::MIB;
use banger_api::stats::GuestMemory;
use tokio::time::Instant;

use super::Sim;
use crate::meter::{GuestUsage, NicMeter, Transfers, VmmMeter, VmmUsage};
use crate::plan::{RunPlan, VmPlan};

/// Period of the load in milliseconds: in the first half a VM needs twice the CPU of the second.
const PERIOD_MS: u64 = 8_000;
/// Memory of a VM that another daemon launched.
const UNKNOWN_MEMORY_MIB: u64 = 512;

/// Launch of a simulated VMM.
#[derive(Debug, Clone, Copy)]
pub(super) struct Launched {
    /// Its time.
    pub at: Instant,
    /// Memory of the guest.
    pub memory_mib: u64,
}

/// Counters of a VM whose load is `weight`, so many milliseconds after its launch.
fn usage(weight: u64, age_ms: u64, memory_mib: u64) -> (VmmUsage, GuestUsage, Transfers) {
    let half = PERIOD_MS / 2;
    let extra_ms = age_ms / PERIOD_MS * half + (age_ms % PERIOD_MS).min(half);
    let permille = 50 + weight % 200;
    let busy_us = age_ms.saturating_add(extra_ms).saturating_mul(permille);
    // Rises to 1000 and falls again.
    let wave = (age_ms % PERIOD_MS).abs_diff(half) * 1000 / half;
    let limit = memory_mib.saturating_mul(MIB);
    let resident_bytes = limit / 4 + limit / 4 * (1000 - wave) / 1000;
    let disk = Transfers {
        inward_bytes: 16 * MIB + age_ms * permille,
        outward_bytes: 4 * MIB + age_ms * permille / 2,
    };
    let network = Transfers {
        inward_bytes: 64 * 1024 + age_ms * permille / 8,
        outward_bytes: 32 * 1024 + age_ms * permille / 16,
    };
    let memory =
        GuestMemory { total_bytes: limit, available_bytes: limit.saturating_sub(resident_bytes) };
    let vmm = VmmUsage {
        sampled_us: 0,
        uptime_ms: age_ms,
        cpu_time_us: busy_us,
        resident_bytes,
        disk: Some(disk),
    };
    let guest = GuestUsage { memory: Some(memory), disk: Some(disk), network: Some(network) };
    (vmm, guest, network)
}

impl Sim {
    /// Counters of a VM now; `None` if it has no VMM.
    fn usage_now(&self, vm: &VmPlan) -> Option<(VmmUsage, GuestUsage, Transfers)> {
        let inner = self.inner();
        inner.world.get("vmm", &vm.id)?;
        let earlier = Launched { at: inner.began, memory_mib: UNKNOWN_MEMORY_MIB };
        let launched = inner.launched.get(vm.id.as_str()).copied().unwrap_or(earlier);
        let ms = |since: Instant| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (mut vmm, guest, network) = usage(vm.id.bits(), ms(launched.at), launched.memory_mib);
        vmm.sampled_us = ms(inner.began).saturating_mul(1000);
        Some((vmm, guest, network))
    }

    /// Counters that the simulated agent reports.
    pub(super) fn guest_usage(&self, vm: &VmPlan) -> Option<GuestUsage> {
        self.usage_now(vm).map(|(_, guest, _)| guest)
    }
}

#[async_trait]
impl VmmMeter for Sim {
    async fn read(&self, vm: &VmPlan, _run: &RunPlan) -> Option<VmmUsage> {
        self.usage_now(vm).map(|(vmm, ..)| vmm)
    }
}

#[async_trait]
impl NicMeter for Sim {
    async fn read(&self, vm: &VmPlan) -> Option<Transfers> {
        self.usage_now(vm).map(|(.., network)| network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_rise_and_the_load_changes() {
        let mut before = usage(7, 0, 512);
        let mut percents = std::collections::BTreeSet::new();
        for age_ms in (500..20_000).step_by(500) {
            let now = usage(7, age_ms, 512);
            let busy_us = now.0.cpu_time_us - before.0.cpu_time_us;
            percents.insert(busy_us / 5_000);
            assert!(busy_us > 0 && now.2.inward_bytes > before.2.inward_bytes, "{age_ms}");
            assert!(now.0.disk.unwrap().outward_bytes > before.0.disk.unwrap().outward_bytes);
            assert!((1 << 27..=1 << 28).contains(&now.0.resident_bytes), "{now:?}");
            before = now;
        }
        assert_eq!(percents.into_iter().collect::<Vec<_>>(), [5, 11]);
    }
}
