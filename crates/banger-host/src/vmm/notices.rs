//! What a user should know of a VM that runs: a guest that is held for a failed disk write, and a
//! disk of the host that is nearly full.

use std::path::Path;

use banger_api::size::human_size;
use banger_shim::DiskTrouble;

use crate::layout::shown;
use crate::probe;

/// Free bytes below which a user is warned.
pub const LOW_SPACE: u64 = 1 << 30;

/// What a VMM does when a guest's write finds no room on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It holds the guest until there is some.
    HoldsGuest,
    /// The guest gets an I/O error.
    FailsWrites,
}

/// The notices of a VM whose disks are in `folder`.
pub fn of(folder: &Path, trouble: Option<DiskTrouble>, when: WhenFull) -> Vec<String> {
    let low = probe::free_bytes(folder).and_then(|free| low_space(folder, free, when));
    trouble.map(|trouble| disk_trouble(folder, trouble)).into_iter().chain(low).collect()
}

/// What came of a failed disk write.
pub fn disk_trouble(folder: &Path, trouble: DiskTrouble) -> String {
    let folder = shown(folder);
    match trouble {
        DiskTrouble::HeldNoSpace => format!(
            "paused: the disk of the host with `{folder}` is full; the guest goes on by itself \
             when there is room"
        ),
        DiskTrouble::HeldWriteError => format!(
            "paused: a write to the VM's disks in `{folder}` failed on the host; it is repeated \
             every few seconds, and the host's kernel log has the cause"
        ),
        DiskTrouble::GuestGotErrors => format!(
            "the disk of the host with `{folder}` was full: writes of the guest failed, and its \
             file systems may be read-only; make room, then restart the VM"
        ),
    }
}

/// A warning before the disk is full.
pub fn low_space(folder: &Path, free: u64, when: WhenFull) -> Option<String> {
    let then = match when {
        WhenFull::HoldsGuest => "the guest is paused",
        WhenFull::FailsWrites => "writes of the guest fail",
    };
    (free < LOW_SPACE).then(|| {
        format!(
            "the disk of the host with `{}` has {} left; when it is full, {then}",
            shown(folder),
            human_size(free)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_nearly_full_is_warned_of() {
        let folder = Path::new("/var/vms");
        assert_eq!(low_space(folder, LOW_SPACE, WhenFull::HoldsGuest), None);
        assert_eq!(
            low_space(folder, 50 << 20, WhenFull::HoldsGuest).as_deref(),
            Some(
                "the disk of the host with `/var/vms` has 50 MiB left; when it is full, the \
                 guest is paused"
            )
        );
        let firecracker = low_space(folder, 0, WhenFull::FailsWrites).unwrap();
        assert!(firecracker.ends_with("when it is full, writes of the guest fail"));
    }

    #[test]
    fn a_paused_guest_is_shown_first() {
        let folder = tempfile::tempdir().unwrap();
        let notices = of(folder.path(), Some(DiskTrouble::HeldNoSpace), WhenFull::HoldsGuest);
        assert!(notices[0].starts_with("paused: the disk of the host with `"), "{notices:?}");
        assert!(notices[0].contains("is full"));
    }
}
