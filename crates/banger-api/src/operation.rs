//! Operations: accepted at once, followed as a stream of events that a client may leave and rejoin.

use serde::{Deserialize, Serialize};

use crate::VmId;
use crate::error::ApiError;
use crate::ids::{ImageId, KernelId, OpId};
use crate::names::VmName;

/// Answer to a request that takes time, or that turned out to be done already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Accepted {
    /// The operation to follow; absent when things already were as asked.
    pub operation: Option<OpId>,
    /// The VM it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmTag>,
    /// Things worth saying although the request was accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Which VM.
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
        /// Name or id that the request gave.
        name: String,
        /// Id, where the image existed when the operation began.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<ImageId>,
    },
    /// A kernel.
    Kernel {
        /// Name or id that the request gave.
        name: String,
        /// Id, where the kernel existed when the operation began.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<KernelId>,
    },
    /// The host.
    Host,
}

impl Subject {
    /// The VM, where the subject is one.
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

/// What a cancel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelEffect {
    /// The operation was asked to undo itself; its last event tells how it ended.
    Cancelling,
    /// The operation had not begun, and never will.
    NotBegun,
    /// The operation had ended before.
    Ended,
}

/// The answer to a cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CancelAnswer {
    /// The operation.
    pub operation: OpId,
    /// What the cancel did.
    pub effect: CancelEffect,
    /// State of the operation now.
    pub state: OpState,
}

/// State of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpState {
    /// Waiting or under way.
    Running,
    /// Done.
    Succeeded,
    /// Failed, and undone.
    Failed,
}

/// An operation as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperationView {
    /// Id.
    pub id: OpId,
    /// `create`, `start`, `stop`, `pull_image`, …
    pub kind: String,
    /// What it works on.
    pub subject: Subject,
    /// State.
    pub state: OpState,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Why it failed, where it did.
    pub error: Option<ApiError>,
    /// Id of the image or kernel that was made, where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
}

/// One event of an operation. `seq` counts from 1 without gaps, so a stream can be resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OpEvent {
    /// Position in the stream.
    pub seq: u64,
    /// Milliseconds since the operation began.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: OpEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum OpEventKind {
    /// The first event: what the operation works on.
    Subject {
        /// The VM, image or kernel, or the host.
        subject: Subject,
    },
    /// A stage began.
    StageStarted {
        /// Its name.
        stage: String,
    },
    /// A stage ended well.
    StageDone {
        /// Its name.
        stage: String,
        /// Its duration in milliseconds.
        ms: u64,
    },
    /// How far a stage is.
    Progress {
        /// The stage.
        stage: String,
        /// Units so far.
        done: u64,
        /// Units in all, where known.
        total: Option<u64>,
        /// What is counted, such as `packages unpacked`; absent for bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
    },
    /// A line worth showing.
    Note {
        /// The line.
        text: String,
    },
    /// Something went wrong without ending the operation.
    Warning {
        /// The line.
        text: String,
    },
    /// The end, good.
    Succeeded {
        /// Id of the image or kernel that was made, where one was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made: Option<String>,
    },
    /// The end, bad; everything was undone unless the error says otherwise.
    Failed {
        /// Why.
        error: ApiError,
    },
}

impl OpEventKind {
    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. })
    }
}

/// Stages of a create, start, stop and delete as people and scripts see them.
pub mod stage {
    /// Fetching a kernel that is not here yet.
    pub const PULL_KERNEL: &str = "pull_kernel";
    /// Fetching an image that is not here yet.
    pub const PULL_IMAGE: &str = "pull_image";
    /// Checks before anything is changed.
    pub const PREFLIGHT: &str = "preflight";
    /// Making the disks (create) or attaching them (start).
    pub const PREPARE_DISKS: &str = "prepare_disks";
    /// Network of the VM.
    pub const ATTACH_NETWORK: &str = "attach_network";
    /// Starting the VMM.
    pub const LAUNCH_VMM: &str = "launch_vmm";
    /// From the VMM's start until the guest said hello.
    pub const BOOT: &str = "boot";
    /// Until the agent answered.
    pub const WAIT_VSOCK_AGENT: &str = "wait_vsock_agent";
    /// Until network, work disk and files are in place and the image's init runs.
    pub const WAIT_GUEST_READY: &str = "wait_guest_ready";
    /// Running.
    pub const READY: &str = "ready";
    /// Waiting for the guest to shut down.
    pub const SHUTDOWN: &str = "shutdown";
    /// Undoing what the start did.
    pub const TEARDOWN: &str = "teardown";
    /// Removing the disks.
    pub const REMOVE_DISKS: &str = "remove_disks";
}
