//! Sources of root file systems: files and folders that an image is imported from, each recognised
//! by its content, never by its name.
//!
//! A kind of source is a file of this folder with an implementation of [`RootFs`] and a line in
//! [`open`]. [`super::convert`] reads every kind in the same way.

mod archive;
pub mod oci;

use std::fs::{self as files, File};
use std::io::{self, Read};
use std::path::Path;

use banger_api::images::ImageConfig;

use super::{ImageError, unsupported};
use crate::ext4::{Content, Contents, Ext4Error, Tree};
use crate::fetch::{self, FetchError, PathContext, Progress, Source, Tools};

/// Receives a file: its path without a leading slash, its length and holes, and its content.
pub type Inspect<'a> = dyn FnMut(&[u8], &Content, &mut dyn Read) -> Result<(), Ext4Error> + 'a;

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
    if path.is_dir()
        && let Some(image) = oci::open_folder(path, progress).map_err(container)?
    {
        return Ok(Box::new(image));
    }
    let source = Source::open(path)?;
    progress.stage("check the archive");
    let raw = fetch::Counted::new(source.raw()?, Some(source.bytes()), progress);
    let sha256 = fetch::digest_of_file(raw).map_err(|error| FetchError::io("read", path, error))?;
    let refused = |found| ImageError::UnsupportedFile { path: path.to_owned(), found };
    let mut start = Vec::new();
    source.raw()?.take(PROBED_BYTES).read_to_end(&mut start).at("read", path)?;
    if let Some(found) = unsupported::by_magic(&start) {
        return Err(refused(found));
    }
    start.clear();
    // The conversion reports a damaged stream.
    let _ = source.unpacked(tools, progress)?.take(PROBED_BYTES).read_to_end(&mut start);
    progress.go_on()?;
    let probe = Probe { source, sha256, start, context };
    if let Some(found) = unsupported::by_magic(&probe.start) {
        return Err(refused(found.compressed()));
    }
    if oci::recognise(&probe.start) {
        let archive = probe.uncompressed()?;
        if let Some(image) = oci::open_archive(archive, progress).map_err(container)? {
            return Ok(Box::new(image));
        }
    }
    Ok(Box::new(archive::Archive::new(probe)))
}

impl Probe<'_> {
    /// The decompressed file: the file itself if it is plain, else a temporary one.
    fn uncompressed(&self) -> Result<File, FetchError> {
        let Context { tools, progress, scratch } = self.context;
        if self.source.is_plain()? {
            return self.source.raw();
        }
        progress.stage("unpack the archive");
        files::create_dir_all(scratch).at("make the folder", scratch)?;
        let path = scratch.join("image.tar");
        let mut options = files::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let mut file = options.open(&path).at("create", &path)?;
        let mut content = self.source.unpacked(tools, progress)?;
        io::copy(&mut content, &mut file).at("write", &path)?;
        Ok(file)
    }
}
