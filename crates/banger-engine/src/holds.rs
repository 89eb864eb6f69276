//! Holders of session-bound VMs: open session connections that keep a VM alive.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use banger_api::VmId;

/// Number of holders of each VM.
#[derive(Debug, Default)]
pub struct Holds(Mutex<BTreeMap<VmId, usize>>);

/// Whether a VM has holders left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaining {
    /// It has.
    Some,
    /// It has none.
    None,
}

impl Holds {
    /// Adds a holder.
    pub fn add(&self, vm: &VmId) {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *holds.entry(vm.clone()).or_default() += 1;
    }

    /// Removes a holder.
    pub fn drop(&self, vm: &VmId) -> Remaining {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = holds.get_mut(vm) else { return Remaining::None };
        *count = count.saturating_sub(1);
        if *count > 0 {
            return Remaining::Some;
        }
        holds.remove(vm);
        Remaining::None
    }

    /// Whether a VM has a holder.
    pub fn is_held(&self, vm: &VmId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(vm)
    }
}
