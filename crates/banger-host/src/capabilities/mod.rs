//! Effects of the capabilities on this host: the implementations of the steps declared in
//! `banger_engine::capabilities`, one file for each, and their registry.

mod ca;
mod dns_names;
mod file_sync;
mod git_identity;
mod logout;
pub mod opencode;
pub mod ports;
mod proxy;
mod ssh_identity;
mod variables;
mod work_disk;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::Duration;

use banger_agent_proto::boot::GuestConfig;
use banger_api::ApiError;
use banger_engine::capability::Effects;
use banger_engine::devices::Devices;
use banger_engine::plan::VmPlan;

use crate::guest::SocketsByDriver;
use crate::handover::{Handover, HandoverSettings};
use crate::helper::Helper;
use crate::layout::Layout;
use crate::scopes::Scopes;
use crate::storage::Blanks;
use crate::work_seeds::FindSeed;
use banger_image::ca::CaSettings;
use banger_image::proxy::ProxySettings;

pub use work_disk::WorkDisk;

/// Dependencies of the capabilities.
pub struct Parts {
    /// Paths.
    pub layout: Layout,
    /// Creates blank disks.
    pub blanks: Blanks,
    /// Finds the work seeds of images.
    pub seeds: FindSeed,
    /// mke2fs(8), if installed.
    pub mke2fs: Option<PathBuf>,
    /// Access to the helper.
    pub helper: Helper,
    /// Port of the daemon's resolver on the host's loopback address; 0 = not listening.
    pub dns_port: Arc<AtomicU16>,
    /// The program that forwards published ports.
    pub forward: PathBuf,
    /// `[proxy]`.
    pub proxy: ProxySettings,
    /// `[ca]`.
    pub ca: CaSettings,
    /// The configured ssh key of the user.
    pub ssh_key: Option<PathBuf>,
    /// Scopes of systemd for processes of VMs.
    pub scopes: Scopes,
    /// What the user hands over to guests.
    pub handover: HandoverSettings,
    /// Sockets to the guests.
    pub sockets: SocketsByDriver,
    /// How long a guest may boot.
    pub boot_timeout: Duration,
}

/// Adds a capability's part to the configuration of a booting guest, and reports what it hands
/// over. Called on a thread that may block.
pub type GuestPart =
    Arc<dyn Fn(&VmPlan, &Devices, &mut GuestConfig) -> Result<Handover, ApiError> + Send + Sync>;

/// A capability on this host.
#[derive(Clone, Default)]
pub struct HostCapability {
    /// Effects that the engine calls.
    pub effects: Effects,
    /// Part of the guest's configuration.
    pub guest: Option<GuestPart>,
}

/// All capabilities with effects on the host.
pub fn registry(parts: &Parts) -> Vec<HostCapability> {
    vec![
        work_disk::capability(parts),
        ssh_identity::capability(parts),
        dns_names::capability(parts),
        ports::capability(parts),
        proxy::capability(parts),
        ca::capability(parts),
        git_identity::capability(parts),
        file_sync::capability(parts),
        logout::capability(parts),
        opencode::capability(parts),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use banger_engine::capabilities::ALL;

    use super::*;

    #[test]
    fn every_step_of_every_capability_has_an_effect() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(&crate::testing::parts(folder.path()));
        let effects: BTreeSet<(&str, String)> = registry
            .iter()
            .flat_map(|one| one.effects.steps.iter().map(|step| (one.effects.name, &step.0)))
            .map(|(name, id)| (name, id.as_str().to_owned()))
            .collect();
        let declared: BTreeSet<(&str, String)> = ALL
            .iter()
            .flat_map(|one| one.steps.iter().map(|step| (one.name, &step.id)))
            .map(|(name, id)| (name, id.as_str().to_owned()))
            .collect();
        assert_eq!(effects, declared);
    }
}
