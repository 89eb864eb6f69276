//! Finds the layers of an image: OCI image layout 1.0 (`oci-layout`, `index.json`, `blobs/`), and
//! archives of `docker save` and `podman save` (`manifest.json`).

use std::fs::File;
use std::path::Path;

use super::blobs::{Files, Index};
use super::manifest::{self, Config, Digest, Manifest, Parsed, Saved};
use super::{Layer, OciError, OciImage};
use crate::ext4::{Ext4Error, tar};
use crate::fetch::{FetchError, Progress};

/// Marks an OCI layout.
const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
/// Lists the images of an archive of `docker save`.
const SAVED: &str = "manifest.json";
/// Maximum number of indexes that lead to a manifest.
const MAX_DEPTH: usize = 4;
/// Maximum size of the configuration that is kept with an image, as JSON.
const RUNTIME_BYTES: usize = 256 << 10;

/// Whether an uncompressed archive that starts with these bytes may be one of a container image:
/// one of its first names is of such an archive.
pub fn recognise(start: &[u8]) -> bool {
    let mut reader = tar::Reader::new(start);
    while let Ok(Some(entry)) = reader.next_entry() {
        let path = entry.text_path().into_owned();
        let first = path.trim_start_matches("./").split('/').next().unwrap_or_default();
        let stem = first.split('.').next().unwrap_or_default();
        if [MARKER, INDEX, SAVED, "blobs", "repositories"].contains(&first)
            || Digest::of_hex(stem).is_some()
        {
            return true;
        }
    }
    false
}

/// The image in an OCI layout; `None` if the folder is none.
///
/// # Errors
/// A damaged image, or one that cannot be used.
pub fn open_folder<'a>(
    folder: &Path,
    progress: &'a dyn Progress,
) -> Result<Option<OciImage<'a>>, OciError> {
    let files = Files::Folder(folder.to_owned());
    if !(files.has(MARKER) && files.has(INDEX)) {
        return Ok(None);
    }
    layout(&files, progress).map(Some)
}

/// The image in an uncompressed archive; `None` if it contains none.
///
/// # Errors
/// A damaged image, or one that cannot be used.
pub fn open_archive(
    archive: File,
    progress: &dyn Progress,
) -> Result<Option<OciImage<'_>>, OciError> {
    let index = match Index::of(archive, progress) {
        Ok(index) => index,
        Err(Ext4Error::Fetch(error)) => return Err(error.into()),
        Err(Ext4Error::Tar(tar::TarError::Read(error))) => {
            return Err(FetchError::io("read", Path::new("the archive"), error).into());
        }
        // Read as the archive of a root file system, the defect is reported with its place.
        Err(_) => return Ok(None),
    };
    let files = Files::Archive(index);
    if files.has(MARKER) && files.has(INDEX) {
        layout(&files, progress).map(Some)
    } else if files.has(SAVED) {
        saved(&files, progress).map(Some)
    } else {
        Ok(None)
    }
}

fn layout<'a>(files: &Files, progress: &'a dyn Progress) -> Result<OciImage<'a>, OciError> {
    let (mut name, mut digest) = (INDEX.to_owned(), None);
    for _ in 0..MAX_DEPTH {
        let document = files.open(&name)?.document(digest.as_ref())?;
        match manifest::parse(&name, &document)? {
            Parsed::Index(next) => {
                let next = next.digest()?;
                name = next.blob();
                digest = Some(next);
            }
            Parsed::Manifest(manifest) => {
                let digest = digest.ok_or_else(|| OciError::Missing { name: "index".into() })?;
                return image(files, &manifest, digest, progress);
            }
        }
    }
    Err(OciError::Unsupported { what: "an index in an index in an index".into() })
}

fn image<'a>(
    files: &Files,
    manifest: &Manifest,
    digest: Digest,
    progress: &'a dyn Progress,
) -> Result<OciImage<'a>, OciError> {
    let config_digest = manifest.config.digest()?;
    let config = files.open(&config_digest.blob())?.document(Some(&config_digest))?;
    let config: Config = manifest::json("configuration", &config)?;
    config.check_platform()?;
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        let digest = layer.digest()?;
        let blob = files.open(&digest.blob())?;
        if blob.bytes != layer.size {
            let (name, expected) = (blob.name, digest.hex().to_owned());
            return Err(OciError::DigestMismatch { name, expected });
        }
        layers.push(Layer { blob, digest: Some(digest), diff_id: None });
    }
    made(layers, config, digest, super::IMAGE, progress)
}

fn made<'a>(
    layers: Vec<Layer>,
    config: Config,
    digest: Digest,
    kind: &'static str,
    progress: &'a dyn Progress,
) -> Result<OciImage<'a>, OciError> {
    let config = config.runtime();
    if serde_json::to_vec(&config).map_or(0, |text| text.len()) > RUNTIME_BYTES {
        return Err(OciError::Unsupported { what: "a configuration of more than 256 KiB".into() });
    }
    Ok(OciImage { layers, config, digest, kind, progress, live: Vec::new() })
}

/// The image in an archive of `docker save`. Its configuration has the digests of the layers.
fn saved<'a>(files: &Files, progress: &'a dyn Progress) -> Result<OciImage<'a>, OciError> {
    let document = files.open(SAVED)?.document(None)?;
    let images: Vec<Saved> = manifest::json(SAVED, &document)?;
    let saved = match images.as_slice() {
        [] => return Err(OciError::Missing { name: "image".into() }),
        [one] => one,
        several => {
            let name = |saved: &Saved| {
                let tag = saved.repo_tags.iter().flatten().next();
                banger_api::excerpt(tag.unwrap_or(&saved.config))
            };
            let names = several.iter().take(20).map(name).collect();
            return Err(OciError::SeveralImages { names });
        }
    };
    if saved.layers.len() > manifest::MAX_LAYERS {
        return Err(OciError::TooManyLayers { count: saved.layers.len() });
    }
    let file = saved.config.rsplit('/').next().unwrap_or_default();
    let digest = Digest::of_hex(file.trim_end_matches(".json"));
    let config = files.open(&saved.config)?.document(digest.as_ref())?;
    let digest = match digest {
        Some(digest) => digest,
        None => of(&config)?,
    };
    let config: Config = manifest::json(&saved.config, &config)?;
    config.check_platform()?;
    let diff_ids = config.diff_ids()?;
    if diff_ids.len() != saved.layers.len() {
        let what = format!("{} layers, but digests of {}", saved.layers.len(), diff_ids.len());
        return Err(OciError::Unsupported { what });
    }
    let mut layers = Vec::new();
    for (name, diff_id) in saved.layers.iter().zip(diff_ids) {
        layers.push(Layer { blob: files.open(name)?, digest: None, diff_id: Some(diff_id) });
    }
    made(layers, config, digest, "Docker image", progress)
}

fn of(bytes: &[u8]) -> Result<Digest, OciError> {
    let hex = crate::fetch::digest_of_file(bytes);
    let hex = hex.map_err(|error| FetchError::io("read", Path::new("configuration"), error))?;
    Digest::of_hex(&hex).ok_or(OciError::BadDigest { text: hex })
}
