//! SSH identity: an ed25519 host key in the VM's folder, which the guest gets where it has none,
//! and the user's key, which root of the guest accepts.

mod key;
mod user_key;

use std::fs;
use std::sync::Arc;

use async_trait::async_trait;
use banger_agent_proto::boot::{GuestFile, WriteWhen};
use banger_api::ApiError;
use banger_engine::capabilities::ssh_identity::{CAPABILITY, IDENTITY};
use banger_engine::capability::{Effect, Effects, Made, VmContext};
use banger_engine::drivers::Undone;
use banger_engine::plan::VmPlan;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{HostCapability, Parts};
use crate::failure::{blocking, on_path};
use crate::handover::Handover;
use crate::layout::Layout;
use user_key::UserKey;

struct HostKeys(Layout);

/// The capability on this host.
pub fn capability(parts: &Parts) -> HostCapability {
    let layout = parts.layout.clone();
    let user = UserKey::new(&layout, parts.ssh_key.clone());
    // For VMs that run already. A start reports the error.
    if layout.vms().exists() {
        let _ = user.link();
    }
    HostCapability {
        effects: Effects {
            name: CAPABILITY.name,
            steps: vec![(IDENTITY, Arc::new(HostKeys(layout.clone())))],
            doctor: Some(Arc::new(user.clone())),
            ..Effects::default()
        },
        guest: Some(Arc::new(move |vm, _devices, config| {
            // An image has neither a host key nor an owner.
            if vm.build.is_none() {
                config.files.extend(files(&layout, &user, vm)?);
            }
            Ok(Handover::default())
        })),
    }
}

#[async_trait]
impl Effect for HostKeys {
    async fn apply(&self, context: VmContext<'_>) -> Result<Made, ApiError> {
        let path = self.0.host_key(&context.vm.id);
        let comment = context.vm.name.to_string();
        blocking(move || key::create(&path, &comment)).await.map(Made::from)
    }

    async fn undo(&self, context: VmContext<'_>) -> Result<Undone, ApiError> {
        let path = self.0.host_key(&context.vm.id);
        blocking(move || key::remove(&path)).await
    }
}

/// Both halves of the host key and the line of the user's key, as files of the guest.
fn files(layout: &Layout, user: &UserKey, vm: &VmPlan) -> Result<[GuestFile; 3], ApiError> {
    let path = layout.host_key(&vm.id);
    let private = fs::read_to_string(&path).map_err(|error| on_path("read", &path, &error))?;
    let public = key::public_line(&private, &path)?;
    let line = user.public_line()?;
    user.link()?;
    let file = |path: &str, mode: u32, content: &str, when: WriteWhen| GuestFile {
        path: path.into(),
        mode,
        uid: 0,
        gid: 0,
        content: BASE64.encode(content),
        when,
    };
    Ok([
        file("/etc/ssh/ssh_host_ed25519_key", 0o600, &private, WriteWhen::Absent),
        file("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, &public, WriteWhen::Absent),
        file("/root/.ssh/authorized_keys", 0o600, &line, WriteWhen::Line),
    ])
}
