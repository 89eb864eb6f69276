//! Sources of root file systems: files and folders that an image is imported from, each recognised
//! by its content, never by its name.
//!
//! A kind of source is a file of this folder with an implementation of [`RootFs`] and a line in
//! [`open`]. [`super::convert`] reads every kind in the same way.

mod archive;
mod disk;
mod folder;
mod left_out;
mod limited;
pub mod oci;
mod partitions;
mod posix_acl;
mod scratch;
mod squashfs;
pub mod vm_disk;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use banger_api::hint::ImageAdvice;
use banger_api::images::ImageConfig;

use super::{ImageError, UnsupportedFile, unsupported};
pub use crate::ext4::Inspect;
use crate::ext4::{Contents, Ext4Error, Tree};
use crate::fetch::{self, FetchError, PathContext, Progress, Source, Tools};

/// A root file system that becomes an image. It is read in two passes: [`RootFs::tree`], then
/// [`Contents::each`] for the contents of the files.
pub trait RootFs: Contents {
    /// Reads the names, and reports warnings to the progress. Calls `inspect` with each file before
    /// it is added, so that a file which is too large ends the pass; the content is only read if
    /// `inspect` reads it.
    ///
    /// # Errors
    /// A damaged or hostile source; errors of `inspect`.
    fn tree(&mut self, inspect: &mut Inspect<'_>) -> Result<Tree, Ext4Error>;

    /// SHA-256 of the source as lowercase hex; known after [`Self::tree`].
    fn sha256(&self) -> String;

    /// Kind of the source for the record of its origin: a noun.
    fn kind(&self) -> &'static str;

    /// Whether the source is the same as when it was opened; asked after both passes.
    fn unchanged(&self) -> bool;

    /// How a container of it runs, if it is a container image.
    fn config(&self) -> Option<ImageConfig> {
        None
    }
}

/// What the reader of a source works with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// External programs.
    pub tools: &'a Tools,
    /// Receives stages, bytes and warnings.
    pub progress: &'a dyn Progress,
    /// A path in the staging folder at which a source may make a folder for temporary files.
    pub scratch: &'a Path,
}

/// A file whose kind is to be found.
pub struct Probe<'a> {
    /// The file.
    pub source: Source,
    /// SHA-256 of the file as lowercase hex.
    pub sha256: String,
    /// The first [`PROBED_BYTES`] of its content, decompressed.
    pub start: Vec<u8>,
    /// What to work with.
    pub context: Context<'a>,
}

/// Number of bytes that are examined to find the kind of a file.
pub const PROBED_BYTES: u64 = 72 << 10;

/// Finds the kind of a source, and opens it.
///
/// # Errors
/// It cannot be read; its kind cannot be imported.
pub fn open<'a>(path: &Path, context: Context<'a>) -> Result<Box<dyn RootFs + 'a>, ImageError> {
    let Context { tools, progress, .. } = context;
    let container = |source| ImageError::Container { path: path.to_owned(), source };
    if path.is_dir() {
        return match oci::open_folder(path, progress).map_err(container)? {
            Some(image) => Ok(Box::new(image)),
            None => Ok(Box::new(folder::Folder::open(path, context)?)),
        };
    }
    let source = Source::open(path)?;
    progress.stage("check the file");
    let raw = fetch::Counted::new(source.raw()?, Some(source.bytes()), progress);
    let sha256 = fetch::digest_of_file(raw).map_err(|error| FetchError::io("read", path, error))?;
    let mut start = Vec::new();
    source.raw()?.take(PROBED_BYTES).read_to_end(&mut start).at("read", path)?;
    let format = FileFormat::of(&start);
    if let Some(format) = format {
        let file = Opened { path: path.to_owned(), source, sha256, context };
        return format.open(file);
    }
    start.clear();
    // The conversion reports a damaged stream.
    let _ = source.unpacked(tools, progress)?.take(PROBED_BYTES).read_to_end(&mut start);
    progress.go_on()?;
    let probe = Probe { source, sha256, start, context };
    let Some(format) = FileFormat::of(&probe.start) else {
        if oci::recognise(&probe.start) {
            let archive = probe.uncompressed()?;
            if let Some(image) = oci::open_archive(archive, progress).map_err(container)? {
                return Ok(Box::new(image));
            }
        }
        return Ok(Box::new(archive::Archive::new(probe)));
    };
    if let FileFormat::Unsupported(found) = format {
        let found = found.compressed();
        return Err(ImageError::UnsupportedFile { path: path.to_owned(), found });
    }
    progress.stage("unpack the file");
    let Probe { source, sha256, context, .. } = probe;
    let unpacked = scratch::unpack(&source, context)?;
    format.open(Opened { path: unpacked, source, sha256, context })
}

/// Whether a file is an ext2, ext3 or ext4 file system, uncompressed.
///
/// # Errors
/// read(2).
pub fn is_ext4(file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut start = vec![0; 4096];
    match file.read_exact_at(&mut start, 0) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| FileFormat::of(&start) == Some(FileFormat::Ext4)),
    }
}

/// A file of a known format.
pub struct Opened<'a> {
    /// Its path, or that of its decompressed content.
    pub path: PathBuf,
    /// The file that is imported.
    pub source: Source,
    /// SHA-256 of that as lowercase hex.
    pub sha256: String,
    /// What to work with.
    pub context: Context<'a>,
}

/// Formats that the first bytes of a file tell; the others are archives.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FileFormat {
    Ext4,
    Squashfs,
    Qcow2,
    Partitions,
    Unsupported(UnsupportedFile),
}

impl FileFormat {
    /// The format of a file that begins with these bytes; `None` for archives.
    fn of(start: &[u8]) -> Option<Self> {
        if start.get(..512).is_some_and(crate::ext4::tar::is_header) {
            return None;
        }
        let has = |offset: usize, magic: &[u8]| {
            start.get(offset..offset + magic.len()).is_some_and(|found| found == magic)
        };
        Some(if has(0, b"QFI\xfb") {
            Self::Qcow2
        } else if has(0, b"hsqs") {
            Self::Squashfs
        } else if has(512, b"EFI PART") || has(4096, b"EFI PART") {
            Self::Partitions
        } else if has(1080, b"\x53\xef") {
            Self::Ext4
        } else if let Some(found) = unsupported::by_magic(start) {
            Self::Unsupported(found)
        } else if partitions::is_mbr(start) {
            Self::Partitions
        } else if has(510, b"\x55\xaa") {
            let what = "a boot sector, or a disk without partitions".to_owned();
            Self::Unsupported(UnsupportedFile { what, advice: ImageAdvice::PackDisk })
        } else {
            return None;
        })
    }

    fn open(self, file: Opened<'_>) -> Result<Box<dyn RootFs + '_>, ImageError> {
        match self {
            Self::Ext4 => Ok(Box::new(disk::Disk::file_system(file, "ext4 image")?)),
            Self::Qcow2 => Ok(Box::new(disk::Disk::qcow2(file)?)),
            Self::Partitions => Ok(Box::new(disk::Disk::partitioned(file)?)),
            Self::Squashfs => Ok(Box::new(squashfs::Squashfs::new(file)?)),
            Self::Unsupported(found) => Err(ImageError::UnsupportedFile { path: file.path, found }),
        }
    }
}

impl Probe<'_> {
    /// The decompressed file: the file itself if it is plain, else a temporary one.
    fn uncompressed(&self) -> Result<File, FetchError> {
        if self.source.is_plain()? {
            return self.source.raw();
        }
        self.context.progress.stage("unpack the archive");
        let path = scratch::unpack(&self.source, self.context)?;
        File::open(&path).at("open", &path)
    }
}
