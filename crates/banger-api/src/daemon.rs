//! The daemon about itself.

use serde::{Deserialize, Serialize};

use crate::limits::VmDefaults;

/// `daemon status --json`: a contract with scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DaemonStatus {
    /// Process id.
    pub pid: u32,
    /// Version.
    pub version: String,
    /// Identifies the build, so that the CLI can tell when it was replaced.
    pub build_id: String,
    /// The socket it serves on.
    pub socket: String,
    /// Its log file.
    pub log: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Number of VMs.
    pub vms: u64,
    /// Number of operations in progress.
    pub operations: u64,
    /// Whether it runs on the simulated host.
    pub simulated: bool,
    /// What a VM gets where nothing is asked for.
    pub defaults: VmDefaults,
    /// Where names of VMs are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsStatus>,
}

/// Where `NAME.vm` is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DnsStatus {
    /// Address and port, of UDP and TCP.
    pub listen: String,
    /// Why nobody answers there, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
