//! Checks of the host, for `doctor` and for other commands.

use serde::{Deserialize, Serialize};

use crate::hint::{self, Hint};
use crate::{ApiError, VmId};

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Check {
    /// Stable code, `qemu.program`.
    pub code: String,
    /// Verdict.
    pub verdict: Verdict,
    /// The observation.
    pub seen: String,
    /// Advice, if something must be changed.
    #[serde(default, alias = "hint", deserialize_with = "hint::read")]
    #[serde(serialize_with = "hint::write", skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<hint::WordedHint>)]
    pub hints: Vec<Hint>,
    /// Features that depend on it: `start`, `image`, `nat`, …
    pub needed_for: Vec<String>,
}

impl Check {
    /// Its hints in the words of the command line.
    pub fn hint(&self) -> Option<String> {
        hint::words(&self.hints)
    }
}

/// Objects on the host of a VM that is not in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Leftover {
    /// Id of the VM, or the name of a folder among those of VMs.
    pub id: String,
    /// Kind and name of each object: ``TAP `fc-0123456789ab` ``.
    pub objects: Vec<String>,
    /// Its folder, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Paths of its disks.
    pub disks: Vec<String>,
    /// Process ids of its shim, companion and VMM, those that run.
    pub processes: Vec<u32>,
}

/// Why a leftover is not removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Its name is not the id of a VM: banger did not create it.
    Foreign,
    /// Its VM is running.
    Running,
    /// It has disks, which may be the only copy.
    Disks,
}

impl Leftover {
    /// Why it must not be removed; `None` if it may.
    pub fn kept(&self) -> Option<Kept> {
        if self.id.parse::<VmId>().is_err() {
            Some(Kept::Foreign)
        } else if !self.processes.is_empty() {
            Some(Kept::Running)
        } else if !self.disks.is_empty() {
            Some(Kept::Disks)
        } else {
            None
        }
    }
}

/// Request to remove leftovers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveLeftovers {
    /// Ids of VMs.
    pub ids: Vec<String>,
}

/// The removal of one leftover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RemovedLeftover {
    /// Id of the VM.
    pub id: String,
    /// The objects that were removed; none if there were none any more.
    pub removed: Vec<String>,
    /// Why objects are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// Verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Passed.
    Ok,
    /// Works, with a restriction.
    Warning,
    /// Something will not work.
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leftovers_without_disks_and_processes_are_removed() {
        let none = Leftover { id: "0123456789ab".into(), ..Leftover::default() };
        assert_eq!(none.kept(), None);
        let disks = Leftover { disks: vec!["/s/root.ext4".into()], ..none.clone() };
        assert_eq!(disks.kept(), Some(Kept::Disks));
        assert_eq!(Leftover { processes: vec![7], ..disks }.kept(), Some(Kept::Running));
        for id in ["", "web", "..", "0123456789AB", "0123456789ab/x"] {
            let other = Leftover { id: id.into(), ..none.clone() };
            assert_eq!(other.kept(), Some(Kept::Foreign), "{id}");
        }
    }
}
