//! The simulated host itself.

use async_trait::async_trait;
use banger_api::doctor::{Check, Leftover, Verdict};
use banger_api::vm::VmPaths;
use banger_api::{ApiError, ErrorCode, VmId};

use super::Sim;
use super::world::{When, World};
use crate::capabilities::opencode;
use crate::devices::RootContent;
use crate::drivers::{Applied, Capacity, Host, Undone};
use crate::plan::{BootSet, Chosen, DriverPlan, VmPlan};

/// The simulated time, constant so that output can be compared: 2026-01-01.
const NOW_UNIX_MS: u64 = 1_767_225_600_000;
/// Kinds of objects that are disks.
const DISKS: [&str; 3] = ["root", "new_root", "work_disk"];

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

    async fn choose(&self, _boot: &BootSet, _root: RootContent) -> Result<DriverPlan, ApiError> {
        let sim = || Chosen { name: "sim".into(), why: "the host is simulated".into() };
        Ok(DriverPlan { vmm: sim(), storage: sim(), network: sim() })
    }

    async fn claim(&self, vm: &VmPlan) -> Result<Applied, ApiError> {
        self.make("vmm_home", vm)
    }

    async fn release(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.unmake("vmm_home", vm)
    }

    async fn opencode_password(&self, vm: &VmPlan) -> Result<String, ApiError> {
        let made = self.object(opencode::PASSWORD.as_str(), vm).is_some();
        // The same for all VMs, so that output can be compared.
        made.then(|| "simulated-password".to_owned()).ok_or_else(|| {
            let text = format!("`{}` has no password for opencode", vm.name);
            ApiError::new(ErrorCode::NotFound, text)
        })
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

    async fn vm_ids(&self) -> Result<Vec<String>, ApiError> {
        self.try_effect("list objects", When::Before)?;
        let inner = self.inner();
        let ids = inner.world.objects.keys().filter_map(|key| key.split_once(':'));
        Ok(ids.map(|(_, id)| id.to_owned()).collect())
    }

    async fn objects(&self, id: &str) -> Result<Leftover, ApiError> {
        let suffix = format!(":{id}");
        let inner = self.inner();
        let kinds = inner.world.objects.keys().filter_map(|key| key.strip_suffix(&suffix));
        let kinds: Vec<&str> = kinds.collect();
        let has = |kind: &str| kinds.contains(&kind);
        let disks = kinds.iter().filter(|kind| DISKS.contains(kind));
        Ok(Leftover {
            id: id.to_owned(),
            objects: kinds.iter().map(|kind| format!("simulated `{kind}`")).collect(),
            folder: has("folder").then(|| format!("/nonexistent/{id}")),
            disks: disks.map(|kind| format!("/nonexistent/{id}/{kind}")).collect(),
            processes: if has("vmm") { vec![1] } else { Vec::new() },
        })
    }

    async fn remove_objects(&self, vm: &VmId) -> Result<(), ApiError> {
        self.try_effect("remove objects", When::Before)?;
        let kinds: Vec<String> = self.inner().world.of(vm).into_iter().map(str::to_owned).collect();
        for kind in kinds {
            let mut inner = self.inner();
            inner.world.remove(&kind, vm);
            (self.sink)(&inner.world, &[World::key(&kind, vm)]);
        }
        self.try_effect("remove objects", When::After)
    }
}
