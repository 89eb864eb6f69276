//! `bridge`: a TAP for each VM on a bridge of the host, with an address of its own, made by root.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use async_trait::async_trait;
use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{Applied, Attached, Network, Undone};
use banger_engine::plan::{ProcRef, RunPlan, VmPlan, VmSpec};
use banger_root::words::{Answer, Did, Nat, Request};

use crate::network::Forwarding;
use crate::root::Root;

/// Whose resolver names of VMs are asked of, as far as this daemon knows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// A daemon before this one may have left them routed to the same port.
    #[default]
    Unknown,
    /// This daemon's.
    Ours,
    /// Another daemon's, or it cannot be changed.
    Elsewhere,
    /// Not this daemon's.
    Unclaimed,
}

/// The bridge network.
#[derive(Clone)]
pub struct Bridge {
    root: Root,
    /// Port of the daemon's resolver on the host's loopback; 0 while there is none.
    dns_port: Arc<AtomicU16>,
    /// Whether names are routed to this daemon. Held while that changes.
    names: Arc<tokio::sync::Mutex<Names>>,
    ports: Arc<Forwarding>,
}

impl Bridge {
    /// Through this way to root; ports are published by `ports`.
    pub fn new(root: Root, dns_port: Arc<AtomicU16>, ports: Forwarding) -> Self {
        Self { root, dns_port, names: Arc::default(), ports: Arc::new(ports) }
    }

    /// Has names of VMs asked of the daemon's resolver, if it listens.
    async fn route_names(&self, names: &mut Names) {
        let port = self.dns_port.load(Ordering::Relaxed);
        if port == 0 {
            return;
        }
        match self.root.ask(Request::RouteDns { port }, Vec::new()).await {
            Ok(_) => *names = Names::Ours,
            // It stays so for long where another daemon has them.
            Err(_) if *names == Names::Elsewhere => {}
            Err(error) => {
                tracing::warn!(error = %error, causes = ?error.causes, "names of VMs");
                *names = Names::Elsewhere;
            }
        }
    }
}

#[async_trait]
impl Network for Bridge {
    async fn attach(&self, vm: &VmPlan, spec: &VmSpec) -> Result<Attached, ApiError> {
        let nat = if spec.nat { Nat::On } else { Nat::Off };
        let request = Request::NetAttach { vm: vm.id.clone(), nat };
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
            if let Ok(mut names) = bridge.names.try_lock() {
                bridge.route_names(&mut names).await;
            }
        });
        Ok(Attached { applied, lease: Some(given) })
    }

    async fn detach(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.root.remove(Request::NetDetach { vm: vm.id.clone() }).await
    }

    async fn forwarder(&self, vm: &VmPlan, run: &RunPlan) -> Result<Option<ProcRef>, ApiError> {
        self.ports.spawn(vm, run).await
    }

    async fn publish(&self, vm: &VmPlan, run: &RunPlan) -> Result<Applied, ApiError> {
        self.ports.open(vm, run).await
    }

    async fn unpublish(&self, vm: &VmPlan, run: &RunPlan) -> Result<Undone, ApiError> {
        self.ports.end(vm, run).await
    }

    async fn publishes(&self, _vm: &VmPlan, run: &RunPlan) -> bool {
        self.ports.are_alive(run)
    }

    async fn keep(&self) {
        if let Err(error) = self.root.ask(Request::NetEnsure, Vec::new()).await {
            tracing::warn!(error = %error, causes = ?error.causes, "the network of VMs");
        }
        self.route_names(&mut *self.names.lock().await).await;
    }

    async fn release(&self) {
        let port = self.dns_port.load(Ordering::Relaxed);
        let mut names = self.names.lock().await;
        if port == 0 || *names == Names::Unclaimed {
            return;
        }
        match self.root.ask(Request::UnrouteDns { port }, Vec::new()).await {
            Err(error) if *names == Names::Ours => {
                tracing::warn!(error = %error, causes = ?error.causes, "names stay routed");
            }
            // Where there is no helper there was nothing to take back.
            Ok(_) | Err(_) => *names = Names::Unclaimed,
        }
    }
}
