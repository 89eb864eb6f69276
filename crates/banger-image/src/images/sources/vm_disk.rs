//! The root disk of a stopped VM: a whole file system, a layer over its image, or the image with
//! changed chunks. It comes from a guest and is not trusted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::disk::Disk;
use super::{Context, Inspect, Opened, RootFs, scratch};
use crate::ext4::overlaid::{self, OverlaidError};
use crate::ext4::volume::{Volume, Window};
use crate::ext4::{Contents, Ext4Error, Fill, Tree};
use crate::fetch::{self, FetchError, PathContext, Source};
use crate::images::ImageError;

/// Kind of the source in records.
const KIND: &str = "disk of a VM";

/// The files that together have the root file system of a VM that does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmDisk {
    /// A disk of its own.
    Whole {
        /// The disk.
        disk: PathBuf,
    },
    /// A private layer that the agent mounts over the image.
    Layer {
        /// The ext4 of the layer.
        layer: PathBuf,
        /// The image.
        image: PathBuf,
    },
    /// The image, enlarged, of which some chunks have changed.
    Snapshot {
        /// The changes, in the format of device-mapper's persistent snapshots.
        changes: PathBuf,
        /// The image.
        image: PathBuf,
        /// Length of the disk in bytes.
        bytes: u64,
    },
}

impl VmDisk {
    /// The VM's own file, for messages.
    pub fn path(&self) -> &Path {
        match self {
            Self::Whole { disk } => disk,
            Self::Layer { layer, .. } => layer,
            Self::Snapshot { changes, .. } => changes,
        }
    }

    /// All files that are read.
    pub fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Whole { disk } => vec![disk],
            Self::Layer { layer, image } => vec![layer, image],
            Self::Snapshot { changes, image, .. } => vec![changes, image],
        }
    }

    /// Opens it. Temporary copies are made of file systems that were not unmounted, and of a
    /// snapshot; the VM's files stay as they are.
    ///
    /// # Errors
    /// A file that cannot be read; a file system that cannot be used; no space.
    pub fn open<'a>(&self, context: Context<'a>) -> Result<Box<dyn RootFs + 'a>, ImageError> {
        let source = Source::open(self.path())?;
        context.progress.stage("check the disk");
        let sha256 = fetch::digest_of_blocks(&source.raw()?).at("read", self.path())?;
        match self {
            Self::Whole { disk } => {
                let file = Opened { path: disk.clone(), source, sha256, context };
                Ok(Box::new(Disk::file_system(file, KIND)?))
            }
            Self::Snapshot { changes, image, bytes } => {
                context.progress.stage("join image and changes");
                let path = scratch::file(context, "snapshot")?;
                compose(&source.raw()?, image, *bytes, &path, context)
                    .map_err(|error| error.into_image_error(changes))?;
                let sha256 = joined(&sha256, image);
                let file = Opened { path, source, sha256, context };
                Ok(Box::new(Disk::file_system(file, KIND)?))
            }
            Self::Layer { layer, image } => {
                let path = image.clone();
                let sha256 = joined(&sha256, image);
                let lower = File::open(&path).at("open", &path)?;
                let lower = Window::new(lower, 0, u64::MAX).at("look at", &path)?;
                let bad = |source: Ext4Error| ImageError::BadArchive { path: path.clone(), source };
                let lower = Volume::open(lower).map_err(|error| bad(error.into()))?;
                let file = Opened { path: layer.clone(), source, sha256: sha256.clone(), context };
                let (upper, source) = Disk::file_system(file, KIND)?.into_parts();
                let files = (Vec::new(), Vec::new());
                Ok(Box::new(Layered { lower, upper, files, source, sha256, context }))
            }
        }
    }
}

/// SHA-256 of the changes and of what they change, which an image's folder identifies.
fn joined(changes: &str, image: &Path) -> String {
    let image = image.parent().and_then(Path::file_name).unwrap_or_default();
    let hash = Sha256::new().chain_update(changes).chain_update(image.as_encoded_bytes());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Added to the inodes of a layer, so that they differ from those of the image.
const OFFSET: u64 = 1 << 32;

/// A layer over its image.
struct Layered<'a> {
    lower: Volume,
    upper: Volume,
    /// Inodes of the files of both.
    files: (Vec<u32>, Vec<u32>),
    source: Source,
    sha256: String,
    context: Context<'a>,
}

impl RootFs for Layered<'_> {
    fn tree(&mut self, inspect: &mut Inspect<'_>) -> Result<Tree, Ext4Error> {
        let lower = self.lower.walk(inspect)?;
        let upper = self.upper.walk(&mut |path, content, reader| {
            // Of the layer's own folders, only this one has files that the guest sees.
            match path.strip_prefix(b"upper/") {
                Some(path) => inspect(path, content, reader),
                None => Ok(()),
            }
        })?;
        let tree =
            overlaid::join(&lower.tree, &upper.tree, OFFSET).map_err(|error| match error {
                OverlaidError::Tree(error) => error.into(),
                other => Ext4Error::Source(Box::new(other)),
            })?;
        self.files = (lower.files, upper.files);
        Ok(tree)
    }

    fn sha256(&self) -> String {
        self.sha256.clone()
    }

    fn kind(&self) -> &'static str {
        KIND
    }

    fn unchanged(&self) -> bool {
        self.source.unchanged()
    }
}

impl Contents for Layered<'_> {
    fn each(&mut self, fill: &mut Fill<'_>) -> Result<(), Ext4Error> {
        let progress = self.context.progress;
        self.lower.contents(&self.files.0, &mut |index, reader| {
            progress.go_on()?;
            fill(index, reader)
        })?;
        self.upper.contents(&self.files.1, &mut |index, reader| {
            progress.go_on()?;
            fill(index + OFFSET, reader)
        })
    }
}

/// Bytes of a chunk, and of an entry in a table of changes (drivers/md/dm-snap-persistent.c of the
/// kernel: `struct disk_header`, `struct disk_exception`).
const CHUNK: usize = 4096;
const ENTRY: usize = 16;
const MAGIC: u32 = 0x7041_6e53;
const VERSION: u32 = 1;
const SECTOR: u32 = 512;

#[derive(Debug)]
enum ComposeError {
    Fetch(FetchError),
    Damaged(&'static str),
}

impl From<FetchError> for ComposeError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(error)
    }
}

impl ComposeError {
    fn into_image_error(self, path: &Path) -> ImageError {
        match self {
            Self::Fetch(error) => error.into(),
            Self::Damaged(what) => {
                let why = format!("its table of changes is damaged: {what}");
                ImageError::UnusableDisk { path: path.to_owned(), why }
            }
        }
    }
}

/// Writes the image with the changed chunks to a new sparse file.
fn compose(
    changes: &File,
    image: &Path,
    bytes: u64,
    target: &Path,
    context: Context<'_>,
) -> Result<(), ComposeError> {
    let from = File::open(image).at("open", image)?;
    let needed = fetch::used_bytes(image) + changes.metadata().map_or(0, |meta| allocated(&meta));
    fetch::need_space(context.scratch, needed)?;
    let to = File::options().read(true).write(true).create_new(true).open(target);
    let to = to.at("create", target)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        at = match seek(&from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(FetchError::io("read", image, errno.into()).into()),
        };
        let count = from.read_at(&mut buffer, at).at("read", image)?;
        if count == 0 {
            break;
        }
        to.write_all_at(&buffer[..count], at).at("write", target)?;
        at += count as u64;
        context.progress.go_on()?;
    }
    let mut chunk = vec![0; CHUNK];
    changed(changes, |old, new| {
        let place = old.checked_mul(CHUNK as u64).filter(|at| *at < bytes);
        let place = place.ok_or(ComposeError::Damaged("a chunk lies beyond the disk"))?;
        let at = new.saturating_mul(CHUNK as u64);
        read(changes, &mut chunk, at)?;
        to.write_all_at(&chunk, place).at("write", target)?;
        context.progress.go_on()?;
        Ok(())
    })?;
    to.set_len(bytes).at("write", target)?;
    Ok(())
}

fn allocated(meta: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    meta.blocks() * 512
}

fn read(changes: &File, buffer: &mut [u8], at: u64) -> Result<(), ComposeError> {
    changes.read_exact_at(buffer, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            ComposeError::Damaged("a chunk is not in it")
        }
        _ => ComposeError::Fetch(FetchError::io("read", Path::new("the changes"), error)),
    })
}

/// Calls `each` with the number of each changed chunk, and of the chunk that has the change.
///
/// The tables and the chunks that they name follow each other in turn; the first entry without a
/// place ends the last table.
fn changed(
    changes: &File,
    mut each: impl FnMut(u64, u64) -> Result<(), ComposeError>,
) -> Result<(), ComposeError> {
    let mut table = vec![0; CHUNK];
    read(changes, &mut table[..16], 0)?;
    let word = |at: usize| {
        table.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
    };
    // A file of zeros has no change yet. A snapshot that the kernel has marked as not valid, for
    // want of room, has all changes that its tables name.
    match (word(0), word(8), word(12)) {
        (0, _, _) => return Ok(()),
        (MAGIC, VERSION, sectors) if sectors.checked_mul(SECTOR) == Some(CHUNK as u32) => {}
        _ => return Err(ComposeError::Damaged("it has another format")),
    }
    let mut at = 1_u64;
    loop {
        read(changes, &mut table, at * CHUNK as u64)?;
        for entry in table.chunks_exact(ENTRY) {
            let long = |at: usize| {
                let bytes = entry.get(at..).and_then(|rest| rest.first_chunk());
                bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
            };
            if long(8) == 0 {
                return Ok(());
            }
            each(long(0), long(8))?;
        }
        at += (CHUNK / ENTRY) as u64 + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(words: [u32; 4]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(CHUNK, 0);
        bytes
    }

    fn found(content: &[u8], length: u64) -> Result<Vec<(u64, u64)>, ComposeError> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        file.set_len(length).unwrap();
        let mut all = Vec::new();
        changed(&file, |old, new| {
            all.push((old, new));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn tables_of_changes_are_read() {
        assert_eq!(found(&[], 1 << 20).unwrap(), []);
        let whole = header([MAGIC, 1, VERSION, 8]);
        assert_eq!(found(&whole, 1 << 20).unwrap(), []);
        // 300 changes: a full table, and 44 in the next one.
        let mut content = whole.clone();
        content.resize((2 + 257) * CHUNK, 0);
        for number in 0..300_u64 {
            let (table, entry) = (number / 256, number % 256);
            let at = (1 + table * 257) as usize * CHUNK + entry as usize * ENTRY;
            let new = 2 + number + table;
            content[at..at + 8].copy_from_slice(&(number * 7).to_le_bytes());
            content[at + 8..at + 16].copy_from_slice(&new.to_le_bytes());
        }
        let all = found(&content, 2 << 20).unwrap();
        assert_eq!((all.len(), all[0], all[299]), (300, (0, 2), (2093, 302)));
        // A snapshot that the kernel gave up keeps its changes.
        content[4] = 0;
        assert_eq!(found(&content, 2 << 20).unwrap().len(), 300);
        for bad in [
            header([1, 1, VERSION, 8]),
            header([MAGIC, 1, 2, 8]),
            header([MAGIC, 1, VERSION, 16]),
            header([MAGIC, 1, VERSION, u32::MAX]),
        ] {
            assert!(matches!(found(&bad, 1 << 20), Err(ComposeError::Damaged(_))));
        }
        let cut = found(&whole, CHUNK as u64);
        assert!(matches!(cut, Err(ComposeError::Damaged(_))), "{cut:?}");
    }
}
