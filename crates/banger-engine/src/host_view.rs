//! What VMs reserve of the host's resources.

use banger_api::ApiError;
use banger_api::host::HostView;
use banger_api::size::MIB;
use banger_api::vm::VmSummary;

use crate::engine::Engine;

impl Engine {
    /// The host's resources, and what VMs use of them.
    ///
    /// # Errors
    /// The stores cannot be read.
    pub async fn host_view(&self) -> Result<HostView, ApiError> {
        let usage = self.disk_usage().await?;
        let capacity = self.shared.drivers.host.capacity();
        let (reserved_vcpus, reserved_memory_bytes) = reserved(&self.list().await);
        let used = usage.objects.iter().map(|object| object.used_bytes);
        Ok(HostView {
            cpus: capacity.cpus,
            memory_bytes: capacity.memory_bytes,
            reserved_vcpus,
            reserved_memory_bytes,
            disk_used_bytes: used.fold(0, u64::saturating_add),
            disk_free_bytes: usage.free_bytes,
        })
    }
}

/// vCPUs and bytes of memory of the VMs that have a VMM.
fn reserved(vms: &[VmSummary]) -> (u64, u64) {
    let running = vms.iter().filter(|vm| vm.state.has_vmm());
    running.fold((0, 0), |(vcpus, memory): (u64, u64), vm| {
        let bytes = vm.memory_mib.unwrap_or_default().saturating_mul(MIB);
        let count = vm.vcpus.unwrap_or_default().into();
        (vcpus.saturating_add(count), memory.saturating_add(bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::vm::VmState;

    #[test]
    fn only_vms_with_a_vmm_reserve_resources() {
        let vms: Vec<VmSummary> = VmState::ALL
            .into_iter()
            .map(|state| VmSummary {
                id: "0123456789ab".parse().unwrap(),
                name: "web".parse().unwrap(),
                state,
                image: "debian".into(),
                vcpus: Some(2),
                memory_mib: Some(512),
                ip: None,
                created_at: String::new(),
                disk: None,
                operation: None,
                publish: Vec::new(),
                labels: Default::default(),
                opencode: false,
                problem: None,
            })
            .collect();
        assert_eq!(reserved(&vms), (8, 4 * 512 * MIB));
        assert_eq!(reserved(&[]), (0, 0));
    }
}
