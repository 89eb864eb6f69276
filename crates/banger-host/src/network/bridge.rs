//! `bridge`: a TAP for each VM on a bridge of the host, with an address of its own, made by root.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use async_trait::async_trait;
use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{Applied, Attached, Network, Undone};
use banger_engine::plan::{Lease, ProcRef, RunPlan, VmPlan};
use banger_root::words::{self, Answer, Did, Nat, Request};

use crate::network::Forwarding;
use crate::root::{self, Root};

/// The bridge network.
#[derive(Clone)]
pub struct Bridge {
    root: Root,
    /// Port of the daemon's resolver on the host's loopback; 0 while there is none.
    dns_port: Arc<AtomicU16>,
    ports: Arc<Forwarding>,
}

impl Bridge {
    /// Through this way to root; ports are published by `ports`.
    pub fn new(root: Root, dns_port: Arc<AtomicU16>, ports: Forwarding) -> Self {
        Self { root, dns_port, ports: Arc::new(ports) }
    }
}

fn lease(lease: words::Lease) -> Lease {
    let words::Lease { address, prefix, gateway, dns, tap: _ } = lease;
    Lease { address, prefix, gateway, dns }
}

#[async_trait]
impl Network for Bridge {
    async fn attach(&self, vm: &VmPlan) -> Result<Attached, ApiError> {
        let nat = if vm.nat { Nat::On } else { Nat::Off };
        let request = Request::NetAttach { vm: root::id(&vm.id)?, nat };
        let (answer, _) = self.root.ask(request, Vec::new()).await?;
        let Answer::Leased(did, given) = answer else {
            return Err(ApiError::new(ErrorCode::Internal, "banger-root gave no lease"));
        };
        let applied = if did == Did::Made { Applied::Created } else { Applied::AlreadyThere };
        // Beside the way to ready: the pool is filled again and names are routed.
        let bridge = self.clone();
        tokio::spawn(async move { bridge.keep().await });
        Ok(Attached { applied, lease: Some(lease(given)) })
    }

    async fn detach(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.root.remove(Request::NetDetach { vm: root::id(&vm.id)? }).await
    }

    async fn forwarder(&self, vm: &VmPlan) -> Result<Option<ProcRef>, ApiError> {
        self.ports.spawn(vm).await
    }

    async fn publish(&self, vm: &VmPlan, lease: Option<&Lease>) -> Result<Applied, ApiError> {
        self.ports.open(vm, lease).await
    }

    async fn unpublish(&self, vm: &VmPlan, run: &RunPlan) -> Result<Undone, ApiError> {
        self.ports.end(vm, run).await
    }

    async fn publishes(&self, vm: &VmPlan, run: &RunPlan) -> bool {
        self.ports.are_alive(vm, run)
    }

    async fn keep(&self) {
        let port = self.dns_port.load(Ordering::Relaxed);
        let mut requests = vec![Request::NetEnsure];
        requests.extend((port != 0).then_some(Request::RouteDns { port }));
        for request in requests {
            if let Err(error) = self.root.ask(request, Vec::new()).await {
                tracing::warn!(error = %error, causes = ?error.causes, "the network of VMs");
            }
        }
    }

    async fn release(&self) {
        if self.dns_port.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Err(error) = self.root.ask(Request::UnrouteDns, Vec::new()).await {
            tracing::warn!(error = %error, causes = ?error.causes, "names stay routed");
        }
    }
}
