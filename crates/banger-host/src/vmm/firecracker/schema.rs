//! What Firecracker is told, as its API description (src/firecracker/swagger/firecracker.yaml)
//! names it. Only what we say is here; what is left out keeps Firecracker's default.

use serde::Serialize;

/// `PUT /machine-config`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachineConfig {
    /// vCPUs.
    pub vcpu_count: u32,
    /// Memory in MiB.
    pub mem_size_mib: u64,
}

/// `PUT /boot-source`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootSource {
    /// Uncompressed kernel, in the jail.
    pub kernel_image_path: String,
    /// Initramfs, in the jail.
    pub initrd_path: String,
    /// Kernel command line.
    pub boot_args: String,
}

/// How a drive treats flushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CacheType {
    /// The guest's flushes reach the disk. With `Unsafe`, the default, they are not even offered.
    Writeback,
}

/// `PUT /drives/{drive_id}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drive {
    /// Id.
    pub drive_id: String,
    /// Whether the kernel mounts it itself; ours never does.
    pub is_root_device: bool,
    /// Whether the guest may only read it.
    pub is_read_only: bool,
    /// Device node, in the jail.
    pub path_on_host: String,
    /// How it treats flushes.
    pub cache_type: CacheType,
    /// Its limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// Limits of a drive or an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RateLimiter {
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// In operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

/// A bucket that fills up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TokenBucket {
    /// What it holds.
    pub size: u64,
    /// Milliseconds it takes to fill.
    pub refill_time: u64,
    /// What there is once, on top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_time_burst: Option<u64>,
}

/// `PUT /network-interfaces/{iface_id}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkInterface {
    /// Id.
    pub iface_id: String,
    /// TAP.
    pub host_dev_name: String,
    /// `aa:bb:cc:dd:ee:ff`.
    pub guest_mac: String,
    /// What the guest receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// What it sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// `PUT /vsock`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vsock {
    /// The guest's context id.
    pub guest_cid: u32,
    /// Socket, in the jail.
    pub uds_path: String,
}

/// `PUT /entropy`: a virtio-rng device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Entropy {
    /// Its limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// `PUT /balloon`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Balloon {
    /// Memory to take from the guest, in MiB.
    pub amount_mib: u64,
    /// Whether the guest gets memory back when it runs out of it.
    pub deflate_on_oom: bool,
    /// Seconds between statistics; 0 for none.
    pub stats_polling_interval_s: u32,
}

/// `PATCH /balloon`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BalloonUpdate {
    /// Memory to take from the guest, in MiB.
    pub amount_mib: u64,
}

/// `PUT /logger`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logger {
    /// File or pipe, in the jail.
    pub log_path: String,
    /// `Error`, `Warning`, `Info`, `Debug`, `Trace` or `Off`.
    pub level: String,
    /// Whether lines tell their level.
    pub show_level: bool,
}

/// `PUT /metrics`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// File or pipe, in the jail.
    pub metrics_path: String,
}

/// `PUT /serial`, since 1.14.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Serial {
    /// File, in the jail.
    pub serial_out_path: String,
}

/// `PUT /actions`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "action_type")]
pub enum Action {
    /// Boots the guest.
    InstanceStart,
    /// Presses Ctrl-Alt-Del.
    SendCtrlAltDel,
    /// Writes metrics now.
    FlushMetrics,
}

/// `PATCH /vm`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state")]
pub enum VmState {
    /// vCPUs stop.
    Paused,
    /// They go on.
    Resumed,
}

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SnapshotType {
    /// All memory.
    Full,
    /// What was written to since the last one.
    Diff,
}

/// `PUT /snapshot/create`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotCreate {
    /// State of the devices, in the jail.
    pub snapshot_path: String,
    /// Memory, in the jail.
    pub mem_file_path: String,
    /// How much.
    pub snapshot_type: SnapshotType,
}

/// Where a snapshot's memory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryBackend {
    /// `File` or `Uffd`.
    pub backend_type: String,
    /// File or socket, in the jail.
    pub backend_path: String,
}

/// `PUT /snapshot/load`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotLoad {
    /// State of the devices, in the jail.
    pub snapshot_path: String,
    /// Memory.
    pub mem_backend: MemoryBackend,
    /// Whether it goes on at once.
    pub resume_vm: bool,
}
