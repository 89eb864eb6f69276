//! Request types of Firecracker's API (src/firecracker/swagger/firecracker.yaml), with the fields
//! that banger sets. Omitted fields keep Firecracker's default.

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

/// Cache mode of a drive.
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
    /// Whether the kernel mounts it as its root; always false here.
    pub is_root_device: bool,
    /// Whether the guest may only read it.
    pub is_read_only: bool,
    /// Device node, in the jail.
    pub path_on_host: String,
    /// Cache mode.
    pub cache_type: CacheType,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// Limits of a drive or an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RateLimiter {
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// Operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TokenBucket {
    /// Capacity.
    pub size: u64,
    /// Milliseconds to refill it completely.
    pub refill_time: u64,
    /// Additional initial tokens, which are not refilled.
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
    /// Limits of received data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// Limits of sent data.
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
    /// Limits.
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
    /// Whether lines contain their level.
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
    /// Pause the vCPUs.
    Paused,
    /// Resume the vCPUs.
    Resumed,
}

/// Extent of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SnapshotType {
    /// All memory.
    Full,
    /// Memory written since the previous snapshot.
    Diff,
}

/// `PUT /snapshot/create`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotCreate {
    /// State of the devices, in the jail.
    pub snapshot_path: String,
    /// Memory, in the jail.
    pub mem_file_path: String,
    /// Extent.
    pub snapshot_type: SnapshotType,
}

/// Location of a snapshot's memory.
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
    /// Whether the guest is resumed at once.
    pub resume_vm: bool,
}
