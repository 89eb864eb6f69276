//! The real host: what `banger-host` needs to know, from configuration and installation.

use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_api::paths::Paths;
use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{CrashPoints, Drivers};
use banger_host::layout::Layout;
use banger_host::{HostConfig, Privilege};

use crate::config::Config;

/// Folders of the system's own programs, which an ordinary user's `PATH` may lack.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The drivers of this host.
///
/// # Errors
/// A part of the installation is missing, or a folder cannot be made.
pub fn open(paths: &Paths, config: &Config, crash: CrashPoints) -> Result<Drivers, ApiError> {
    let program = std::env::current_exe().map_err(|error| {
        ApiError::new(ErrorCode::Internal, "cannot tell where bangerd is").caused_by(&error)
    })?;
    let beside = program.parent().unwrap_or(Path::new("/")).to_owned();
    let privilege = match rustix::process::geteuid().is_root() {
        true => Privilege::Root,
        false => Privilege::User,
    };
    let path = std::env::var("PATH").unwrap_or_default();
    banger_host::open(
        HostConfig {
            layout: Layout {
                state: paths.state.clone(),
                data: paths.data.clone(),
                cache: paths.cache.clone(),
            },
            shim: part(&beside, "banger-shim", "banger-shim")?,
            agent: part(&beside, "guest/banger-agent", "banger-agent")?,
            qemu_bin: config.qemu_bin.clone(),
            vhost_device_vsock_bin: config.vhost_device_vsock_bin.clone(),
            beside,
            search_path: format!("{path}:{SYSTEM_PATH}"),
            vmm: config.vmm.clone(),
            storage: config.storage.clone(),
            boot_timeout: Duration::from_secs(config.boot_timeout_s.into()),
            privilege,
        },
        crash,
    )
}

/// A part of the installation: beside this program as built, or in `../lib/banger` as installed.
fn part(beside: &Path, built: &str, installed: &str) -> Result<PathBuf, ApiError> {
    let places = [beside.join(built), beside.join("../lib/banger").join(installed)];
    if let Some(found) = places.iter().find(|place| place.is_file()) {
        return Ok(found.clone());
    }
    let text = format!("`{installed}` is missing from this installation of banger");
    let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    Err(ApiError::new(ErrorCode::HostNotReady, text)
        .with_hint(format!("install it again; it was looked for at {}", looked.join(" and "))))
}
