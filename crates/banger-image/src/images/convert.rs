//! Converts a source of a root file system to the root disk of an image.

use std::path::Path;

use banger_api::disk::HEADROOM_BYTES;
use banger_api::images::ImageConfig;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::overlay;
use super::rootfs::{self, FACT_BYTES, Facts, Init};
use super::sources::{self, RootFs};
use super::{ImageError, ROOT_DISK, unsupported};
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

/// Converts a file or folder to a root disk in the folder `object`; temporary files are in
/// [`scratch`].
///
/// # Errors
/// [`ImageError::BadArchive`], [`ImageError::NotARootFs`]; no space; cancellation.
pub fn convert(
    path: &Path,
    object: &Path,
    amend: Amend<'_>,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Converted, ImageError> {
    let failed = |error: Ext4Error| failed(error, path, progress);
    let scratch = scratch(object);
    let mut source = sources::open(path, sources::Context { tools, progress, scratch: &scratch })?;
    progress.stage("read the names");
    let (mut tree, facts) = read(source.as_mut(), object).map_err(failed)?;
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
    if !source.unchanged() {
        return Err(ImageError::SourceChanged { path: path.to_owned() });
    }
    Ok(Converted {
        virtual_bytes,
        init: rootfs::init(&tree),
        facts,
        hidden_by_overlay: overlay::hidden(&tree),
        config: source.config(),
        source: format!("{} with SHA-256 {sha256}", source.kind()),
    })
}

/// Reads the names and facts of a source; fails as soon as the contents exceed the free space.
fn read(source: &mut dyn RootFs, object: &Path) -> Result<(Tree, Facts), Ext4Error> {
    let free_bytes = fetch::free_bytes(object)
        .map_err(|error| FetchError::io("look at the free space of", object, error))?;
    let (mut facts, mut total) = (Facts::default(), 0_u64);
    let tree = source.tree(&mut |path, file, content| {
        total = total.saturating_add(file.stored_bytes());
        let need_bytes = total.saturating_add(HEADROOM_BYTES);
        if need_bytes > free_bytes {
            let path = object.to_owned();
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
