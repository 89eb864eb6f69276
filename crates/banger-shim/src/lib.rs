//! The protocols between the daemon and the two processes that it starts for a VM and that outlive
//! it: `banger-shim` and `banger-forward`.
//!
//! The daemon starts `banger-shim` in a VM's run folder, behind a [`gate`], and sends it a
//! [`ShimConfig`]. When all children run the shim writes [`STATE_FILE`] and [`STATUS_FILE`], and
//! answers a [`ShimEvent`]. When they have ended it writes [`EXIT_FILE`]. SIGTERM ends the
//! children; SIGKILL too, but then nothing is recorded.
//!
//! The run folder may belong to the uid of the children, so the shim keeps no file of its own
//! there: its files are in a folder that the children cannot write to, as the logs should be.

mod forward;
pub mod gate;
pub mod record;

pub use banger_base::{DiskTrouble, ExitCause, ExitStory, GuestEnd, Outcome, ProcRef, ShimStatus};
pub use forward::{Forward, ForwardConfig, ForwardEvent, MAX_CONNECTIONS, MAX_FORWARD_CONFIG};
pub use record::{EXIT_FILE, STATE_FILE, STATUS_BYTES, STATUS_FILE};
use serde::{Deserialize, Serialize};

/// Longest configuration line in bytes.
pub const MAX_CONFIG: u64 = 1 << 20;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimConfig {
    /// Folder for [`STATE_FILE`] and [`EXIT_FILE`], absolute; children must not write there.
    pub state_dir: String,
    /// Started first.
    pub companion: Option<Companion>,
    /// The VMM.
    pub vmm: Child,
    /// Where the VMM's standard output goes.
    pub console: CappedLog,
    /// Where its standard error and the companion's output go.
    pub vmm_log: CappedLog,
    /// Number at which the VMM finds its end of a QMP connection, if it speaks QMP.
    pub qmp_fd: Option<i32>,
    /// Set where `vmm` is a jailer, which leaves the real VMM behind and ends.
    #[serde(default)]
    pub jailed: Option<Jailed>,
    /// Who may read what the shim writes, where that is not the shim's own user.
    #[serde(default)]
    pub reader: Option<u32>,
}

/// A VMM that a jailer starts: Firecracker's docs/jailer.md. It does not report what its guest did
/// last, and stays when the guest powers off, so both are taken from what the guest's kernel prints
/// on the console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jailed {
    /// Plain name of the file in the run folder that the jailer writes the VMM's process id to.
    pub pid_file: String,
    /// Plain name of a FIFO in the run folder that the VMM writes its log to; it goes where its
    /// standard error goes.
    pub log_fifo: Option<String>,
    /// The same for its metrics, and where they go.
    pub metrics_fifo: Option<(String, CappedLog)>,
    /// Plain name of the socket in the run folder that tells that the VMM is ready.
    pub ready_socket: String,
    /// How long both may take together, in milliseconds.
    pub ready_timeout_ms: u64,
}

/// A program that the VMM needs while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Companion {
    /// What to start.
    pub child: Child,
    /// Plain name of the socket in the run folder that tells that it is ready.
    pub ready_socket: String,
    /// How long it may take, in milliseconds.
    pub ready_timeout_ms: u64,
}

/// A program to start, in the run folder and in a session of its own. Its environment is empty, its
/// standard input is `/dev/null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Child {
    /// Absolute path, or one relative to the run folder that holds a `/`.
    pub program: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Uid and gid to run as, where the shim is root. Supplementary groups are dropped.
    pub run_as: Option<u32>,
    /// Files that it gets as descriptors.
    pub files: Vec<PassedFile>,
    /// What it sees of the file system beside its own program and the system's libraries; nothing
    /// where it confines itself, since who is under landlock cannot mount.
    pub view: Option<View>,
}

/// Paths that a child may open, absolute or relative to the run folder; those that are not there
/// are left out. Enforced by landlock(7) where the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// For reading.
    pub read: Vec<String>,
    /// For writing too; in folders also for making and removing files and sockets.
    pub write: Vec<String>,
}

/// A file opened by the shim for a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassedFile {
    /// Number at which the child finds it; 3 and above, each once.
    pub fd: i32,
    /// Absolute path.
    pub path: String,
    /// How it is opened.
    pub access: Access,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// For reading.
    Read,
    /// For reading and writing.
    ReadWrite,
}

/// A log that cannot fill the disk: at the cap it becomes `<path>.1` and begins anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CappedLog {
    /// Absolute path.
    pub path: String,
    /// Bytes before it is rotated; at most twice as many are on disk.
    pub cap_bytes: u64,
}

/// One line on the status pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ShimEvent {
    /// Both run.
    Started(ShimState),
    /// Something could not be started; what was is ended.
    Failed {
        /// What.
        step: String,
        /// Why.
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
