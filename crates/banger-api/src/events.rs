//! The one stream of events: `GET /v1/events`, server-sent events with one [`Event`] each, about
//! all VMs and all operations.
//!
//! The stream is resumed with `Last-Event-ID`: if the daemon still has the events after that one,
//! it continues there; otherwise it starts with [`EventKind::All`]. So does it for a client that
//! reads more slowly than events occur, once the daemon has dropped an event that the client did
//! not get. Without that header, `since_unix_ms` starts with the first event since that time that
//! the daemon still has. Changes of a VM in quick succession are merged into one event with the
//! current state; `generation` counts the changes. Progress in quick succession is merged, too, and
//! notes of an operation are in its own stream only.

use serde::{Deserialize, Serialize};

use crate::VmId;
use crate::ids::OpId;
use crate::names::VmName;
use crate::operation::{OpEvent, Subject};
use crate::vm::VmState;

/// A VM at the time of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmNow {
    /// Id.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// State.
    pub state: VmState,
    /// Generation: incremented with each change of the VM.
    pub generation: u64,
    /// The operation in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OpId>,
}

/// An operation at the time of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperationNow {
    /// Id.
    pub id: OpId,
    /// `create`, `start`, `stop`, `pull_image`, …
    pub kind: String,
    /// Its subject.
    pub subject: Subject,
    /// Its newest event; that of an ended operation is `succeeded` or `failed`.
    pub latest: OpEvent,
}

/// Subjects of events, to select some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// VMs.
    Vms,
    /// Operations.
    Operations,
}

impl About {
    /// Its value in the query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vms => "vms",
            Self::Operations => "operations",
        }
    }
}

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Position in the stream of this daemon: the event's id, for `Last-Event-ID`.
    pub id: String,
    /// Time of the event, in milliseconds since 1970; 0 from a daemon that does not report it.
    #[serde(default)]
    pub at_unix_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub what: EventKind,
}

/// Kind of event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// All VMs and all operations in progress; replaces earlier knowledge.
    All {
        /// Whether the daemon dropped events after `Last-Event-ID`, or does not know that id: other
        /// lists, such as that of images, must be read anew as well.
        #[serde(default)]
        missed: bool,
        /// The VMs, by id.
        vms: Vec<VmNow>,
        /// The operations in progress, by id.
        #[serde(default)]
        operations: Vec<OperationNow>,
    },
    /// A VM was created or changed.
    Changed {
        /// The VM.
        vm: VmNow,
    },
    /// A VM was deleted.
    Gone {
        /// Its id.
        vm: VmId,
    },
    /// An operation started, continued or ended.
    Operation {
        /// The operation.
        operation: OperationNow,
    },
}

impl EventKind {
    /// Whether an event about `about` can be this one.
    pub fn is_about(&self, about: About) -> bool {
        match self {
            Self::All { .. } => true,
            Self::Changed { .. } | Self::Gone { .. } => about == About::Vms,
            Self::Operation { .. } => about == About::Operations,
        }
    }
}
