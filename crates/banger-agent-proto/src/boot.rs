//! The boot conversation: one line of JSON each way on the connection the guest opens.
//!
//! ```text
//! guest → host   {"type":"hello", …}\n       within the boot, at most MAX_BOOT_LINE bytes
//! host  → guest  {"hostname": …}\n           the GuestConfig, at most MAX_CONFIG_LINE bytes
//! guest → host   {"type":"ready", …}\n       the image's init is running; or
//!                {"type":"failed", …}\n      the boot ends here; the guest powers off
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a booting guest sends, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BootMessage {
    /// First line: who is booting.
    Hello(Hello),
    /// Last line of a good boot.
    Ready(Ready),
    /// Last line of a failed boot.
    Failed(BootFailure),
}

/// The guest introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol the agent speaks.
    pub protocol_min: u32,
    /// Newest protocol the agent speaks.
    pub protocol_max: u32,
    /// Build id of the agent.
    pub build: String,
    /// `/proc/sys/kernel/random/boot_id`: new at each boot of the guest's kernel.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// Milliseconds since the guest's kernel started, when hello was sent.
    pub uptime_ms: u64,
}

/// The image's init (or the agent in its stead) is running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// What the guest spent its time on, in order.
    pub timeline: Vec<TimelineEntry>,
    /// The init that was executed (`/sbin/init`), or `agent` where the agent stays init.
    pub init: String,
    /// Things that went wrong without stopping the boot, for the daemon's log.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// State of the guest's init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootState {
    /// It is booting.
    Booting,
    /// It has booted.
    Running,
    /// It has booted, and services failed.
    Degraded,
    /// It does not report, and has come to rest.
    Unknown,
}

/// How far the image's init has come since `ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootProgress {
    /// State of the init.
    pub state: BootState,
    /// When it left `booting`: milliseconds since the guest's kernel started.
    pub uptime_ms: Option<u64>,
    /// How the agent knows, such as `systemd: running`.
    pub source: String,
    /// Services that failed; at most 20 names.
    #[serde(default)]
    pub failed: Vec<String>,
}

impl BootProgress {
    /// A boot that is not over.
    pub fn booting() -> Self {
        let (uptime_ms, source, failed) = (None, String::new(), Vec::new());
        Self { state: BootState::Booting, uptime_ms, source, failed }
    }
}

/// A named span of the guest's boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// `kernel`, `modules`, `hello`, `mounts`, `files`, `network`, `init`, …
    pub name: String,
    /// Duration in milliseconds.
    pub ms: u64,
}

/// Why the guest could not boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFailure {
    /// Which part of the boot failed, named as in the timeline.
    pub stage: String,
    /// What happened, naming the file or device.
    pub message: String,
}

/// How the guest finds one of its disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskRef {
    /// virtio-blk serial, `/sys/block/vdX/serial` (QEMU sets it).
    Serial(String),
    /// Position among the virtio disks, 0 = `vda` (Firecracker keeps the order of its drives).
    Index(u8),
}

/// Everything a guest needs to become this VM. Built by the daemon at each start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// Protocol chosen by the host from the hello's range.
    pub protocol: u32,
    /// Host name, a DNS label.
    pub hostname: String,
    /// 32 lowercase hex digits for `/etc/machine-id`.
    pub machine_id: String,
    /// Where `/` comes from.
    pub root: RootConfig,
    /// Disk mounted at `/root`.
    pub work: Option<DiskRef>,
    /// Read-only ext4 whose top folder is a kernel release; mounted under `/lib/modules/<release>`.
    pub modules: Option<DiskRef>,
    /// The one network interface, if the VM has one.
    pub network: Option<NetworkConfig>,
    /// Files to write before init starts.
    pub files: Vec<GuestFile>,
    /// Environment of commands run through the agent.
    pub env: BTreeMap<String, String>,
    /// The host's wall clock when the configuration was sent, milliseconds since 1970.
    pub clock_unix_ms: u64,
    /// Up to 512 bytes to mix into the guest's entropy pool, base64.
    pub entropy: String,
    /// Command to run as the workload where the image has no init; empty = stay and wait.
    pub entrypoint: Vec<String>,
}

/// How `/` is put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootConfig {
    /// The root disk (ext4); mounted read-only when there is a layer.
    pub disk: DiskRef,
    /// Private writable ext4 joined over `disk` with overlayfs.
    pub layer: Option<DiskRef>,
}

/// One interface with static addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// `aa:bb:cc:dd:ee:ff`; picks the interface.
    pub mac: String,
    /// Addresses with prefix length, `10.0.2.15/24`.
    pub addresses: Vec<String>,
    /// IPv4 default gateway.
    pub gateway: Option<String>,
    /// Resolver addresses for `/etc/resolv.conf`.
    pub dns: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// MTU in bytes, where it is not the default.
    pub mtu: Option<u32>,
}

/// A file the agent writes, never through a symlink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestFile {
    /// Absolute, normalised path in the guest.
    pub path: String,
    /// Permission bits, e.g. `0o600`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Contents, base64.
    pub content: String,
    /// Replace what is there, or leave it.
    pub when: WriteWhen,
}

/// What to do with a file that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteWhen {
    /// Replace it.
    Always,
    /// Keep it.
    Absent,
}
