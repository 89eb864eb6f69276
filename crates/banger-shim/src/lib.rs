//! Protocols between the daemon and the two processes that outlive it: `banger-shim` and
//! `banger-forward`.
//!
//! The daemon starts `banger-shim` in a VM's run folder, behind a [`gate`], and sends it a
//! [`ShimConfig`]. When all children are running, the shim writes [`STATE_FILE`] and
//! [`STATUS_FILE`], and answers a [`ShimEvent`]. When they have ended, it writes [`EXIT_FILE`].
//! To pause the vCPUs of a VMM with QMP, the daemon creates [`PAUSE_FILE`]; to resume them, it
//! removes the file. After each it sends SIGUSR1, and the shim reports the result in the status.
//!
//! SIGTERM ends the children; so does SIGKILL, but then nothing is recorded.
//!
//! The run folder may belong to the uid of the children, so the shim keeps its files and logs in
//! folders that the children cannot write to.

mod forward;
/// Free bytes of the host at which a guest that was paused for a full disk continues, and at which
/// a disk that the kernel gave up is used again.
pub const ENOUGH_SPACE: u64 = 16 << 20;

pub mod gate;
pub mod record;

pub use banger_base::{
    ByteString, DiskTrouble, ExitCause, ExitStory, GuestEnd, Outcome, ProcRef, ShimStatus,
    VcpuState,
};
pub use forward::{Forward, ForwardConfig, ForwardEvent, MAX_CONNECTIONS, MAX_FORWARD_CONFIG};
pub use record::{EXIT_FILE, PAUSE_FILE, STATE_FILE, STATUS_BYTES, STATUS_FILE};
use serde::{Deserialize, Serialize};

/// Maximum length of the configuration line in bytes.
pub const MAX_CONFIG: usize = 1 << 20;

/// The processes to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimConfig {
    /// Folder for [`STATE_FILE`] and [`EXIT_FILE`], absolute; children must not write there.
    pub state_dir: ByteString,
    /// The companion, started first.
    pub companion: Option<Companion>,
    /// The VMM.
    pub vmm: Child,
    /// Log of the VMM's standard output.
    pub console: CappedLog,
    /// Log of the VMM's standard error and the companion's output.
    pub vmm_log: CappedLog,
    /// Descriptor number of a QMP connection in the VMM, if it supports QMP.
    pub qmp_fd: Option<i32>,
    /// Numbers at which the VMM finds the descriptors that come through the gate with this
    /// configuration, in their order; 3 and above, each once.
    #[serde(default)]
    pub passed: Vec<i32>,
    /// Set if `vmm` is a jailer, which starts the VMM and exits.
    #[serde(default)]
    pub jailed: Option<Jailed>,
    /// Uid that may read the logs, if not the shim's own.
    #[serde(default)]
    pub reader: Option<u32>,
}

/// A VMM started by a jailer: Firecracker's docs/jailer.md. It does not report the guest's last
/// action and does not exit on power-off, so the shim detects both from the kernel messages on the
/// console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jailed {
    /// Name of the file in the run folder with the VMM's process id, written by the jailer.
    pub pid_file: String,
    /// Name of a FIFO in the run folder for the VMM's log, which is copied to the log of its
    /// standard error.
    pub log_fifo: Option<String>,
    /// FIFO and log of the metrics.
    pub metrics_fifo: Option<(String, CappedLog)>,
    /// Name of the socket in the run folder whose creation means that the VMM is ready.
    pub ready_socket: String,
    /// Time limit for both together, in milliseconds.
    pub ready_timeout_ms: u64,
}

/// A program that the VMM needs while it is running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Companion {
    /// The program.
    pub child: Child,
    /// Name of the socket in the run folder whose creation means that the program is ready.
    pub ready_socket: String,
    /// Time limit in milliseconds.
    pub ready_timeout_ms: u64,
    /// Number at which the VMM finds a connection to that socket.
    pub connection_fd: i32,
}

/// A program to start, in the run folder and in its own session. Its environment is empty, its
/// standard input is `/dev/null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Child {
    /// Absolute path, or a path relative to the run folder that contains a `/`.
    pub program: ByteString,
    /// Arguments.
    pub args: Vec<ByteString>,
    /// Uid and gid, if the shim runs as root. Supplementary groups are dropped.
    pub run_as: Option<u32>,
    /// The only supplementary group of a program with `run_as`.
    #[serde(default)]
    pub group: Option<u32>,
    /// Files to pass as descriptors.
    pub files: Vec<PassedFile>,
    /// Paths that it may open in addition to its own program and the system's libraries; `None` if
    /// it confines itself, because Landlock forbids mount(2).
    pub view: Option<View>,
}

/// Paths that a child may open, absolute or relative to the run folder; paths that do not exist are
/// skipped. Enforced by landlock(7) if the kernel supports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Read access.
    pub read: Vec<ByteString>,
    /// Write access; in folders also creating and removing files and sockets.
    pub write: Vec<ByteString>,
}

/// A file that the shim opens for a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassedFile {
    /// Descriptor number in the child; 3 or higher, each used once.
    pub fd: i32,
    /// Absolute path.
    pub path: ByteString,
    /// Access mode.
    pub access: Access,
}

/// Access mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// For reading.
    Read,
    /// For reading and writing.
    ReadWrite,
}

/// A log with a size limit: at the limit it is renamed to `<path>.1` and starts empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CappedLog {
    /// Absolute path.
    pub path: ByteString,
    /// Size limit in bytes; at most twice as much is on disk.
    pub cap_bytes: u64,
}

/// One line on the status pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ShimEvent {
    /// Both processes are running.
    Started(ShimState),
    /// A process could not be started; the others have been ended.
    Failed {
        /// The step.
        step: String,
        /// The error.
        message: String,
    },
}

/// The processes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimState {
    /// The companion.
    pub companion: Option<ProcRef>,
    /// The VMM.
    pub vmm: ProcRef,
}
