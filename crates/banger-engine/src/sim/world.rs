//! The objects on a simulated host, and injected faults.

use std::collections::{BTreeMap, BTreeSet};

use banger_api::{ApiError, ErrorCode, VmId};
use serde::{Deserialize, Serialize};

/// All objects of a simulated host: `kind:VM id` to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// Objects of VMs.
    pub objects: BTreeMap<String, String>,
    /// Images and kernels: name to id.
    pub fetched: BTreeMap<String, String>,
    /// Files of images and kernels that are not finished: `image:NAME#NUMBER`.
    #[serde(default)]
    pub unfinished: BTreeSet<String>,
    /// Number of started processes; the start time of the next one.
    pub spawned: u64,
    /// Number of restarts of the host.
    #[serde(default)]
    pub restarts: u64,
}

impl World {
    /// The key of an object.
    pub fn key(kind: &str, vm: &VmId) -> String {
        format!("{kind}:{vm}")
    }

    /// Adds an object; false if it was there.
    pub fn insert(&mut self, kind: &str, vm: &VmId, value: String) -> bool {
        self.objects.insert(Self::key(kind, vm), value).is_none()
    }

    /// Removes an object; false if it was not there.
    pub fn remove(&mut self, kind: &str, vm: &VmId) -> bool {
        self.objects.remove(&Self::key(kind, vm)).is_some()
    }

    /// Value of an object.
    pub fn get(&self, kind: &str, vm: &VmId) -> Option<&str> {
        self.objects.get(&Self::key(kind, vm)).map(String::as_str)
    }

    /// Kinds of the objects that a VM has, in order.
    pub fn of(&self, vm: &VmId) -> Vec<&str> {
        let suffix = format!(":{vm}");
        self.objects.keys().filter_map(|key| key.strip_suffix(&suffix)).collect()
    }
}

/// When an effect fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before the change.
    Before,
    /// After the change.
    After,
}

/// An effect that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Kind of object; with the prefix `undo ` for its removal.
    pub effect: String,
    /// Before or after the change.
    pub when: When,
    /// Remaining number of failures.
    pub times: u32,
}

/// Fails if there is a fault for this effect.
pub(super) fn take_fault(faults: &mut [Fault], effect: &str, when: When) -> Result<(), ApiError> {
    let fault = faults
        .iter_mut()
        .find(|fault| fault.effect == effect && fault.when == when && fault.times > 0);
    let Some(fault) = fault else { return Ok(()) };
    fault.times -= 1;
    let moment = match when {
        When::Before => "before",
        When::After => "after",
    };
    Err(ApiError::new(ErrorCode::Internal, format!("simulated failure {moment} `{effect}`")))
}
