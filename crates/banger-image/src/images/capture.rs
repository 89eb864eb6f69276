//! Images captured from the root disk of a stopped VM.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use banger_api::build::BuildInputs;
use banger_api::images::TakenName;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{Image, ImageError, ImageRecord, ImageStore, ROOT_DISK, digest};
use crate::ext4::used;
use crate::fetch::{self, PathContext, Progress, digest_of_file};

/// Version of the provisioning: a change of what a build does to its image makes other images.
const PROVISIONING: u32 = 1;

/// opencode in the list of packages: its name at npm.
const OPENCODE: &str = "opencode-ai";

/// How an image was built, in its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRecord {
    /// SHA-256 over the inputs: images with the same one are interchangeable.
    pub key: String,
    /// The inputs.
    pub inputs: BuildInputs,
    /// Installed packages with their versions.
    #[serde(default)]
    pub installed: Vec<String>,
}

/// A root disk that becomes an image.
#[derive(Debug, Clone, Copy)]
pub struct Captured<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// Whether the name moves from another image.
    pub taken: TakenName,
    /// The disk: an ext4 file system that no VM uses.
    pub disk: &'a Path,
    /// What it was made from.
    pub inputs: &'a BuildInputs,
    /// Installed packages.
    pub installed: &'a [String],
    /// Whether VMs boot the kernel that the image contains.
    pub own_kernel: bool,
}

/// SHA-256 over the inputs of a build. The name of the base does not count.
fn key_of(inputs: &BuildInputs) -> Result<String, ImageError> {
    let inputs = BuildInputs { base_name: String::new(), ..inputs.clone() };
    let path = Path::new("the inputs of the build");
    let text = serde_json::to_vec(&(PROVISIONING, inputs))
        .map_err(|error| fetch::FetchError::io("write", path, error.into()))?;
    Ok(digest_of_file(text.as_slice()).at("read", path)?)
}

impl ImageStore {
    /// An intact image with the same inputs; of several, the newest.
    ///
    /// # Errors
    /// The inputs cannot be encoded.
    pub fn built(&self, inputs: &BuildInputs) -> Result<Option<Image>, ImageError> {
        let key = key_of(inputs)?;
        let same =
            |record: &ImageRecord| record.built.as_ref().is_some_and(|built| built.key == key);
        let mut found: Vec<Image> = self
            .list()
            .objects
            .into_iter()
            .filter(|(record, _)| same(record))
            .map(|(record, names)| Image { folder: self.store.folder(&record.id), record, names })
            .filter(|image| image.check().is_ok())
            .collect();
        found.sort_by(|a, b| a.record.created_at.cmp(&b.record.created_at));
        Ok(found.pop())
    }

    /// Creates an image from a root disk. Only the blocks that its file system uses are copied.
    ///
    /// # Errors
    /// A disk that is not a cleanly unmounted ext4; a taken name; no space; cancellation.
    pub fn capture(
        &self,
        captured: Captured<'_>,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        self.alone(captured.name, progress, || {
            let id = self.make_captured(captured, progress)?;
            self.seed_best_effort(&id, progress);
            Ok(id)
        })
    }

    /// Checks that no other image than `id` has a name, unless the name moves.
    pub(super) fn check_taken(
        &self,
        name: &str,
        taken: TakenName,
        id: &str,
    ) -> Result<(), ImageError> {
        match self.store.find(name) {
            Ok(owner) if owner != id && taken == TakenName::Refuse => {
                Err(ImageError::NameTaken { name: name.to_owned(), owner })
            }
            _ => Ok(()),
        }
    }

    fn make_captured(
        &self,
        captured: Captured<'_>,
        progress: &dyn Progress,
    ) -> Result<String, ImageError> {
        let Captured { name, taken, disk, inputs, installed, own_kernel } = captured;
        let staging = self.store.stage()?;
        let object = staging.join("object");
        fs::create_dir(&object).at("make the folder", &object)?;
        let path = object.join(ROOT_DISK);
        let source = File::open(disk).at("open", disk)?;
        let target = File::create_new(&path).at("create", &path)?;
        let virtual_bytes = copy(&source, disk, (&object, &target), progress)?;
        progress.stage("compute the fingerprint");
        let files = vec![digest(&object)?];
        let (fingerprint, id) = fetch::id_of(&files);
        let base = self.resolve(inputs.base.as_str()).ok().map(|image| image.record);
        let packages = u64::try_from(installed.len()).unwrap_or(u64::MAX);
        let record = ImageRecord {
            id,
            source: format!("build from {}", inputs.base_name),
            provenance: format!("built in a VM from the image {}", inputs.base),
            system: base.as_ref().and_then(|base| base.system.clone()),
            virtual_bytes,
            init: base.as_ref().and_then(|base| base.init),
            opencode: installed.iter().any(|line| is_package(line, OPENCODE)),
            packages: (packages > 0).then_some(packages),
            hidden_by_overlay: None,
            checked_for_overlay: false,
            config: base.as_ref().and_then(|base| base.config.clone()),
            signature: None,
            own_kernel: own_kernel || base.as_ref().is_some_and(|base| base.own_kernel),
            created_at: fetch::now(),
            fingerprint,
            files,
            built: Some(BuildRecord {
                key: key_of(inputs)?,
                inputs: inputs.clone(),
                installed: installed.to_vec(),
            }),
            committed: None,
            registered: None,
        };
        progress.go_on()?;
        self.check_taken(name, taken, &record.id)?;
        self.store.publish(&object, &record, |known| self.is_intact(known))?;
        self.store.move_name(name, &record.id)?;
        Ok(record.id)
    }
}

/// Whether a line of the list of packages is about this one: name and version.
fn is_package(line: &str, name: &str) -> bool {
    line.split_whitespace().next() == Some(name)
}

/// Unit of holes in bytes.
const BLOCK: usize = 4096;
/// Bytes copied between two reports.
const REPORT: u64 = 4 << 20;

/// Copies the used blocks of a file system into a file in `folder`; returns its length.
fn copy(
    source: &File,
    disk: &Path,
    (folder, target): (&Path, &File),
    progress: &dyn Progress,
) -> Result<u64, ImageError> {
    let bad = |why: String| ImageError::UnusableDisk { path: disk.to_owned(), why };
    let used = used::ranges(source).map_err(|error| match error {
        used::UsedError::Io(error) => fetch::FetchError::io("read", disk, error).into(),
        error => bad(error.to_string()),
    })?;
    // Holes are not copied: the disk may have fewer bytes than its file system uses.
    let need = used.ranges.iter().map(|range| range.end - range.start).sum::<u64>();
    fetch::need_space(folder, need.min(fetch::used_bytes(disk)))?;
    Ok(copy_ranges((source, disk), target, (used.bytes, used.ranges), progress)?)
}

/// Copies the data in byte ranges of a file to a new file of a length; returns the length. Holes
/// are not read.
///
/// # Errors
/// read(2), write(2); cancellation.
pub(super) fn copy_ranges(
    (source, disk): (&File, &Path),
    target: &File,
    (bytes, ranges): (u64, Vec<std::ops::Range<u64>>),
    progress: &dyn Progress,
) -> Result<u64, fetch::FetchError> {
    target.set_len(bytes).at("write", disk)?;
    let mut buffer = vec![0; 1 << 20];
    let (mut done, mut reported) = (0, 0);
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            // A range that the guest never wrote to is a hole.
            at = match seek(source, SeekFrom::Data(at)) {
                Ok(data) => (data - data % BLOCK as u64).max(at),
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(fetch::FetchError::io("read", disk, errno.into())),
            };
            if at >= range.end {
                break;
            }
            let want = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(buffer.len());
            let piece = &mut buffer[..want];
            source.read_exact_at(piece, at).at("read", disk)?;
            write_data(target, piece, at).at("write", disk)?;
            at += want as u64;
            done += want as u64;
            if done - reported >= REPORT {
                reported = done;
                progress.bytes(done, None);
                progress.go_on()?;
            }
        }
    }
    progress.bytes(done, None);
    target.sync_all().at("write", disk)?;
    Ok(bytes)
}

/// Writes what is not zero; the file is empty before.
fn write_data(target: &File, piece: &[u8], at: u64) -> std::io::Result<()> {
    let mut start = None;
    for (number, block) in piece.chunks(BLOCK).enumerate() {
        let place = number * BLOCK;
        match (start, block.iter().any(|byte| *byte != 0)) {
            (None, true) => start = Some(place),
            (Some(from), false) => {
                target
                    .write_all_at(piece.get(from..place).unwrap_or_default(), at + from as u64)?;
                start = None;
            }
            _ => {}
        }
    }
    match start {
        Some(from) => target.write_all_at(piece.get(from..).unwrap_or_default(), at + from as u64),
        None => Ok(()),
    }
}
