//! Operations: accepted immediately and followed as a stream of events that can be resumed.

use serde::{Deserialize, Serialize};

use crate::VmId;
use crate::error::ApiError;
use crate::ids::{ImageId, KernelId, OpId};
use crate::names::VmName;
use crate::trace::TraceId;

/// Answer to a request that starts an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Accepted {
    /// The operation to follow; absent if the requested state already holds.
    pub operation: Option<OpId>,
    /// The VM of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmTag>,
    /// Warnings about the accepted request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Id and name of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmTag {
    /// Id.
    pub id: VmId,
    /// Name.
    pub name: VmName,
}

/// The object that an operation works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Subject {
    /// A VM.
    Vm(VmTag),
    /// An image.
    Image {
        /// Name or id in the request.
        name: String,
        /// Id, if the image existed when the operation started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<ImageId>,
    },
    /// A kernel.
    Kernel {
        /// Name or id in the request.
        name: String,
        /// Id, if the kernel existed when the operation started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<KernelId>,
    },
    /// The host.
    Host,
}

impl Subject {
    /// The VM, if the subject is one.
    pub fn vm(&self) -> Option<&VmTag> {
        match self {
            Self::Vm(vm) => Some(vm),
            Self::Image { .. } | Self::Kernel { .. } | Self::Host => None,
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vm(vm) => write!(f, "`{}`", vm.name),
            Self::Image { name, .. } => write!(f, "image `{name}`"),
            Self::Kernel { name, .. } => write!(f, "kernel `{name}`"),
            Self::Host => f.write_str("the host"),
        }
    }
}

/// A subject as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SubjectRef {
    /// A VM: name, id or unique prefix of an id.
    Vm(String),
    /// An image: name or id.
    Image(String),
    /// A kernel: name or id.
    Kernel(String),
    /// The host.
    Host {},
}

/// Effect of a cancel request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelEffect {
    /// The operation is undoing itself; its last event reports the result.
    Cancelling,
    /// The operation had not started and never will.
    NotBegun,
    /// The operation had ended already.
    Ended,
}

/// The answer to a cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CancelAnswer {
    /// The operation.
    pub operation: OpId,
    /// Effect.
    pub effect: CancelEffect,
    /// State of the operation now.
    pub state: OpState,
}

/// State of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpState {
    /// Queued or in progress.
    Running,
    /// Succeeded.
    Succeeded,
    /// Failed and undone.
    Failed,
}

/// View of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperationView {
    /// Id.
    pub id: OpId,
    /// `create`, `start`, `stop`, `pull_image`, …
    pub kind: String,
    /// Its subject.
    pub subject: Subject,
    /// State.
    pub state: OpState,
    /// Time of acceptance: RFC 3339, UTC.
    pub started_at: String,
    /// The error, if it failed.
    pub error: Option<ApiError>,
    /// Id of the new image or kernel, if the operation made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
    /// The trace of the request that led to it, if there was one: the daemon's log has it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceId>,
}

/// One event of an operation. `seq` counts from 1 without gaps, so a stream can be resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OpEvent {
    /// Position in the stream.
    pub seq: u64,
    /// Milliseconds since the operation started.
    pub at_ms: u64,
    /// Kind of event.
    #[serde(flatten)]
    pub what: OpEventKind,
}

/// Kind of event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum OpEventKind {
    /// The first event: the subject of the operation.
    Subject {
        /// The VM, image or kernel, or the host.
        subject: Subject,
    },
    /// A stage started.
    StageStarted {
        /// Name of the stage.
        stage: String,
    },
    /// A stage succeeded.
    StageDone {
        /// Name of the stage.
        stage: String,
        /// Its duration in milliseconds.
        ms: u64,
    },
    /// Progress of a stage.
    Progress {
        /// Name of the stage.
        stage: String,
        /// Units completed.
        done: u64,
        /// Total number of units, if known.
        total: Option<u64>,
        /// The unit, such as `packages unpacked`; absent for bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
    },
    /// An informational line.
    Note {
        /// The line.
        text: String,
    },
    /// A warning; the operation continues.
    Warning {
        /// The line.
        text: String,
    },
    /// The operation succeeded.
    Succeeded {
        /// Id of the new image or kernel, if the operation made one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made: Option<String>,
    },
    /// The operation failed; everything was undone unless the error says otherwise.
    Failed {
        /// The error.
        error: ApiError,
    },
}

impl OpEventKind {
    /// Whether this is the last event.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. })
    }
}

/// Names of the stages of create, start, stop and delete, stable for scripts.
pub mod stage {
    /// Fetching a kernel that is not cached.
    pub const PULL_KERNEL: &str = "pull_kernel";
    /// Building a kernel from source.
    pub const BUILD_KERNEL: &str = "build_kernel";
    /// Unpacking the kernel that an image contains.
    pub const OWN_KERNEL: &str = "own_kernel";
    /// Fetching an image that is not cached.
    pub const PULL_IMAGE: &str = "pull_image";
    /// Reading the inputs of an image build.
    pub const BUILD_INPUTS: &str = "build_inputs";
    /// Starting the VM of an image build.
    pub const START_VM: &str = "start_vm";
    /// Copying files into that VM.
    pub const COPY_FILES: &str = "copy_files";
    /// Installing packages in it.
    pub const INSTALL_PACKAGES: &str = "install_packages";
    /// Running the script in it.
    pub const RUN_SCRIPT: &str = "run_script";
    /// Removing the identity of the VM, caches and logs.
    pub const CLEAN_IMAGE: &str = "clean_image";
    /// Creating an image from the root disk of a stopped VM.
    pub const CAPTURE_IMAGE: &str = "capture_image";
    /// Checks before any change.
    pub const PREFLIGHT: &str = "preflight";
    /// Creating the disks (create) or attaching them (start).
    pub const PREPARE_DISKS: &str = "prepare_disks";
    /// Setting up the network of the VM.
    pub const ATTACH_NETWORK: &str = "attach_network";
    /// Starting the VMM.
    pub const LAUNCH_VMM: &str = "launch_vmm";
    /// From the start of the VMM until the guest's hello.
    pub const BOOT: &str = "boot";
    /// Until the agent answers.
    pub const WAIT_VSOCK_AGENT: &str = "wait_vsock_agent";
    /// Until network, work disk and files are in place and the image's init is running.
    pub const WAIT_GUEST_READY: &str = "wait_guest_ready";
    /// Starting the image's opencode server, until it answers.
    pub const WAIT_OPENCODE: &str = "wait_opencode";
    /// The VM is running.
    pub const READY: &str = "ready";
    /// Waiting for the guest to shut down.
    pub const SHUTDOWN: &str = "shutdown";
    /// Undoing the start.
    pub const TEARDOWN: &str = "teardown";
    /// Removing the disks.
    pub const REMOVE_DISKS: &str = "remove_disks";
}
