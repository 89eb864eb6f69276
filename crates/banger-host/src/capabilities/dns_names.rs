//! DNS names: has the host ask the daemon's resolver for names of VMs while VMs run, through root.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use async_trait::async_trait;
use banger_api::ApiError;
use banger_engine::capabilities::dns_names::{CAPABILITY, DNS_NAMES};
use banger_engine::capability::{Effect, Effects, Made, Need, Upkeep, VmContext};
use banger_engine::drivers::{Applied, Undone};
use banger_root::protocol::Request;

use super::{HostCapability, Parts};
use crate::helper::Helper;

/// Which resolver the host asks for names of VMs, as far as this daemon knows.
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

#[derive(Clone)]
struct DnsNames {
    helper: Helper,
    port: Arc<AtomicU16>,
    /// Held while it changes.
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
    /// Has the host ask the daemon's resolver, if it listens.
    async fn claim(&self, names: &mut Names) {
        let port = self.port.load(Ordering::Relaxed);
        if port == 0 {
            return;
        }
        match self.helper.ask(Request::RouteDns { port }, Vec::new()).await {
            Ok(_) => *names = Names::Ours,
            // It stays so for long where another daemon has them.
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
            // Where there is no helper there was nothing to take back.
            Ok(_) | Err(_) => *names = Names::Unclaimed,
        }
    }
}

#[async_trait]
impl Effect for DnsNames {
    /// Beside the way to ready, which does not need it.
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError> {
        if context.run.is_some_and(|run| run.lease.is_some()) {
            let ours = self.clone();
            tokio::spawn(async move {
                // One is enough for all that start at the same time; upkeep sees to the rest.
                if let Ok(mut names) = ours.names.try_lock() {
                    ours.claim(&mut names).await;
                }
            });
        }
        Ok(Applied::AlreadyThere.into())
    }

    /// Names are the daemon's and not the VM's: upkeep releases them with the last VM.
    async fn undo(&self, _context: VmContext<'_>) -> Result<Undone, ApiError> {
        Ok(Undone::WasAbsent)
    }
}

#[async_trait]
impl Upkeep for DnsNames {
    async fn tend(&self, need: Need) {
        match need {
            Need::InUse => self.claim(&mut *self.names.lock().await).await,
            Need::Idle => self.release().await,
        }
    }
}
