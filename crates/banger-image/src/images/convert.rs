//! Converts a source of a root file system to the root disk of an image.

use std::path::Path;

use banger_api::disk::HEADROOM_BYTES;
use banger_api::images::ImageConfig;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::overlay;
use super::rootfs::{self, FACT_BYTES, Facts, Init};
use super::sources::vm_disk::VmDisk;
use super::sources::{self, RootFs};
use super::{ImageError, ROOT_DISK, unsupported, work_seed};
use crate::ext4::tar::TarError;
use crate::ext4::volume::VolumeError;
use crate::ext4::{Content, Ext4Error, Plan, Purpose, Tree, build};
use crate::fetch::{self, FetchError, Progress, Tools};

/// Version of the conversion; increase it when the resulting image changes.
const RECIPE: u32 = 2;

/// Result of a conversion.
#[derive(Debug, Serialize, Deserialize)]
pub struct Converted {
    /// Length of the root disk.
    pub virtual_bytes: u64,
    /// The init.
    pub init: Option<Init>,
    /// Whether it has opencode.
    #[serde(default)]
    pub opencode: bool,
    /// Facts from its files.
    pub facts: Facts,
    /// Files that an overlay hides, as text.
    pub hidden_by_overlay: Option<String>,
    /// How a container of the image runs, if it is a container image.
    #[serde(default)]
    pub config: Option<ImageConfig>,
    /// Kind and SHA-256 of the source.
    pub source: String,
}

/// A change of the tree before it is written.
pub type Amend<'a> = &'a dyn Fn(&mut Tree) -> Result<(), Ext4Error>;

/// The folder for temporary files of a conversion.
pub fn scratch(object: &Path) -> std::path::PathBuf {
    object.with_file_name("scratch")
}

/// A root file system to convert.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A file or folder of any kind.
    File(&'a Path),
    /// The disk of a VM that does not run.
    Vm(&'a VmDisk),
}

impl<'a> Input<'a> {
    /// The file, for messages.
    pub fn path(self) -> &'a Path {
        match self {
            Self::File(path) => path,
            Self::Vm(disk) => disk.path(),
        }
    }

    /// All files that are read.
    pub fn paths(self) -> Vec<&'a Path> {
        match self {
            Self::File(path) => vec![path],
            Self::Vm(disk) => disk.paths(),
        }
    }

    fn open<'b>(self, context: sources::Context<'b>) -> Result<Box<dyn RootFs + 'b>, ImageError> {
        match self {
            Self::File(path) => sources::open(path, context),
            Self::Vm(disk) => disk.open(context),
        }
    }
}

/// Converts a source to a root disk in the folder `object`; temporary files are in [`scratch`].
///
/// # Errors
/// [`ImageError::BadArchive`], [`ImageError::NotARootFs`]; no space; cancellation.
pub fn convert(
    input: Input<'_>,
    object: &Path,
    amend: Amend<'_>,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Converted, ImageError> {
    let path = input.path();
    let failed = |error: Ext4Error| failed(error, path, progress);
    let scratch = scratch(object);
    let mut source = input.open(sources::Context { tools, progress, scratch: &scratch })?;
    progress.stage("read the names");
    let (mut tree, facts) = read(source.as_mut(), Some(object)).map_err(failed)?;
    if let Some(found) = unsupported::in_tree(&tree) {
        return Err(ImageError::UnsupportedFile { path: path.to_owned(), found });
    }
    if !rootfs::is_bootable(&tree) {
        return Err(ImageError::NotARootFs { path: path.to_owned() });
    }
    for path in rootfs::anonymise(&mut tree).map_err(|error| failed(error.into()))? {
        progress.log(&format!("left out /{path}"));
    }
    amend(&mut tree).map_err(failed)?;
    // Data and metadata.
    let content_bytes = tree.content_bytes();
    fetch::need_space(object, content_bytes + content_bytes / 16 + (32 << 20))?;
    progress.stage("write the root disk");
    let sha256 = source.sha256();
    let plan = Plan { purpose: Purpose::Root, label: "banger-root".into(), uuid: uuid(&sha256) };
    let target = object.join(ROOT_DISK);
    let virtual_bytes = build(&tree, source.as_mut(), &plan, &target).map_err(failed)?;
    write_seed(&tree, source.as_mut(), object).map_err(failed)?;
    if !source.unchanged() {
        return Err(ImageError::SourceChanged { path: path.to_owned() });
    }
    Ok(Converted {
        virtual_bytes,
        init: rootfs::init(&tree),
        opencode: rootfs::has_opencode(&tree),
        facts,
        hidden_by_overlay: overlay::hidden(&tree),
        config: source.config(),
        source: format!("{} with SHA-256 {sha256}", source.kind()),
    })
}

/// Writes the work seed of a tree, if it is worth one, to the folder `object`.
fn write_seed(tree: &Tree, source: &mut dyn RootFs, object: &Path) -> Result<(), Ext4Error> {
    let Some(home) = work_seed::home(tree)? else { return Ok(()) };
    let content_bytes = home.content_bytes();
    fetch::need_space(object, content_bytes + content_bytes / 16 + (32 << 20))?;
    let uuid = uuid(&format!("work {}", source.sha256()));
    let plan = Plan { purpose: Purpose::Root, label: "work".into(), uuid };
    build(&home, source, &plan, &object.join(work_seed::WORK_SEED)).map(drop)
}

/// Reads a source as a conversion does, and writes nothing.
///
/// # Errors
/// As [`convert`], but for those of writing.
pub fn inspect(
    input: Input<'_>,
    object: &Path,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Converted, ImageError> {
    read_only(input, object, tools, progress).map(|(converted, _, _)| converted)
}

/// Writes the work seed of an image to the folder `object`.
///
/// # Errors
/// As [`convert`].
pub fn seed(
    input: Input<'_>,
    object: &Path,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Converted, ImageError> {
    let (converted, tree, mut source) = read_only(input, object, tools, progress)?;
    let written = write_seed(&tree, source.as_mut(), object);
    written.map_err(|error| failed(error, input.path(), progress))?;
    Ok(converted)
}

fn read_only<'a>(
    input: Input<'_>,
    object: &'a Path,
    tools: &'a Tools,
    progress: &'a dyn Progress,
) -> Result<(Converted, Tree, Box<dyn RootFs + 'a>), ImageError> {
    let path = input.path();
    let mut source = input.open(sources::Context { tools, progress, scratch: object })?;
    progress.stage("read the names");
    let read = read(source.as_mut(), None).map_err(|error| failed(error, path, progress));
    let (tree, facts) = read?;
    if !rootfs::is_bootable(&tree) {
        return Err(ImageError::NotARootFs { path: path.to_owned() });
    }
    let converted = Converted {
        virtual_bytes: 0,
        init: rootfs::init(&tree),
        opencode: rootfs::has_opencode(&tree),
        facts,
        hidden_by_overlay: overlay::hidden(&tree),
        config: source.config(),
        source: format!("{} with SHA-256 {}", source.kind(), source.sha256()),
    };
    Ok((converted, tree, source))
}

/// Reads the names and facts of a source; fails as soon as the contents exceed the free space of
/// the folder that they are to be written to.
fn read(source: &mut dyn RootFs, object: Option<&Path>) -> Result<(Tree, Facts), Ext4Error> {
    let free_bytes = object.map(|object| {
        let free = fetch::free_bytes(object);
        free.map_err(|error| FetchError::io("look at the free space of", object, error))
    });
    let free_bytes = free_bytes.transpose()?.unwrap_or(u64::MAX);
    let (mut facts, mut total) = (Facts::default(), 0_u64);
    let tree = source.tree(&mut |path, file, content| {
        total = total.saturating_add(file.stored_bytes());
        let need_bytes = total.saturating_add(HEADROOM_BYTES);
        if need_bytes > free_bytes {
            let path = object.unwrap_or(Path::new("/")).to_owned();
            return Err(FetchError::NoSpace { path, need_bytes, free_bytes }.into());
        }
        let path = String::from_utf8_lossy(path);
        let is_whole = matches!(file, Content::Source { .. });
        if is_whole && Facts::wants(&path) && file.bytes() <= FACT_BYTES {
            let mut text = Vec::new();
            content.read_to_end(&mut text).map_err(TarError::Read)?;
            facts.take(&path, &text);
        }
        Ok(())
    })?;
    Ok((tree, facts))
}

/// A UUID derived from the source, so that equal sources make equal disks.
fn uuid(source_sha256: &str) -> [u8; 16] {
    let hash = Sha256::digest(format!("banger image {RECIPE} {source_sha256}"));
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&hash[..16]);
    // RFC 9562: version 8, variant 10.
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    uuid
}

fn failed(error: Ext4Error, path: &Path, progress: &dyn Progress) -> ImageError {
    if progress.cancelled() {
        return FetchError::Cancelled.into();
    }
    let path = path.to_owned();
    match error {
        Ext4Error::Fetch(error) => error.into(),
        Ext4Error::Changed(path) => ImageError::SourceChanged { path },
        Ext4Error::Volume(VolumeError::Read(reason)) => {
            FetchError::io("read", &path, reason).into()
        }
        Ext4Error::Tar(TarError::Read(reason)) => match FetchError::io("read", &path, reason) {
            // An error without an OS code is from a decompressor: the archive is damaged.
            FetchError::Io { source, .. } if source.raw_os_error().is_none() => {
                let source = Ext4Error::Tar(TarError::Read(source));
                ImageError::BadArchive { path, source }
            }
            FetchError::ToolFailed { tool, status, output } => {
                let source = FetchError::ToolFailed { tool, status, output }.into_io();
                ImageError::BadArchive { path, source: Ext4Error::Tar(TarError::Read(source)) }
            }
            other => other.into(),
        },
        source => ImageError::BadArchive { path, source },
    }
}
