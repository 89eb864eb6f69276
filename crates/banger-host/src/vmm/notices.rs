//! Notices about a running VM: a guest that is paused for a failed disk write, and a disk of the
//! host that is nearly full.

use std::path::Path;

use banger_api::size::human_size;
use banger_shim::DiskTrouble;

use crate::layout::shown;
use crate::probe;

/// Free bytes below which the user is warned.
pub const LOW_SPACE: u64 = 1 << 30;

/// Effect of a full disk of the host on a guest that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullDiskEffect {
    /// The VMM pauses the guest until there is space.
    PausesGuest,
    /// The same, and the host reports the lack of space as an I/O error: the root disk is a
    /// snapshot, which the daemon loads again when there is space.
    PausesAtAnyError,
    /// The guest gets an I/O error.
    FailsWrites,
}

/// The notices of a VM whose disks are in `folder`.
pub fn of(folder: &Path, trouble: Option<DiskTrouble>, effect: FullDiskEffect) -> Vec<String> {
    let low = probe::free_bytes(folder).and_then(|free| low_space(folder, free, effect));
    trouble.map(|trouble| disk_trouble(folder, trouble, effect)).into_iter().chain(low).collect()
}

/// Describes a failed disk write, and the remedy.
pub fn disk_trouble(folder: &Path, trouble: DiskTrouble, effect: FullDiskEffect) -> String {
    let folder = shown(folder);
    match trouble {
        // The kernel reports a lack of space for a snapshot's changes as EIO.
        DiskTrouble::HeldNoSpace | DiskTrouble::HeldWriteError
            if effect == FullDiskEffect::PausesAtAnyError =>
        {
            format!(
                "paused: the host cannot store a change of the root disk, most likely because the \
                 disk of the host with `{folder}` is full; the guest goes on by itself when there \
                 is room, and otherwise the host's kernel log has the cause"
            )
        }
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
pub fn low_space(folder: &Path, free: u64, effect: FullDiskEffect) -> Option<String> {
    let then = match effect {
        FullDiskEffect::PausesGuest | FullDiskEffect::PausesAtAnyError => "the guest is paused",
        FullDiskEffect::FailsWrites => "writes of the guest fail",
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
    fn a_nearly_full_disk_causes_a_warning() {
        let folder = Path::new("/var/vms");
        assert_eq!(low_space(folder, LOW_SPACE, FullDiskEffect::PausesGuest), None);
        assert_eq!(
            low_space(folder, 50 << 20, FullDiskEffect::PausesGuest).as_deref(),
            Some(
                "the disk of the host with `/var/vms` has 50 MiB left; when it is full, the \
                 guest is paused"
            )
        );
        let firecracker = low_space(folder, 0, FullDiskEffect::FailsWrites).unwrap();
        assert!(firecracker.ends_with("when it is full, writes of the guest fail"));
    }

    #[test]
    fn a_paused_guest_is_shown_first() {
        let folder = tempfile::tempdir().unwrap();
        let notices =
            of(folder.path(), Some(DiskTrouble::HeldNoSpace), FullDiskEffect::PausesGuest);
        assert!(notices[0].starts_with("paused: the disk of the host with `"), "{notices:?}");
        assert!(notices[0].contains("is full"));
        assert!(notices[0].contains("goes on by itself"), "{notices:?}");
    }

    #[test]
    fn the_cause_of_an_error_on_a_snapshot_is_named() {
        let folder = Path::new("/var/vms");
        // EIO, as device-mapper reports it.
        for trouble in [DiskTrouble::HeldWriteError, DiskTrouble::HeldNoSpace] {
            let notice = disk_trouble(folder, trouble, FullDiskEffect::PausesAtAnyError);
            assert!(notice.starts_with("paused: the host cannot store a change"), "{notice}");
            assert!(notice.contains("`/var/vms` is full; the guest goes on by itself"), "{notice}");
        }
        let file = disk_trouble(folder, DiskTrouble::HeldWriteError, FullDiskEffect::PausesGuest);
        assert!(file.contains("repeated every few seconds"), "{file}");
    }
}
