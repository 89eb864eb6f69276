//! Published ports: a `banger-forward` process for each VM that publishes ports and has an address.
//! It runs as the daemon's user and survives the daemon. If the guest has no address, its NIC
//! forwards the ports, and only the check is needed.

mod forward;
pub mod found;
mod listen;

use std::sync::Arc;

use async_trait::async_trait;
use banger_api::ApiError;
use banger_engine::capabilities::ports::{CAPABILITY, FORWARDER, FORWARDS};
use banger_engine::capability::{Adopt, Effect, Effects, Made, Preflight, VmContext};
use banger_engine::drivers::{Applied, Undone};
use banger_engine::plan::{ProcRef, RunPlan};

use super::{HostCapability, Parts};
use crate::failure::blocking;
use crate::scopes::Scopes;
use forward::Forwarding;

/// Starts the process, which waits at its gate.
struct Forwarder(Arc<Forwarding>, Scopes);
/// Opens the gate, so that the process listens on the ports.
struct Forwards(Arc<Forwarding>);
struct PortsAreFree;
struct ForwarderLives;

/// The capability on this host.
pub fn capability(parts: &Parts) -> HostCapability {
    let forwarding = Arc::new(Forwarding::new(parts.forward.clone(), parts.layout.clone()));
    HostCapability {
        effects: Effects {
            name: CAPABILITY.name,
            steps: vec![
                (FORWARDER, Arc::new(Forwarder(forwarding.clone(), parts.scopes.clone()))),
                (FORWARDS, Arc::new(Forwards(forwarding))),
            ],
            preflight: Some(Arc::new(PortsAreFree)),
            adopt: Some(Arc::new(ForwarderLives)),
            ..Effects::default()
        },
        guest: None,
    }
}

/// The recorded process.
fn forwarder(run: Option<&RunPlan>) -> Option<ProcRef> {
    run?.found(&FORWARDER)
}

#[async_trait]
impl Effect for Forwarder {
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError> {
        if context.run.is_none_or(|run| run.lease.is_none()) {
            return Ok(Applied::AlreadyThere.into());
        }
        let process = self.0.spawn(context.vm).await?;
        self.1.keep(&context.vm.id, vec![process]);
        let found = serde_json::to_value(process).ok();
        Ok(Made { applied: Applied::Created, found, warnings: Vec::new() })
    }

    async fn undo(&self, context: VmContext<'_>) -> Result<Undone, ApiError> {
        self.0.end(context.vm, forwarder(context.run)).await
    }
}

#[async_trait]
impl Effect for Forwards {
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError> {
        let ports = &context.spec.publish;
        match context.run.and_then(|run| run.lease.as_ref()) {
            Some(lease) => self.0.open(context.vm, ports, lease).await.map(Made::from),
            None => {
                // QEMU's own error gives no reason.
                let (vm, ports) = (context.vm.clone(), ports.clone());
                blocking(move || listen::check_for_qemu(&vm, &ports)).await?;
                Ok(Applied::AlreadyThere.into())
            }
        }
    }

    /// The ports are closed with the process.
    async fn undo(&self, _context: VmContext<'_>) -> Result<Undone, ApiError> {
        Ok(Undone::WasAbsent)
    }
}

#[async_trait]
impl Preflight for PortsAreFree {
    async fn check(&self, context: VmContext<'_>) -> Result<(), ApiError> {
        let mut ports = context.spec.publish.clone();
        // Ports of the run in progress are taken by its own process.
        let ours = context.run.map(|run| run.spec.publish.clone()).unwrap_or_default();
        ports.retain(|port| ours.iter().all(|own| own.listens_on() != port.listens_on()));
        let vm = context.vm.clone();
        blocking(move || listen::check_free(&vm, &ports)).await
    }
}

#[async_trait]
impl Adopt for ForwarderLives {
    async fn holds(&self, context: VmContext<'_>) -> bool {
        let forwards = context.run.is_some_and(|run| run.lease.is_some());
        let expected = forwards && !context.spec.publish.is_empty();
        !expected || forwarder(context.run).is_some_and(crate::gate::is_alive)
    }
}
