//! Detects VM folders without a record in the database: after `banger.db` was removed, emptied or
//! replaced by an older copy.
//!
//! They are reported and never removed, because they may contain the only copy of a VM's disks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use banger_api::VmId;
use banger_api::doctor::{Check, Verdict};
use banger_api::hint::SetupAdvice;
use banger_engine::Engine;
use banger_host::leftovers::{self, Leftover};

fn find(state: &Path, engine: &Engine) -> Vec<Leftover> {
    let mut known: BTreeSet<String> =
        engine.ids().iter().map(|id: &VmId| id.as_str().to_owned()).collect();
    known.extend(engine.unreadable().into_iter().map(|row| row.id));
    leftovers::find(state, &known)
}

/// Logs the leftovers when the daemon starts.
pub fn log(state: &Path, engine: &Engine) {
    for Leftover { folder, running, .. } in find(state, engine) {
        let folder = folder.display();
        tracing::warn!(%folder, ?running, "this VM folder is not in the database");
    }
}

/// The leftovers as checks of `doctor`.
pub fn checks(state: &Path, engine: &Engine) -> Vec<Check> {
    find(state, engine).into_iter().map(check).collect()
}

fn check(leftover: Leftover) -> Check {
    let Leftover { id, folder, running } = leftover;
    let shown = PathBuf::from(&folder);
    let mut seen = format!("`{}` belongs to no VM in the database", shown.display());
    if !running.is_empty() {
        let list: Vec<String> = running.iter().map(u32::to_string).collect();
        seen.push_str(&format!("; its VM runs as process {}", list.join(", ")));
    }
    let folder = shown.display().to_string();
    let advice = SetupAdvice::RestoreDatabase { vm: id, folder, processes: running };
    Check {
        code: "leftover.vm".into(),
        verdict: Verdict::Warning,
        seen,
        hints: vec![advice.into()],
        needed_for: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_is_named_with_its_processes() {
        let leftover =
            |running| Leftover { id: "0123456789ab".into(), folder: "/s/x".into(), running };
        let idle = check(leftover(vec![]));
        assert_eq!(idle.seen, "`/s/x` belongs to no VM in the database");
        assert!(!idle.hint().unwrap().contains("kill"));
        let busy = check(leftover(vec![7, 8]));
        assert!(busy.seen.ends_with("; its VM runs as process 7, 8"), "{}", busy.seen);
        assert!(busy.hint().unwrap().contains("`kill 7 8`"));
    }
}
