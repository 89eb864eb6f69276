//! opencode: the password on the host, and the server in the guest, which the agent starts with the
//! password in its environment. That works under every init, and leaves nothing on a disk.

mod password;
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use banger_api::{ApiError, ErrorCode};
use banger_engine::capabilities::opencode::{CAPABILITY, PASSWORD, SERVER};
use banger_engine::capability::{Effect, Effects, Made, VmContext};
use banger_engine::drivers::{Applied, Undone};
use banger_engine::interrupt::Interrupt;

use super::{HostCapability, Parts};
use crate::failure::blocking;
use crate::guest::SocketsByDriver;
use crate::layout::Layout;

struct Passwords(Layout);

struct Server {
    layout: Layout,
    sockets: SocketsByDriver,
    wait: Duration,
}

/// The capability on this host.
pub fn capability(parts: &Parts) -> HostCapability {
    let (layout, sockets) = (parts.layout.clone(), parts.sockets.clone());
    let wait = server::wait(parts.boot_timeout);
    HostCapability {
        effects: Effects {
            name: CAPABILITY.name,
            steps: vec![
                (PASSWORD, Arc::new(Passwords(layout.clone()))),
                (SERVER, Arc::new(Server { layout, sockets, wait })),
            ],
            ..Effects::default()
        },
        guest: None,
    }
}

/// The password in this file.
///
/// # Errors
/// It cannot be read, or is damaged.
pub async fn password(path: &Path) -> Result<String, ApiError> {
    let path = path.to_owned();
    blocking(move || password::read(&path)).await
}

#[async_trait]
impl Effect for Passwords {
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError> {
        let path = self.0.opencode_password(&context.vm.id);
        blocking(move || password::create(&path)).await.map(Made::from)
    }

    async fn undo(&self, context: VmContext<'_>) -> Result<Undone, ApiError> {
        let path = self.0.opencode_password(&context.vm.id);
        blocking(move || password::remove(&path)).await
    }
}

#[async_trait]
impl Effect for Server {
    /// A server that does not answer is only a warning: the machine works without it.
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError> {
        let password = password(&self.layout.opencode_password(&context.vm.id)).await?;
        let never = Interrupt::never();
        let interrupt = context.interrupt.unwrap_or(&never);
        let work = server::serve(context.vm, &self.sockets, &password, self.wait);
        let served = tokio::select! {
            served = work => served,
            // The runner reports the reason instead.
            _ = interrupt.raised() => {
                let name = &context.vm.name;
                let text = format!("the start of opencode in `{name}` was interrupted");
                return Err(ApiError::new(ErrorCode::GuestFailed, text));
            }
        };
        let warnings = served.err().into_iter().collect();
        Ok(Made { applied: Applied::Created, found: None, warnings })
    }

    /// The server ends with the guest.
    async fn undo(&self, _context: VmContext<'_>) -> Result<Undone, ApiError> {
        Ok(Undone::WasAbsent)
    }
}
