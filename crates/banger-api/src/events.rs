//! The feed of VM changes: `GET /v1/events`, server-sent events with one [`VmEvent`] each.
//!
//! The feed is resumed with `Last-Event-ID`: if the daemon still has the events after that one, it
//! continues there; otherwise it starts with [`VmEventKind::All`]. Without that header,
//! `since_unix_ms` starts with the first event since that time that the daemon still has. Changes
//! in quick succession are merged into one event with the current state; `generation` counts the
//! changes.

use serde::{Deserialize, Serialize};

use crate::VmId;
use crate::ids::OpId;
use crate::names::VmName;
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

/// One event of the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmEvent {
    /// Position in the feed of this daemon: the event's id, for `Last-Event-ID`.
    pub id: String,
    /// Time of the event, in milliseconds since 1970; 0 from a daemon that does not report it.
    #[serde(default)]
    pub at_unix_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub what: VmEventKind,
}

/// Kind of event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum VmEventKind {
    /// All VMs; replaces earlier knowledge.
    All {
        /// The VMs, by id.
        vms: Vec<VmNow>,
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
}
