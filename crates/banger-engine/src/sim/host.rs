//! The simulated host itself.

use async_trait::async_trait;
use banger_api::ApiError;
use banger_api::doctor::{Check, Verdict};
use banger_api::vm::VmPaths;

use super::Sim;
use crate::drivers::{Applied, Capacity, Host, Undone};
use crate::plan::{BootSet, Chosen, DriverPlan, VmPlan};

/// The simulated time, constant so that output can be compared: 2026-01-01.
const NOW_UNIX_MS: u64 = 1_767_225_600_000;

#[async_trait]
impl Host for Sim {
    fn now_unix_ms(&self) -> u64 {
        NOW_UNIX_MS
    }

    fn entropy(&self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014): reproducible.
        let mut inner = self.inner();
        inner.random = inner.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = inner.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn boot_id(&self) -> String {
        match self.inner().world.restarts {
            0 => "simulated".into(),
            restarts => format!("simulated-{restarts}"),
        }
    }

    async fn keep_logs(&self, name: &str, _logs: &VmPaths) -> Result<Option<String>, ApiError> {
        Ok(Some(format!("/nonexistent/{name}.log")))
    }

    fn capacity(&self) -> Capacity {
        Capacity { cpus: 8, memory_bytes: 16 << 30, disk_free_bytes: 100 << 30 }
    }

    async fn choose(&self, _boot: &BootSet) -> Result<DriverPlan, ApiError> {
        let sim = || Chosen { name: "sim".into(), why: "the host is simulated".into() };
        Ok(DriverPlan { vmm: sim(), storage: sim(), network: sim() })
    }

    async fn claim(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        self.make("vmm_home", vm)
    }

    async fn release(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.unmake("vmm_home", vm)
    }

    async fn doctor(&self) -> Vec<Check> {
        vec![Check {
            code: "host.simulated".into(),
            verdict: Verdict::Warning,
            seen: "this daemon runs on a simulated host; `bangerd` runs real VMs".into(),
            hints: Vec::new(),
            needed_for: vec!["start".into()],
        }]
    }
}
