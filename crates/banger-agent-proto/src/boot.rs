//! The boot protocol: lines of JSON on the connection that the guest opens.
//!
//! ```text
//! guest → host   {"type":"hello", …}\n       within the boot, at most MAX_BOOT_LINE bytes
//! host  → guest  {"hostname": …}\n           the GuestConfig, at most MAX_CONFIG_LINE bytes
//! guest → host   {"type":"ready", …}\n       the image's init is running; or
//!                {"type":"failed", …}\n      the boot ends here; the guest powers off
//! ```

use std::collections::BTreeMap;

use banger_base::ByteString;
use serde::{Deserialize, Serialize};

/// A message of a booting guest, one JSON object per line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BootMessage {
    /// First line: identifies the guest.
    Hello(Hello),
    /// Last line of a successful boot.
    Ready(Ready),
    /// Last line of a failed boot.
    Failed(BootFailure),
}

/// Identification of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol version that the agent supports.
    pub protocol_min: u32,
    /// Newest protocol version that the agent supports.
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

/// The image's init, or the agent in its place, is running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Stages of the boot, in order.
    pub timeline: Vec<TimelineEntry>,
    /// The init that was executed (`/sbin/init`), or `agent` where the agent stays init.
    pub init: String,
    /// Errors that did not stop the boot, for the daemon's log.
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
    /// It does not report its state, and starts no more processes.
    Unknown,
}

/// Progress of the image's init after `ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootProgress {
    /// State of the init.
    pub state: BootState,
    /// When it left `booting`: milliseconds since the guest's kernel started.
    pub uptime_ms: Option<u64>,
    /// Source of the state, such as `systemd: running`.
    pub source: String,
    /// Failed services; at most 20 names.
    #[serde(default)]
    pub failed: Vec<String>,
}

impl BootProgress {
    /// The state of a boot in progress.
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

/// Error of a failed boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFailure {
    /// Failed stage, named as in the timeline.
    pub stage: String,
    /// Error message, naming the file or device.
    pub message: String,
}

/// Identification of a disk in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskRef {
    /// virtio-blk serial, `/sys/block/vdX/serial` (QEMU sets it).
    Serial(String),
    /// Position among the virtio disks, 0 = `vda` (Firecracker keeps the order of its drives).
    Index(u8),
}

/// Path in the guest that leads to all trusted certificates as PEM, if the configuration has any.
pub const CERTIFICATES_FILE: &str = "/etc/banger/ca.crt";

/// Certificate of an authority that the guest trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestCertificate {
    /// As PEM (RFC 7468) with 64 characters a line, ending in a newline.
    pub pem: String,
    /// Hash of its subject, 8 hex digits: the name under which OpenSSL finds it in a folder
    /// (openssl-rehash(1)).
    pub subject_hash: String,
}

/// Configuration of a guest. The daemon builds it at each start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// Protocol chosen by the host from the hello's range.
    pub protocol: u32,
    /// Host name, a DNS label.
    pub hostname: String,
    /// 32 lowercase hex digits for `/etc/machine-id`.
    pub machine_id: String,
    /// Source of `/`.
    pub root: RootConfig,
    /// Disk mounted at `/root`.
    pub work: Option<DiskRef>,
    /// Read-only ext4 whose top folder is a kernel release; mounted under `/lib/modules/<release>`.
    pub modules: Option<DiskRef>,
    /// The one network interface, if the VM has one.
    pub network: Option<NetworkConfig>,
    /// Files to write before init starts.
    pub files: Vec<GuestFile>,
    /// Certificates for the guest's trust store. Those of an earlier start are removed.
    #[serde(default)]
    pub certificates: Vec<GuestCertificate>,
    /// Environment of commands run through the agent.
    pub env: BTreeMap<String, String>,
    /// The host's wall clock when the configuration was sent, milliseconds since 1970.
    pub clock_unix_ms: u64,
    /// Up to 512 bytes to mix into the guest's entropy pool, base64.
    pub entropy: String,
    /// The program of the machine: the agent is init then, and runs it instead of the image's
    /// init.
    #[serde(default)]
    pub program: Option<Program>,
}

/// The one program of a machine; its end is the machine's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Program and arguments; at least one.
    pub argv: Vec<ByteString>,
    /// Its environment, `NAME=VALUE`; later entries replace earlier ones.
    #[serde(default)]
    pub env: Vec<ByteString>,
    /// Working folder, created if it is missing; absent = `/`.
    #[serde(default)]
    pub cwd: Option<ByteString>,
    /// `USER` or `USER:GROUP`, each a name or a number; absent = root.
    #[serde(default)]
    pub user: Option<String>,
    /// Signal that stops it.
    pub stop_signal: u8,
    /// When it starts.
    pub start: ProgramStart,
}

/// When the program of a machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramStart {
    /// After the boot; its output is the console.
    AfterBoot,
    /// With the client that attaches to it; as [`Self::AfterBoot`] if none does for a minute.
    WithClient,
}

/// Composition of `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootConfig {
    /// The root disk (ext4); mounted read-only if there is a layer.
    pub disk: DiskRef,
    /// Private writable ext4, mounted over `disk` with overlayfs.
    pub layer: Option<DiskRef>,
}

/// One interface with static addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// `aa:bb:cc:dd:ee:ff`; selects the interface.
    pub mac: String,
    /// Addresses with prefix length, `10.0.2.15/24`.
    pub addresses: Vec<String>,
    /// IPv4 default gateway.
    pub gateway: Option<String>,
    /// Resolver addresses for `/etc/resolv.conf`.
    pub dns: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// MTU in bytes, if not the default.
    pub mtu: Option<u32>,
}

/// A file that the agent writes; symbolic links are not followed.
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
    /// Whether an existing file is replaced.
    pub when: WriteWhen,
}

/// Treatment of an existing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteWhen {
    /// Replace it.
    Always,
    /// Keep it.
    Absent,
    /// Keep it, and append the content, which is one line, unless the file has that line.
    Line,
    /// Keep it but for one block of lines, which becomes the content. First and last line of the
    /// content mark the block; without lines between them the block is removed, and with it a file
    /// that has nothing else. A symbolic link to the file is followed inside the image.
    Block,
    /// As [`Self::Block`], if the file is there.
    BlockInFile,
    /// Keep it, a configuration of git (git-config(1)), but for the variables of the content, which
    /// is one section: its header, and one variable in each further line. A symbolic link to the
    /// file is followed inside the image.
    GitVariables,
}
