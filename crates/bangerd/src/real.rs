//! The real host: configures `banger-host` from configuration and installation.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::Duration;

use banger_api::hint::SetupAdvice;
use banger_api::paths::Paths;
use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{CrashPoints, Drivers};
use banger_host::handover::{HandoverSettings, SyncedFile};
use banger_host::helper::{Helper, SOCKET};
use banger_host::layout::Layout;
use banger_host::{HostConfig, KvmCheck};
use banger_image::Privilege;
use banger_root::programs::Versions;
use banger_root::server::Server;
use banger_root::{Places, Programs};

use crate::config::Config;
use crate::config::file::FileSync;

/// Folders of system programs, which an ordinary user's `PATH` may lack.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Settings that tests change; a shipped program uses the defaults.
pub struct Options {
    /// Called before and after every recorded step.
    pub crash: CrashPoints,
    /// How to determine whether KVM works.
    pub kvm_check: KvmCheck,
    /// Parent of root's folders `state` and `run` if the daemon runs as root; the system's folders
    /// by default.
    pub root_folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { crash: Arc::new(|_| ()), kvm_check: KvmCheck::Probe, root_folder: None }
    }
}

/// The drivers of this host.
///
/// # Errors
/// A part of the installation is missing, or a folder cannot be created.
pub fn open(
    paths: &Paths,
    config: &Config,
    dns_port: Arc<AtomicU16>,
    options: Options,
) -> Result<Drivers, ApiError> {
    let program = std::env::current_exe().map_err(|error| {
        ApiError::new(ErrorCode::Internal, "cannot find the path of bangerd").caused_by(&error)
    })?;
    let beside = program.parent().unwrap_or(Path::new("/")).to_owned();
    let privilege = Privilege::ours();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let search_path = [path.as_os_str(), SYSTEM_PATH.as_ref()].join(OsStr::new(":"));
    let places = places(config, options.root_folder);
    let shim = part(&beside, "banger-shim", "banger-shim")?;
    let helper = match privilege {
        Privilege::Root => {
            let wanted = |configured: Option<&PathBuf>, name: &str| {
                configured.cloned().unwrap_or_else(|| name.into())
            };
            let programs = Programs {
                firecracker: wanted(config.firecracker_bin.as_ref(), "firecracker"),
                jailer: wanted(config.jailer_bin.as_ref(), "jailer"),
                search_path: search_path.clone(),
                shim: shim.clone(),
            };
            let build_id = crate::daemon::BUILD_ID.into();
            let versions = Versions::default();
            let places = places.clone();
            Helper::InProcess(Arc::new(Server {
                places,
                programs,
                build_id,
                versions,
                failpoint: None,
            }))
        }
        Privilege::User => {
            let socket = std::env::var_os("BANGER_ROOT_SOCKET");
            Helper::Socket(socket.map_or_else(|| SOCKET.into(), PathBuf::from))
        }
    };
    banger_host::open(
        HostConfig {
            layout: Layout {
                state: paths.state.clone(),
                data: paths.data.clone(),
                cache: paths.cache.clone(),
            },
            shim,
            forward: part(&beside, "banger-forward", "banger-forward")?,
            agent: part(&beside, "guest/banger-agent", "banger-agent")?,
            qemu_bin: config.qemu_bin.clone(),
            vhost_device_vsock_bin: config.vhost_device_vsock_bin.clone(),
            beside,
            search_path: search_path.clone(),
            ssh_key: config.ssh_key_path.clone(),
            vmm: config.vmm.clone(),
            storage: config.storage.clone(),
            network: config.network.clone(),
            boot_timeout: Duration::from_secs(config.boot_timeout_s.into()),
            privilege,
            helper,
            places,
            dns_port,
            conversion: banger_image::images::worker::Conversion::Worker,
            kvm_check: options.kvm_check,
            proxy: config.proxy.clone(),
            ca: config.ca.clone(),
            trust: config.trust.clone(),
            handover: handover(config, search_path),
        },
        options.crash,
    )
}

/// What the daemon's user hands over to guests.
fn handover(config: &Config, search_path: std::ffi::OsString) -> HandoverSettings {
    let folder = |name: &str| {
        let value = std::env::var_os(name).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    let home = folder("HOME");
    let below_home = |host: &str| match (host.strip_prefix("~/"), &home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(host),
    };
    let file = |file: &FileSync| SyncedFile {
        host: below_home(&file.host.0),
        guest: file.guest.0.clone(),
        mode: file.mode.as_ref().map(|mode| mode.0),
    };
    HandoverSettings {
        files: config.file_sync.iter().map(file).collect(),
        config_home: folder("XDG_CONFIG_HOME"),
        data_home: folder("XDG_DATA_HOME"),
        git_config: folder("GIT_CONFIG_GLOBAL"),
        search_path,
        home,
    }
}

/// Root's folders and names, for a daemon that runs as root. The helper has its own.
fn places(config: &Config, own_folder: Option<PathBuf>) -> Places {
    let defaults = Places::default();
    let (state, run) = match own_folder {
        Some(folder) => (folder.join("state"), folder.join("run")),
        None => (defaults.state.clone(), defaults.run.clone()),
    };
    Places {
        state,
        run,
        bridge: config.bridge.clone().unwrap_or(defaults.bridge),
        network: config.subnet.unwrap_or(defaults.network),
        tap_pool: config.tap_pool_size.unwrap_or(defaults.tap_pool),
        ..Places::default()
    }
}

/// A part of the installation: beside this program as built, or in `../lib/banger` as installed.
fn part(beside: &Path, built: &str, installed: &str) -> Result<PathBuf, ApiError> {
    let places = [beside.join(built), beside.join("../lib/banger").join(installed)];
    if let Some(found) = places.iter().find(|place| place.is_file()) {
        return Ok(found.clone());
    }
    let text = format!("`{installed}` is missing from this installation of banger");
    let searched = places.iter().map(|place| place.display().to_string()).collect();
    Err(ApiError::new(ErrorCode::HostNotReady, text).with_hint(SetupAdvice::Reinstall { searched }))
}

/// CPUs and bytes of memory of this host.
pub fn capacity() -> (u32, u64) {
    (banger_host::probe::cpus(), banger_host::probe::memory_bytes())
}
