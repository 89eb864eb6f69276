//! `bridge`: a TAP for each VM on a bridge of the host, with an address of its own, made by root.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use async_trait::async_trait;
use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{Applied, Attached, Network, Undone};
use banger_engine::plan::{Lease, VmPlan};
use banger_root::words::{self, Answer, Did, Nat, Request};

use crate::root::{self, Root};

/// The bridge network.
#[derive(Clone)]
pub struct Bridge {
    root: Root,
    /// Port of the daemon's resolver on the host's loopback; 0 while there is none.
    dns_port: Arc<AtomicU16>,
}

impl Bridge {
    /// Through this way to root.
    pub fn new(root: Root, dns_port: Arc<AtomicU16>) -> Self {
        Self { root, dns_port }
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
