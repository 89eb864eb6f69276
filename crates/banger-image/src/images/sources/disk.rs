//! ext4 file systems, alone or as the only one of a disk; qcow2 disks.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use banger_api::hint::ImageAdvice;

use super::partitions::{self, Partition, Purpose};
use super::{Context, Inspect, Opened, RootFs, scratch};
use crate::ext4::volume::{State, Volume, VolumeError, Window};
use crate::ext4::{Contents, Ext4Error, Fill, Tree};
use crate::fetch::{self, FetchError, PathContext, Source};
use crate::images::capture::copy_ranges;
use crate::images::{ImageError, UnsupportedFile};

/// A disk or file system in a file.
pub struct Disk<'a> {
    volume: Volume,
    files: Vec<u32>,
    source: Source,
    sha256: String,
    kind: &'static str,
    context: Context<'a>,
}

impl<'a> Disk<'a> {
    /// A file that is one file system.
    ///
    /// # Errors
    /// A file system that cannot be read or repaired.
    pub fn file_system(file: Opened<'a>, kind: &'static str) -> Result<Self, ImageError> {
        Self::of_part(file, kind, 0, u64::MAX)
    }

    /// The file system, and the file that it is read from.
    pub fn into_parts(self) -> (Volume, Source) {
        (self.volume, self.source)
    }

    /// A file with a partition table.
    ///
    /// # Errors
    /// Not exactly one file system with data; one that is not ext4.
    pub fn partitioned(file: Opened<'a>) -> Result<Self, ImageError> {
        let disk = File::open(&file.path).at("open", &file.path)?;
        let bytes = disk.metadata().at("look at", &file.path)?.len();
        let found = partitions::read(&disk, bytes).at("read", &file.path)?;
        let name = file.source.path().to_owned();
        let part = only_file_system(&disk, &found)
            .map_err(|found| ImageError::UnsupportedFile { path: name, found })?;
        for left_out in found.iter().filter(|other| other.purpose == Purpose::Machine) {
            let number = left_out.number;
            let text = format!("left out partition {number}: boot loader or swap space");
            file.context.progress.log(&text);
        }
        Self::of_part(file, "disk", part.start, part.bytes)
    }

    /// A qcow2 disk, converted by qemu-img(1).
    ///
    /// # Errors
    /// A disk that refers to other files; no space; errors of qemu-img; those of its content.
    pub fn qcow2(file: Opened<'a>) -> Result<Self, ImageError> {
        let Opened { path, source, sha256, context } = file;
        let name = source.path().to_owned();
        let refused = |what: &str, advice| {
            let found = UnsupportedFile { what: what.into(), advice };
            ImageError::UnsupportedFile { path: name.clone(), found }
        };
        if let Some(what) = foreign(&path).at("read", &path)? {
            return Err(refused(what, ImageAdvice::FlattenDisk));
        }
        context.progress.stage("convert the disk");
        let raw = convert(&path, context)?;
        let mut start = Vec::new();
        let converted = File::open(&raw).at("open", &raw)?;
        converted.take(super::PROBED_BYTES).read_to_end(&mut start).at("read", &raw)?;
        let file = Opened { path: raw, source, sha256, context };
        let disk = match super::FileFormat::of(&start) {
            Some(super::FileFormat::Ext4) => Self::of_part(file, "qcow2 disk", 0, u64::MAX)?,
            Some(super::FileFormat::Partitions) => Self::partitioned(file)?,
            Some(super::FileFormat::Unsupported(found)) => {
                let what = format!("a qcow2 disk with {}", found.what);
                return Err(refused(&what, ImageAdvice::PackDisk));
            }
            _ => return Err(refused("a qcow2 disk without ext4", ImageAdvice::PackDisk)),
        };
        Ok(Self { kind: "qcow2 disk", ..disk })
    }

    fn of_part(
        file: Opened<'a>,
        kind: &'static str,
        start: u64,
        bytes: u64,
    ) -> Result<Self, ImageError> {
        let Opened { path, source, sha256, context } = file;
        let name = source.path().to_owned();
        let bad = |error: VolumeError| ImageError::BadArchive {
            path: name.clone(),
            source: error.into(),
        };
        let open = |path: &Path, start, bytes| {
            let file = File::open(path).at("open", path)?;
            let window = Window::new(file, start, bytes).at("look at", path)?;
            Volume::open(window).map_err(&bad)
        };
        let mut volume = open(&path, start, bytes)?;
        if volume.state() == State::Dirty {
            context.progress.stage("replay the journal");
            let copy = replay(&volume, context).map_err(|error| unrepaired(&name, error))?;
            context.progress.warning("the file system was not unmounted: its journal was replayed");
            volume = open(&copy, 0, u64::MAX)?;
        }
        Ok(Self { volume, files: Vec::new(), source, sha256, kind, context })
    }
}

/// e2fsck's refusal to repair a file system by itself, as an error of that file.
fn unrepaired(path: &Path, error: FetchError) -> ImageError {
    match error {
        FetchError::ToolFailed { output, .. } => {
            let why = output.last().cloned().unwrap_or_default();
            let source = VolumeError::Damaged(format!("e2fsck does not repair it alone: {why}"));
            ImageError::BadArchive { path: path.to_owned(), source: source.into() }
        }
        other => other.into(),
    }
}

/// Copies a file system and has e2fsck(8) replay its journal, and repair what needs no decision.
fn replay(volume: &Volume, context: Context<'_>) -> Result<PathBuf, FetchError> {
    let tool = context.tools.command("e2fsck", "e2fsprogs")?;
    let copy = scratch::file(context, "replayed")?;
    let window = volume.window();
    let (file, start) = window.file();
    if start == 0 {
        // The disk of a VM is mostly holes.
        let meta = file.metadata().at("look at", &copy)?;
        fetch::need_space(context.scratch, meta.blocks() * 512)?;
        let target = File::create_new(&copy).at("create", &copy)?;
        let whole = std::iter::once(0..window.bytes()).collect();
        copy_ranges((file, &copy), &target, (window.bytes(), whole), context.progress)?;
    } else {
        let reader = Part { file, at: start, left: window.bytes() };
        scratch::copy(reader, &copy, &copy, context)?;
    }
    // 1: errors were corrected.
    tool.args(["-f", "-p"]).args([&copy]).run_with(context.progress, &[1])?;
    Ok(copy)
}

/// Reads a part of a file; holes are read as zeros.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = self.left.min(buffer.len() as u64);
        let want = usize::try_from(want).unwrap_or_default();
        let count = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl RootFs for Disk<'_> {
    fn tree(&mut self, inspect: &mut Inspect<'_>) -> Result<Tree, Ext4Error> {
        let walked = self.volume.walk(inspect)?;
        self.files = walked.files;
        if walked.sockets > 0 {
            self.context.progress.warning(&format!("left out {} sockets", walked.sockets));
        }
        Ok(walked.tree)
    }

    fn sha256(&self) -> String {
        self.sha256.clone()
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn unchanged(&self) -> bool {
        self.source.unchanged()
    }
}

impl Contents for Disk<'_> {
    fn each(&mut self, fill: &mut Fill<'_>) -> Result<(), Ext4Error> {
        let progress = self.context.progress;
        self.volume.contents(&self.files, &mut |index, reader| {
            progress.go_on()?;
            fill(index, reader)
        })
    }
}

/// File systems by their magic numbers: offset, bytes, name.
const FILE_SYSTEMS: [(u64, &[u8], &str); 9] = [
    (1080, b"\x53\xef", "ext4"),
    (0, b"XFSB", "XFS"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0, b"hsqs", "squashfs"),
    (0, b"LUKS\xba\xbe", "an encrypted volume"),
    (536, b"LVM2 001", "LVM"),
    (4086, b"SWAPSPACE2", "swap space"),
    (82, b"FAT32", "FAT"),
    (54, b"FAT1", "FAT"),
];

/// The partition with the only file system of a disk, which is ext4.
fn only_file_system(disk: &File, found: &[Partition]) -> Result<Partition, UnsupportedFile> {
    let refused = |what: String| UnsupportedFile { what, advice: ImageAdvice::PackDisk };
    let kind = |part: &Partition| {
        let fits = |(offset, magic, _): &&(u64, &[u8], &str)| {
            let mut start = vec![0; magic.len()];
            disk.read_exact_at(&mut start, part.start.saturating_add(*offset)).is_ok()
                && start == *magic
        };
        FILE_SYSTEMS.iter().find(fits).map(|(_, _, name)| *name)
    };
    let data = found.iter().filter(|part| part.purpose == Purpose::Data);
    let known: Vec<_> = data.filter_map(|part| Some((part, kind(part)?))).collect();
    let known: Vec<_> = known.into_iter().filter(|(_, kind)| *kind != "swap space").collect();
    match known.as_slice() {
        [(part, "ext4")] => Ok((*part).clone()),
        [] => Err(refused("a disk without a file system that can be read".into())),
        [(_, other)] => Err(refused(format!("a disk with {other}, not ext4"))),
        several => {
            let list = several.iter().map(|(part, kind)| {
                format!("partition {} ({kind}, {} MiB)", part.number, part.bytes >> 20)
            });
            let list = list.collect::<Vec<_>>().join(", ");
            Err(refused(format!("a disk with several file systems: {list}")))
        }
    }
}

/// Why a qcow2 disk is not complete in itself, if so (QEMU's documentation, `interop/qcow2`): such
/// a file could have any file of the host read into the image.
fn foreign(path: &Path) -> io::Result<Option<&'static str>> {
    let mut header = [0; 80];
    File::open(path)?.read_exact_at(&mut header, 0)?;
    let word = |offset: usize| {
        header
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |b| u32::from_be_bytes(*b))
    };
    let long = |offset: usize| u64::from(word(offset)) << 32 | u64::from(word(offset + 4));
    let version = word(4);
    Ok(if !matches!(version, 2 | 3) {
        Some("a qcow2 disk of an unknown version")
    } else if long(8) != 0 {
        Some("a qcow2 disk that needs a backing file")
    } else if word(32) != 0 {
        Some("an encrypted qcow2 disk")
    } else if version == 3 && long(72) & 4 != 0 {
        Some("a qcow2 disk with its data in another file")
    } else {
        None
    })
}

/// Converts to a sparse raw disk.
fn convert(path: &Path, context: Context<'_>) -> Result<PathBuf, FetchError> {
    let command = || context.tools.command("qemu-img", "qemu-utils");
    let measured = command()?.args(["measure", "-f", "qcow2", "-O", "raw", "--output=json"]);
    let mut output = Vec::new();
    let mut running = measured.args([path]).start(context.progress)?;
    running.by_ref().take(4096).read_to_end(&mut output).at("read from", Path::new("qemu-img"))?;
    running.finish()?;
    let measured: serde_json::Value = serde_json::from_slice(&output).unwrap_or_default();
    let raw = scratch::file(context, "disk")?;
    fetch::need_space(context.scratch, measured["required"].as_u64().unwrap_or_default())?;
    let tool = command()?.args(["convert", "-f", "qcow2", "-O", "raw"]);
    tool.args([path, raw.as_path()]).run(context.progress)?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qcow2_disk_that_needs_other_files_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let header = |version: u32, backing: u64, crypt: u32, features: u64| {
            let mut bytes = vec![0; 104];
            bytes[..4].copy_from_slice(b"QFI\xfb");
            bytes[4..8].copy_from_slice(&version.to_be_bytes());
            bytes[8..16].copy_from_slice(&backing.to_be_bytes());
            bytes[32..36].copy_from_slice(&crypt.to_be_bytes());
            bytes[72..80].copy_from_slice(&features.to_be_bytes());
            std::fs::write(&path, bytes).unwrap();
            foreign(&path).unwrap()
        };
        assert_eq!(header(3, 0, 0, 0), None);
        assert_eq!(header(2, 0, 0, 4), None);
        for (version, backing, crypt, features, why) in [
            (3, 200, 0, 0, "backing file"),
            (2, 1, 0, 0, "backing file"),
            (3, 0, 1, 0, "encrypted"),
            (3, 0, 0, 4, "in another file"),
            (4, 0, 0, 0, "unknown version"),
        ] {
            let found = header(version, backing, crypt, features);
            assert!(found.is_some_and(|found| found.contains(why)), "{found:?}");
        }
    }
}
