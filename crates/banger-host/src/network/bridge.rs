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
    /// Held while names are routed beside a start.
    routing: Arc<tokio::sync::Mutex<()>>,
    ports: Arc<Forwarding>,
}

impl Bridge {
    /// Through this way to root; ports are published by `ports`.
    pub fn new(root: Root, dns_port: Arc<AtomicU16>, ports: Forwarding) -> Self {
        Self { root, dns_port, routing: Arc::default(), ports: Arc::new(ports) }
    }

    /// Has names of VMs asked of the daemon's resolver, if it listens.
    async fn route_names(&self) {
        let port = self.dns_port.load(Ordering::Relaxed);
        if port != 0 {
            self.look_after(Request::RouteDns { port }).await;
        }
    }

    async fn look_after(&self, request: Request) {
        if let Err(error) = self.root.ask(request, Vec::new()).await {
            tracing::warn!(error = %error, causes = ?error.causes, "the network of VMs");
        }
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
        // Beside the way to ready. The pool is filled and the rules are looked at later, when the
        // guest does not need the host's processors.
        let bridge = self.clone();
        tokio::spawn(async move {
            // One is enough for all that start at the same time; what it misses is seen to soon.
            if let Ok(_turn) = bridge.routing.clone().try_lock() {
                bridge.route_names().await;
            }
        });
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
        self.look_after(Request::NetEnsure).await;
        self.route_names().await;
    }

    async fn release(&self) {
        let port = self.dns_port.load(Ordering::Relaxed);
        if port == 0 {
            return;
        }
        if let Err(error) = self.root.ask(Request::UnrouteDns { port }, Vec::new()).await {
            tracing::warn!(error = %error, causes = ?error.causes, "names stay routed");
        }
    }
}
