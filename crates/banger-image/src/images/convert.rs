//! Converts the archive of a root file system to the root disk of an image.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::overlay;
use super::rootfs::{self, FACT_BYTES, Facts, Init};
use super::{ImageError, ROOT_DISK, unsupported};
use crate::ext4::tar::{EntryKind, TarError, Warnings};
use crate::ext4::{Content, Ext4Error, Kind, Plan, Purpose, TarContents, Tree, build};
use crate::fetch::{self, FetchError, Progress, Source, Tools};

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
    /// SHA-256 of the archive's file.
    pub source_sha256: String,
}

/// A change of the tree before it is written.
pub type Amend<'a> = &'a dyn Fn(&mut Tree) -> Result<(), Ext4Error>;

/// Converts an archive to a root disk in the folder `object`.
///
/// # Errors
/// [`ImageError::BadArchive`], [`ImageError::NotARootFs`]; no space; cancellation.
pub fn convert(
    source: &Source,
    object: &Path,
    amend: Amend<'_>,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Converted, ImageError> {
    let failed = |error: Ext4Error| failed(error, source, progress);
    progress.stage("check the archive");
    let raw = fetch::Counted::new(source.raw()?, Some(source.bytes()), progress);
    let source_sha256 =
        fetch::digest_of_file(raw).map_err(|error| FetchError::io("read", source.path(), error))?;
    if let Some(found) = unsupported::in_file(source, tools, progress)? {
        return Err(ImageError::UnsupportedFile { path: source.path().to_owned(), found });
    }
    progress.stage("read the archive");
    let mut contents = TarContents::new(|| source.unpacked(tools, progress));
    let (mut tree, facts, warnings) = read(&mut contents, object).map_err(failed)?;
    for line in warnings.lines() {
        progress.warning(&line);
    }
    if let Some(found) = unsupported::in_tree(&tree) {
        return Err(ImageError::UnsupportedFile { path: source.path().to_owned(), found });
    }
    if !rootfs::is_bootable(&tree) {
        return Err(ImageError::NotARootFs { path: source.path().to_owned() });
    }
    for path in rootfs::anonymise(&mut tree).map_err(|error| failed(error.into()))? {
        progress.log(&format!("left out /{path}"));
    }
    amend(&mut tree).map_err(failed)?;
    // Data and metadata.
    let content_bytes = tree.content_bytes();
    fetch::need_space(object, content_bytes + content_bytes / 16 + (32 << 20))?;
    progress.stage("write the root disk");
    let plan =
        Plan { purpose: Purpose::Root, label: "banger-root".into(), uuid: uuid(&source_sha256) };
    let target = object.join(ROOT_DISK);
    let virtual_bytes = build(&tree, &mut contents, &plan, &target).map_err(failed)?;
    if !source.unchanged() {
        return Err(ImageError::SourceChanged { path: source.path().to_owned() });
    }
    Ok(Converted {
        virtual_bytes,
        init: rootfs::init(&tree),
        facts,
        hidden_by_overlay: overlay::hidden(&tree),
        source_sha256,
    })
}

/// Reads the names and facts of an archive; fails as soon as the contents exceed the free space.
fn read<R: Read, F: FnMut() -> Result<R, FetchError>>(
    contents: &mut TarContents<F>,
    object: &Path,
) -> Result<(Tree, Facts, Warnings), Ext4Error> {
    let free_bytes = fetch::free_bytes(object)
        .map_err(|error| FetchError::io("look at the free space of", object, error))?;
    let (mut facts, mut total) = (Facts::default(), 0_u64);
    let (tree, warnings) = contents.tree(&mut |entry, content| {
        let EntryKind::Node(Kind::File(file)) = &entry.kind else { return Ok(()) };
        total = total.saturating_add(file.stored_bytes());
        if total > free_bytes {
            let path = object.to_owned();
            return Err(FetchError::NoSpace { path, need_bytes: total, free_bytes }.into());
        }
        let is_whole = matches!(file, Content::Source { .. });
        if is_whole && Facts::wants(&entry.text_path()) && file.bytes() <= FACT_BYTES {
            let mut text = Vec::new();
            content.read_to_end(&mut text).map_err(TarError::Read)?;
            facts.take(&entry.text_path(), &text);
        }
        Ok(())
    })?;
    Ok((tree, facts, warnings))
}

/// A UUID derived from the archive, so that equal archives make equal disks.
fn uuid(source_sha256: &str) -> [u8; 16] {
    let hash = Sha256::digest(format!("banger image {RECIPE} {source_sha256}"));
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&hash[..16]);
    // RFC 9562: version 8, variant 10.
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    uuid
}

fn failed(error: Ext4Error, source: &Source, progress: &dyn Progress) -> ImageError {
    if progress.cancelled() {
        return FetchError::Cancelled.into();
    }
    let path = source.path().to_owned();
    match error {
        Ext4Error::Fetch(error) => error.into(),
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
