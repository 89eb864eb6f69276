//! The feed of VM changes: `GET /v1/events`, server-sent events with one [`VmEvent`] each.
//!
//! The feed is resumed with `Last-Event-ID`: where the daemon still has what followed that event,
//! it goes on there; otherwise it begins with [`VmEventKind::All`]. Changes in quick succession are
//! one event: it shows the VM as it is, and `generation` tells how often its record changed.

use serde::{Deserialize, Serialize};

use crate::VmId;
use crate::ids::OpId;
use crate::names::VmName;
use crate::vm::VmState;

/// A VM at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmNow {
    /// Id.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// State.
    pub state: VmState,
    /// Grows with each change of the VM's record.
    pub generation: u64,
    /// The operation in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OpId>,
}

/// One event of the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmEvent {
    /// Place in the feed of this daemon: the event's id, as `Last-Event-ID` takes it.
    pub id: String,
    /// The event.
    #[serde(flatten)]
    pub what: VmEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum VmEventKind {
    /// All VMs there are; what was known before is void.
    All {
        /// The VMs, by id.
        vms: Vec<VmNow>,
    },
    /// A VM is new or has changed.
    Changed {
        /// The VM.
        vm: VmNow,
    },
    /// A VM was deleted.
    Gone {
        /// Id that it had.
        vm: VmId,
    },
}
