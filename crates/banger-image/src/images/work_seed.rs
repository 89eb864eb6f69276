//! The work seed of an image: an ext4 with the files of its `/root`, of which the work disk of each
//! VM is a copy or a clone.
//!
//! Only an image with much in `/root` has one: the agent copies few files as fast. The seed is
//! derived from the image and is not part of its fingerprint. Its record names the image's
//! fingerprint and the version of the seed; one that does not fit is made anew.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::convert::Input;
use super::image::digest_of_disk;
use super::worker::{self, Amendments};
use super::{Image, ImageError, ImageStore, VmDisk};
use crate::ext4::{Ext4Error, Kind, ROOT, Tree, subtree};
use crate::fetch::{FetchError, FileDigest, Flight, PathContext, Progress, Staging};

/// The seed's disk within an object's folder, and its record.
pub const WORK_SEED: &str = "work.ext4";
const RECORD: &str = "work.json";
/// Version of the seed; increase it when the resulting disk changes.
const VERSION: u32 = 1;
/// What a `/root` may have without a seed.
const FEW_BYTES: u64 = 1 << 20;
const FEW_FILES: usize = 200;
/// Tells the agent that there is nothing to copy (`boot/seed.rs` of the agent).
const FILLED: (&str, &[u8]) = ("trusted.banger.seed", b"done");

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedRecord {
    version: u32,
    /// Fingerprint of the image.
    image: String,
    /// The disk; absent if `/root` has few files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disk: Option<FileDigest>,
}

/// The seed of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkSeed {
    /// A disk, and its length in bytes.
    Disk(PathBuf, u64),
    /// None is needed.
    Few,
    /// It is to be made: there is none, or one of another version or image, or a damaged one.
    Missing,
}

/// The files of `/root`, if they are worth a seed.
///
/// # Errors
/// Limits of a tree.
pub(super) fn home(tree: &Tree) -> Result<Option<Tree>, Ext4Error> {
    let Some(mut home) = subtree::subtree(tree, "root")? else { return Ok(None) };
    let files = home.live().filter(|node| !matches!(node.kind, Kind::Folder(_))).count();
    if home.content_bytes() <= FEW_BYTES && files <= FEW_FILES {
        return Ok(None);
    }
    home.node_mut(ROOT).meta.mode = 0o700;
    let mut xattrs = home.node(ROOT).xattrs.clone();
    xattrs.insert(FILLED.0.into(), FILLED.1.to_vec());
    home.set_xattrs(ROOT, xattrs)?;
    Ok(Some(home))
}

/// Writes the record of the seed in an object's folder: of its disk, or that none is needed.
///
/// # Errors
/// read(2), write(2).
pub(super) fn record(object: &Path, fingerprint: &str) -> Result<(), FetchError> {
    let disk = object.join(WORK_SEED);
    let disk = match disk.exists() {
        true => Some(FileDigest { name: WORK_SEED.into(), ..digest_of_disk(&disk)? }),
        false => None,
    };
    let record = SeedRecord { version: VERSION, image: fingerprint.to_owned(), disk };
    let path = object.join(RECORD);
    let text = serde_json::to_vec_pretty(&record)
        .map_err(|error| FetchError::io("write", &path, error.into()))?;
    fs::write(&path, text).at("write", &path)
}

impl Image {
    /// The work seed.
    pub fn work_seed(&self) -> WorkSeed {
        let text = fs::read(self.folder.join(RECORD)).unwrap_or_default();
        let record = serde_json::from_slice::<SeedRecord>(&text).ok();
        let fits = |record: &SeedRecord| {
            record.version == VERSION && record.image == self.record.fingerprint
        };
        let Some(record) = record.filter(fits) else { return WorkSeed::Missing };
        let Some(disk) = record.disk else { return WorkSeed::Few };
        let path = self.folder.join(WORK_SEED);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() && meta.len() == disk.bytes => {
                WorkSeed::Disk(path, disk.bytes)
            }
            _ => WorkSeed::Missing,
        }
    }
}

impl ImageStore {
    /// Makes the work seed of an image that has none, or another one.
    ///
    /// # Errors
    /// No such image; one that cannot be read; no space; cancellation.
    pub fn make_work_seed(&self, wanted: &str, progress: &dyn Progress) -> Result<(), ImageError> {
        loop {
            let image = self.resolve(wanted)?;
            if image.work_seed() != WorkSeed::Missing {
                return Ok(());
            }
            let flight = format!("work seed of {}", image.record.id);
            if let Flight::Leader(_lead) = self.flight.join(&flight, progress)? {
                return self.seed(&image, &self.store.stage()?, progress);
            }
        }
    }

    /// As [`Self::make_work_seed`], for an image that can be used without: the first VM of it makes
    /// the seed.
    pub(super) fn seed_best_effort(&self, id: &str, progress: &dyn Progress) {
        progress.stage("make the work seed");
        if let Err(error) = self.make_work_seed(id, progress) {
            progress.log(&format!("no work seed: {error}"));
        }
    }

    fn seed(
        &self,
        image: &Image,
        staging: &Staging,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        image.check()?;
        let object = staging.join("object");
        fs::create_dir(&object).at("make the folder", &object)?;
        let disk = VmDisk::Whole { disk: image.root_disk() };
        let (input, amendments) = (Input::Vm(&disk), Amendments::Seed);
        let job = worker::Job { input, object: &object, amendments, tools: &self.tools, progress };
        worker::run(self.conversion, job)?;
        record(&object, &image.record.fingerprint)?;
        progress.go_on()?;
        // The record last: it tells that the disk is whole.
        for name in [WORK_SEED, RECORD] {
            let (from, to) = (object.join(name), image.folder.join(name));
            if from.exists() {
                fs::File::open(&from).and_then(|file| file.sync_all()).at("write", &from)?;
                fs::rename(&from, &to).at("publish", &to)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::rootfs::put_file;

    #[test]
    fn only_a_home_with_much_in_it_has_a_seed() {
        let mut tree = Tree::new();
        assert!(home(&tree).unwrap().is_none());
        put_file(&mut tree, "root/.bashrc", "text", 0o644).unwrap();
        assert!(home(&tree).unwrap().is_none());
        for number in 0..=FEW_FILES {
            put_file(&mut tree, &format!("root/many/{number}"), "", 0o644).unwrap();
        }
        let many = home(&tree).unwrap().unwrap();
        assert_eq!(many.list(""), [".bashrc", "many"]);
        let root = many.node(ROOT);
        assert_eq!((root.meta.mode, root.xattrs[FILLED.0].as_slice()), (0o700, FILLED.1));
        let mut tree = Tree::new();
        put_file(&mut tree, "root/large", &"x".repeat(2 << 20), 0o644).unwrap();
        assert!(home(&tree).unwrap().is_some());
    }
}
