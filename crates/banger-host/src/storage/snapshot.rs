//! Root disks that are a device-mapper snapshot of the image: the VM's changes are stored in a
//! sparse file.
//!
//! The helper creates the devices through [`SnapshotRoot`]; the files are created and opened here
//! and passed as descriptors.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use async_trait::async_trait;
use banger_api::{ApiError, VmId};
use banger_engine::drivers::{Applied, Undone};
use banger_root::disks::snapshot;

use super::disk;
use crate::failure::{blocking, on_path};
use crate::probe;

/// Creates and removes the devices of a root disk.
#[async_trait]
pub trait SnapshotRoot: Send + Sync {
    /// Creates the device of a VM's root disk from the image (opened for reading), the file of
    /// changes (for reading and writing) and the size in bytes. Idempotent.
    async fn attach(
        &self,
        vm: &VmId,
        image: OwnedFd,
        cow: OwnedFd,
        root_bytes: u64,
    ) -> Result<Applied, ApiError>;
    /// Reads the file of changes again if the kernel gave the device up; processes keep it open.
    async fn reload(&self, vm: &VmId) -> Result<Applied, ApiError>;
    /// Removes the device; idempotent.
    async fn detach(&self, vm: &VmId) -> Result<Undone, ApiError>;
}

/// Length in bytes of the file of changes of a root disk.
pub(super) fn cow_bytes(root_bytes: u64) -> u64 {
    snapshot::cow_bytes(root_bytes)
}

/// Creates the file of changes, which is sparse.
pub(super) fn make_cow(target: &Path, root_bytes: u64) -> Result<Applied, ApiError> {
    disk::make(target, |file| file.set_len(cow_bytes(root_bytes)))
}

/// The opened files of image and changes.
pub(super) fn open(image: &Path, cow: &Path) -> Result<(OwnedFd, OwnedFd), ApiError> {
    let from = File::open(image).map_err(|error| on_path("open the image", image, &error))?;
    let changes = OpenOptions::new().read(true).write(true).custom_flags(NOFOLLOW).open(cow);
    let changes = changes.map_err(|error| on_path("open the disk", cow, &error))?;
    let healed = revive(&changes).map_err(|error| on_path("read the disk", cow, &error))?;
    if healed == Revived::Revived {
        tracing::warn!(
            path = %cow.display(),
            "the host could not store a change of this disk, perhaps for want of room; it is used \
             again as it was before that"
        );
    }
    Ok((from.into(), changes.into()))
}

/// Uses the device of a running VM again, if the host's disk has room. A failed write has changed
/// nothing: a VMM that pauses its guest until the write works loses nothing.
pub(super) async fn restore(
    root: &dyn SnapshotRoot,
    vm: &VmId,
    cow: &Path,
) -> Result<Applied, ApiError> {
    let path = cow.to_owned();
    let has_room = blocking(move || {
        if probe::free_bytes(&path).is_some_and(|free| free < banger_shim::ENOUGH_SPACE) {
            return Ok(false);
        }
        let changes = OpenOptions::new().read(true).write(true).custom_flags(NOFOLLOW).open(&path);
        let changes = changes.map_err(|error| on_path("open the disk", &path, &error))?;
        revive(&changes).map_err(|error| on_path("read the disk", &path, &error))?;
        Ok(true)
    });
    // The file may be marked valid already: by a daemon that was killed here.
    if has_room.await? { root.reload(vm).await } else { Ok(Applied::AlreadyThere) }
}

const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// Whether a file of changes was marked invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Revived {
    /// It was, and is valid again.
    Revived,
    /// It was not.
    WasWell,
}

/// First chunk of a persistent snapshot (`struct disk_header`, drivers/md/dm-snap-persistent.c):
/// little-endian words.
const MAGIC: u32 = 0x7041_6e53;
const VALID_AT: u64 = 4;

/// Marks a snapshot valid that the kernel marked invalid.
///
/// The kernel does so when a chunk cannot be stored, usually because the host's disk is full; the
/// VM would lose its whole disk. The tables in the file refer only to chunks that were stored
/// before, and do not change afterwards. The file is therefore in the state that a power cut at
/// that moment would leave, which guests' file systems recover from.
fn revive(cow: &File) -> io::Result<Revived> {
    let mut header = [0; 8];
    match cow.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Revived::WasWell),
        other => other?,
    }
    let [a, b, c, d, valid @ ..] = header;
    if u32::from_le_bytes([a, b, c, d]) != MAGIC || u32::from_le_bytes(valid) != 0 {
        return Ok(Revived::WasWell);
    }
    cow.write_all_at(&1_u32.to_le_bytes(), VALID_AT)?;
    cow.sync_data()?;
    Ok(Revived::Revived)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_snapshot_is_marked_valid_and_others_are_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let (image, cow) = (folder.path().join("image"), folder.path().join("root.cow"));
        std::fs::write(&image, [0; 512]).unwrap();
        assert_eq!(make_cow(&cow, 1 << 30).unwrap(), Applied::Created);
        assert_eq!(make_cow(&cow, 1 << 30).unwrap(), Applied::AlreadyThere);
        assert_eq!(disk::allocated(&cow).unwrap(), 0);
        open(&image, &cow).unwrap();
        assert_eq!(disk::allocated(&cow).unwrap(), 0, "a blank one stays blank");
        let file = OpenOptions::new().read(true).write(true).open(&cow).unwrap();
        let header = |valid: u32| [MAGIC, valid, 1, 8].map(u32::to_le_bytes).concat();
        file.write_all_at(&header(1), 0).unwrap();
        assert_eq!(revive(&file).unwrap(), Revived::WasWell);
        file.write_all_at(&header(0), 0).unwrap();
        assert_eq!(revive(&file).unwrap(), Revived::Revived);
        let mut read = vec![0; 16];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, header(1));
        file.set_len(3).unwrap();
        assert_eq!(revive(&file).unwrap(), Revived::WasWell);
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, [0; 512]).unwrap();
        std::os::unix::fs::symlink(&image, folder.path().join("root.cow")).unwrap();
        assert!(open(&image, &folder.path().join("root.cow")).is_err());
    }
}
