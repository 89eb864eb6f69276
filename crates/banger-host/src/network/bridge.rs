//! `bridge`: a TAP for each VM on a bridge of the host, with an address of its own, created by the
//! helper.

use async_trait::async_trait;
use banger_api::{ApiError, ErrorCode};
use banger_engine::capability::{Upkeep, Usage};
use banger_engine::devices::{self, NetworkAbilities, Nic, NicKind};
use banger_engine::drivers::{Applied, Attached, Network, Undone};
use banger_engine::meter::{NicMeter, Transfers};
use banger_engine::plan::{Lease, VmPlan, VmSpec};
use banger_root::protocol::{Answer, Did, Nat, Request};

use crate::failure::blocking;
use crate::helper::Helper;

/// Requirements and NIC of the bridge network.
pub const BRIDGE: NetworkAbilities =
    NetworkAbilities { root: devices::Need::Required, nic: NicKind::Tap };

/// The bridge network.
pub struct Bridge {
    helper: Helper,
}

impl Bridge {
    /// Uses this helper.
    pub fn new(helper: Helper) -> Self {
        Self { helper }
    }
}

#[async_trait]
impl Network for Bridge {
    async fn attach(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Attached, ApiError> {
        let nat = if spec.nat { Nat::On } else { Nat::Off };
        let request = Request::NetAttach { vm: vm.id.clone(), nat };
        let (answer, _) = self.helper.ask(request, Vec::new()).await?;
        let Answer::Leased(did, given) = answer else {
            return Err(ApiError::new(ErrorCode::Internal, "banger-root gave no lease"));
        };
        let applied = if did == Did::Made { Applied::Created } else { Applied::AlreadyThere };
        Ok(Attached { applied, lease: Some(given) })
    }

    async fn detach(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.helper.remove(Request::NetDetach { vm: vm.id.clone() }).await
    }

    fn abilities(&self) -> NetworkAbilities {
        BRIDGE
    }

    fn nic(&self, vm: &VmPlan, _spec: &VmSpec, lease: Option<&Lease>) -> Nic {
        Nic::Tap { name: vm.id.tap_name(), mac: vm.id.mac(), lease: lease.cloned() }
    }

    fn counters(&self) -> Option<&dyn NicMeter> {
        Some(self)
    }

    fn upkeep(&self) -> Option<&dyn Upkeep> {
        Some(self)
    }
}

#[async_trait]
impl NicMeter for Bridge {
    async fn read(&self, vm: &VmPlan) -> Option<Transfers> {
        let tap = vm.id.tap_name();
        blocking(move || Ok(banger_sys::usage::interface(&tap))).await.ok()?.map(|moved| {
            // Bytes that the host sent to the TAP are those that the guest received.
            Transfers { inward_bytes: moved.sent_bytes, outward_bytes: moved.received_bytes }
        })
    }
}

#[async_trait]
impl Upkeep for Bridge {
    async fn maintain(&self, usage: Usage) {
        if usage == Usage::Idle {
            return;
        }
        // Fills the pool and checks the rules here, not during a start, which needs the host's
        // CPUs.
        if let Err(error) = self.helper.ask(Request::NetEnsure, Vec::new()).await {
            tracing::warn!(error = %error, causes = ?error.causes, "the network of VMs");
        }
    }
}
