//! DNS names: the helper makes the host's resolver forward names of VMs to the daemon while VMs
//! run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use async_trait::async_trait;
use banger_api::ApiError;
use banger_engine::capabilities::dns_names::{CAPABILITY, DNS_NAMES};
use banger_engine::capability::{Effect, Effects, Made, Upkeep, Usage, VmContext};
use banger_engine::drivers::{Applied, Undone};
use banger_root::protocol::Request;

use super::{HostCapability, Parts};
use crate::helper::Helper;

/// Destination of the host's queries for names of VMs, as known to this daemon.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// An earlier daemon may have left them forwarded to the same port.
    #[default]
    Unknown,
    /// This daemon.
    Ours,
    /// Another daemon, or forwarding cannot be set up.
    Elsewhere,
    /// Not forwarded to this daemon.
    Unclaimed,
}

#[derive(Clone)]
struct DnsNames {
    helper: Helper,
    port: Arc<AtomicU16>,
    /// Locked during a change.
    names: Arc<tokio::sync::Mutex<Names>>,
}

/// The capability on this host.
pub fn capability(parts: &Parts) -> HostCapability {
    let (helper, port) = (parts.helper.clone(), parts.dns_port.clone());
    let names = Arc::new(DnsNames { helper, port, names: Arc::default() });
    HostCapability {
        effects: Effects {
            name: CAPABILITY.name,
            steps: vec![(DNS_NAMES, names.clone())],
            upkeep: Some(names),
            ..Effects::default()
        },
        guest: None,
    }
}

impl DnsNames {
    /// Forwards names to the daemon's resolver, if it listens.
    async fn claim(&self, names: &mut Names) {
        let port = self.port.load(Ordering::Relaxed);
        if port == 0 {
            return;
        }
        match self.helper.ask(Request::RouteDns { port }, Vec::new()).await {
            Ok(_) => *names = Names::Ours,
            // Another daemon may keep them for a long time.
            Err(_) if *names == Names::Elsewhere => {}
            Err(error) => {
                tracing::warn!(error = %error, causes = ?error.causes, "names of VMs");
                *names = Names::Elsewhere;
            }
        }
    }

    async fn release(&self) {
        let port = self.port.load(Ordering::Relaxed);
        let mut names = self.names.lock().await;
        if port == 0 || *names == Names::Unclaimed {
            return;
        }
        match self.helper.ask(Request::UnrouteDns { port }, Vec::new()).await {
            Err(error) if *names == Names::Ours => {
                tracing::warn!(error = %error, causes = ?error.causes, "names stay routed");
            }
            // Without a helper nothing was set up.
            Ok(_) | Err(_) => *names = Names::Unclaimed,
        }
    }
}

#[async_trait]
impl Effect for DnsNames {
    /// Runs in the background: a start does not depend on it.
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError> {
        if context.run.is_some_and(|run| run.lease.is_some()) {
            let ours = self.clone();
            tokio::spawn(async move {
                // One request serves all concurrent starts; upkeep handles later changes.
                if let Ok(mut names) = ours.names.try_lock() {
                    ours.claim(&mut names).await;
                }
            });
        }
        Ok(Applied::AlreadyThere.into())
    }

    /// Forwarding belongs to the daemon, not to a VM: upkeep releases it after the last VM.
    async fn undo(&self, _context: VmContext<'_>) -> Result<Undone, ApiError> {
        Ok(Undone::WasAbsent)
    }
}

#[async_trait]
impl Upkeep for DnsNames {
    async fn maintain(&self, usage: Usage) {
        match usage {
            Usage::InUse => self.claim(&mut *self.names.lock().await).await,
            Usage::Idle => self.release().await,
        }
    }
}
