//! Finds folders of VMs that a daemon does not know, and which of their processes still run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use banger_shim::record;
use banger_sys::proc;

use crate::layout::Layout;

/// Most folders that are reported.
const MOST: usize = 1000;

/// A folder without a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Name of the folder: the id that the VM had.
    pub id: String,
    /// The folder.
    pub folder: PathBuf,
    /// Process ids of its companion and VMM, those that run.
    pub running: Vec<u32>,
}

/// Looks through the state folder; `known` has the ids of all VMs. A folder that cannot be read
/// has none.
pub fn find(state: &Path, known: &BTreeSet<String>) -> Vec<Leftover> {
    let layout = Layout { state: state.into(), data: PathBuf::new(), cache: PathBuf::new() };
    let entries = std::fs::read_dir(layout.vms()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut ids: Vec<String> = names.filter(|name| !known.contains(name)).take(MOST).collect();
    ids.sort();
    ids.into_iter()
        .map(|id| {
            let folder = layout.vms().join(&id);
            let running = running(&folder);
            Leftover { id, folder, running }
        })
        .collect()
}

fn running(folder: &Path) -> Vec<u32> {
    let Some(state) = record::state(&folder.join("shim")) else { return Vec::new() };
    let all = state.companion.into_iter().chain([state.vmm]);
    all.filter(|process| proc::is_alive(*process)).map(|process| process.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_vm_folders_are_found_with_their_processes() {
        let state = tempfile::tempdir().unwrap();
        for id in ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"] {
            std::fs::create_dir_all(state.path().join("vms").join(id).join("shim")).unwrap();
        }
        let pid = std::process::id();
        let start_time = proc::start_time(pid).unwrap();
        let text =
            format!("{{\"companion\":null,\"vmm\":{{\"pid\":{pid},\"start_time\":{start_time}}}}}");
        let file = state.path().join("vms/bbbbbbbbbbbb/shim").join("shim.json");
        std::fs::write(file, text).unwrap();
        let known = BTreeSet::from(["cccccccccccc".to_owned()]);
        let found = find(state.path(), &known);
        let seen: Vec<_> = found.iter().map(|one| (one.id.as_str(), one.running.clone())).collect();
        assert_eq!(seen, [("aaaaaaaaaaaa", vec![]), ("bbbbbbbbbbbb", vec![pid])]);
        assert!(find(&state.path().join("none"), &known).is_empty());
    }
}
