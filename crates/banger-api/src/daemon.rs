//! Status of the daemon.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ByteString;
use crate::limits::VmDefaults;

/// `daemon status --json`: a stable format for scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DaemonStatus {
    /// Process id.
    pub pid: u32,
    /// Version.
    pub version: String,
    /// Build id, with which clients detect a replaced program.
    pub build_id: String,
    /// Path of the API socket.
    pub socket: ByteString,
    /// Path of the log file.
    pub log: ByteString,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Number of VMs.
    pub vms: u64,
    /// Number of operations in progress.
    pub operations: u64,
    /// Whether the daemon runs on the simulated host.
    pub simulated: bool,
    /// Defaults of a new VM.
    pub defaults: VmDefaults,
    /// The DNS server for names of VMs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsStatus>,
    /// Address and port on which `banger web` listens, if the configuration has one (`web_listen`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "127.0.0.1:8888")]
    pub web_listen: Option<SocketAddr>,
}

/// The DNS server for `NAME.vm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DnsStatus {
    /// Address and port, of UDP and TCP.
    pub listen: String,
    /// Why the server is not running, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
