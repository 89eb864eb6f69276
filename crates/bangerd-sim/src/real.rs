//! This host, with test switches.
//!
//! - `BANGER_ABORT_AT`: see [`crate::crash`].
//! - `BANGER_ASSUME_KVM=1` treats KVM as usable, for tests with a fake Firecracker.
//! - `BANGER_ROOT_DIR` sets root's folders of a daemon that runs as root.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use banger_api::ApiError;
use banger_api::paths::Paths;
use banger_engine::drivers::Drivers;
use banger_host::KvmCheck;
use bangerd::config::Config;
use bangerd::real::{self, Options};

use crate::crash;

/// The drivers of this host.
///
/// # Errors
/// As [`real::open`]; an invalid switch.
pub fn open(paths: &Paths, config: &Config, dns: Arc<AtomicU16>) -> Result<Drivers, ApiError> {
    let assumed = std::env::var_os("BANGER_ASSUME_KVM").is_some_and(|value| value == "1");
    let options = Options {
        crash: crash::from_environment()?,
        kvm_check: if assumed { KvmCheck::Assume } else { KvmCheck::Probe },
        root_folder: std::env::var_os("BANGER_ROOT_DIR").map(PathBuf::from),
    };
    real::open(paths, config, dns, options)
}
