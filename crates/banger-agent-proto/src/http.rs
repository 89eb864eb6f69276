//! The agent's HTTP routes and their bodies.
//!
//! | route | does |
//! | --- | --- |
//! | `GET /healthz` | [`Health`] |
//! | `GET /boot?wait_ms=N` | [`crate::boot::BootProgress`], once the boot is over or after `N` ms |
//! | `GET /ports` | [`Ports`] |
//! | `GET /usage` | [`Usage`] |
//! | `GET /events` | [`crate::events`] |
//! | `POST /exec` | [`crate::exec`]: a command with a client |
//! | `POST /detach` | [`crate::exec`]: a command without a client |
//! | `POST /connect?port=N&wait_ms=M` | [`crate::ssh`]: a connection to a TCP port of the guest |
//! | `POST /forward?user=U` | [`crate::forward`]: a socket of the guest that the host serves |
//! | `POST /forward/take?number=N` | [`crate::forward`]: one of its connections |
//! | `GET /sshd` | [`crate::ssh::SshServer`] |
//! | `GET /archive?path=P` | [`crate::archive`]: a file or folder as a tar stream |
//! | `PUT /archive?path=P&source=K` | [`crate::archive`]: unpack a tar stream |
//! | `POST /shutdown` | [`Shutdown`]; `202`, then the guest goes down |
//! | `GET /clock` | [`ClockReading`] |
//! | `POST /clock` | [`Clock`]: set the wall clock |
//! | `POST /clock/offset` | [`ClockOffset`]: correct the wall clock by the measured offset |
//! | `POST /reseed` | [`Reseed`]: mix entropy in, after a snapshot was restored |
//!
//! Errors are a status of 400 and above with [`ErrorBody`].

use serde::{Deserialize, Serialize};

use crate::boot::BootProgress;

/// Body of every answer with a status of 400 and above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Error message, naming the object.
    pub error: String,
}

/// Health of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Always `ok`.
    pub status: String,
    /// Boot id, which identifies the boot that answers.
    pub boot_id: String,
    /// Build id of the agent.
    pub build: String,
    /// Oldest protocol version that the agent supports.
    pub protocol_min: u32,
    /// Newest protocol version that the agent supports.
    pub protocol_max: u32,
    /// Milliseconds since the guest's kernel started.
    pub uptime_ms: u64,
    /// Bytes used on the writable layer of the root disk (statfs(2)).
    #[serde(default)]
    pub root_used_bytes: Option<u64>,
    /// Number of restarts of the agent in this boot.
    #[serde(default)]
    pub agent_restarts: u32,
    /// Progress of the image's init; absent if the agent does not report it.
    #[serde(default)]
    pub boot: Option<BootProgress>,
}

/// Resource counters since the guest booted. Each is absent if its file in `/proc` cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// `/proc/meminfo`.
    #[serde(default)]
    pub memory: Option<MemoryUsage>,
    /// Transfers of the virtio disks: `/proc/diskstats`.
    #[serde(default)]
    pub disk: Option<TransferUsage>,
    /// Transfers of the physical network interfaces: `/sys/class/net`.
    #[serde(default)]
    pub network: Option<TransferUsage>,
}

/// Memory of the guest in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// `MemTotal`.
    pub total_bytes: u64,
    /// `MemAvailable`.
    pub available_bytes: u64,
}

/// Bytes transferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferUsage {
    /// Read or received.
    pub inward_bytes: u64,
    /// Written or sent.
    pub outward_bytes: u64,
}

/// Listening sockets of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// In order of port.
    pub ports: Vec<ListeningPort>,
}

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListeningPort {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Local address.
    pub address: String,
    /// Local port.
    pub port: u16,
    /// Process that owns the socket, if found.
    pub pid: Option<u32>,
    /// Its name (`/proc/PID/comm`).
    pub process: Option<String>,
}

/// Shut the guest down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// Power off or reboot; `Unknown` is refused.
    pub mode: crate::events::PowerMode,
    /// Milliseconds until the host kills the VMM. Shortly before, the agent shuts the guest down
    /// without its init; absent = no limit.
    #[serde(default)]
    pub grace_ms: Option<u64>,
}

/// Set the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// The guest's wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// Microseconds since 1970.
    pub unix_us: i64,
}

/// Whether the clock ran without interruption since the last comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockHistory {
    /// It did.
    #[default]
    Continuous,
    /// The guest was paused, or the host slept.
    Interrupted,
}

/// Correct the clock. After an interruption the agent steps it. Otherwise the agent slews it, steps
/// it forwards, or does nothing if a program of the guest synchronises the clock and the difference
/// is small; it steps it backwards only if it is wrong by seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// The host's time minus the guest's, in microseconds.
    pub offset_us: i64,
    /// Continuous if absent.
    #[serde(default)]
    pub history: ClockHistory,
}

/// Mix entropy in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reseed {
    /// Up to 512 bytes, base64.
    pub entropy: String,
}
