//! An image in the store, and the checks of its disk.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{ImageRecord, ROOT_DISK};
use crate::fetch::{self, FetchError, FileDigest, Kind, PathContext};

/// Offset and value of the magic number of ext4: `s_magic`, little-endian.
const EXT4_MAGIC: (u64, [u8; 2]) = (1024 + 56, [0x53, 0xef]);

/// An image in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its record.
    pub record: ImageRecord,
    /// Names that point to it.
    pub names: Vec<String>,
    /// Its folder.
    pub folder: PathBuf,
}

impl Image {
    /// The root disk, which must not be written to.
    pub fn root_disk(&self) -> PathBuf {
        match &self.record.registered {
            Some(registered) => registered.path(),
            None => self.folder.join(ROOT_DISK),
        }
    }

    pub(super) fn damaged(&self, why: String) -> FetchError {
        let (kind, id) = (Kind::Image, self.record.id.clone());
        FetchError::Damaged { kind, id, path: self.root_disk(), why }
    }

    /// Checks that the disk exists, has the right length and is ext4; called at every start.
    ///
    /// # Errors
    /// [`FetchError::Damaged`].
    pub fn check(&self) -> Result<(), FetchError> {
        use std::os::unix::fs::FileExt;
        let (offset, magic) = EXT4_MAGIC;
        let mut found = [0; 2];
        let checked = File::open(self.root_disk()).and_then(|file| {
            let length = file.metadata()?.len();
            file.read_exact_at(&mut found, offset)?;
            Ok(length)
        });
        match checked {
            Err(error) => Err(self.damaged(format!("cannot be read: {error}"))),
            Ok(length) if length != self.record.virtual_bytes => {
                let wants = self.record.virtual_bytes;
                Err(self.damaged(format!("has {length} bytes instead of {wants}")))
            }
            Ok(_) if found != magic => Err(self.damaged("is no ext4 file system".into())),
            Ok(_) => self.check_registered(),
        }
    }

    /// Compares the fingerprint of the whole disk.
    ///
    /// # Errors
    /// [`FetchError::Damaged`].
    pub fn verify(&self) -> Result<(), FetchError> {
        self.check()?;
        if self.record.files != [digest_of_disk(&self.root_disk())?] {
            return Err(self.damaged("was altered".into()));
        }
        Ok(())
    }
}

pub(super) fn digest(folder: &Path) -> Result<FileDigest, FetchError> {
    digest_of_disk(&folder.join(ROOT_DISK))
}

pub(super) fn digest_of_disk(path: &Path) -> Result<FileDigest, FetchError> {
    let file = File::open(path).at("open", path)?;
    let bytes = file.metadata().at("look at", path)?.len();
    let sha256 = fetch::digest_of_blocks(&file).at("read", path)?;
    Ok(FileDigest { name: ROOT_DISK.into(), bytes, sha256 })
}
