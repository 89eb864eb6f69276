//! Container images: OCI layouts in a folder or a tar archive, and archives of `docker save`.
//!
//! ```text
//! manifest   the documents: index, manifest, configuration
//! blobs      the files of an image, in a folder or an archive
//! layout     finds the layers of an image
//! ```
//!
//! Each layer is read twice, as every source: its names are merged into one tree, then the contents
//! of the files that the merged tree still has are read. The first pass checks all digests.

mod blobs;
mod error;
mod layout;
pub mod manifest;

use std::collections::HashSet;
use std::io::{self, Read};

use banger_api::images::ImageConfig;
use sha2::{Digest as _, Sha256};

pub use error::OciError;
pub use layout::{open_archive, open_folder, recognise};

use super::limited::Limited;
use super::{Inspect, RootFs};
use crate::ext4::layers::Layers;
use crate::ext4::tar::{self, EntryKind, TarError};
use crate::ext4::{Content, Contents, Ext4Error, Fill, Kind, Tree};
use crate::fetch::{FetchError, Progress};
use blobs::{Blob, Hashes, Unpacked};
use manifest::Digest;

/// Kind of the source.
pub const IMAGE: &str = "OCI image";
/// Bits of an entry's number within its layer; the layer's number is above them.
const LAYER_SHIFT: u32 = 40;

/// A layer of an image.
#[derive(Debug)]
struct Layer {
    blob: Blob,
    /// SHA-256 of the stored file.
    digest: Option<Digest>,
    /// SHA-256 of the uncompressed archive.
    diff_id: Option<Digest>,
}

/// A container image.
pub struct OciImage<'a> {
    layers: Vec<Layer>,
    config: ImageConfig,
    /// Of the manifest, or of the configuration of an archive of `docker save`.
    digest: Digest,
    kind: &'static str,
    progress: &'a dyn Progress,
    /// Layers with contents in the merged tree.
    live: Vec<bool>,
}

/// A reader with the hash of the content.
struct Checked<R> {
    inner: R,
    hash: Option<Sha256>,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..count]);
        }
        Ok(count)
    }
}

type LayerReader<'a> = tar::Reader<Checked<Limited<Unpacked<'a>>>>;

/// The two passes over a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Reads the names, and checks the digests.
    Names,
    /// Reads the contents of the same file, which must not have changed.
    Contents,
}

impl OciImage<'_> {
    fn open<'b>(&'b self, layer: &'b Layer, pass: Pass) -> Result<LayerReader<'b>, Ext4Error> {
        let checked = layer.diff_id.as_ref().filter(|_| pass == Pass::Names);
        let hashing = match &layer.digest {
            Some(_) if pass == Pass::Names => Hashes::Stored,
            _ => Hashes::None,
        };
        let inner = layer.blob.unpack(hashing, self.progress).map_err(failed)?;
        let hash = checked.map(|_| Sha256::new());
        let inner = Limited::new(inner, &layer.blob.name, layer.blob.bytes);
        Ok(tar::Reader::new(Checked { inner, hash }))
    }

    fn read_layer(
        &self,
        number: usize,
        merged: &mut Layers,
        inspect: &mut Inspect<'_>,
    ) -> Result<(), Ext4Error> {
        let layer = &self.layers[number];
        let mut reader = self.open(layer, Pass::Names)?;
        let base = (number as u64) << LAYER_SHIFT;
        while let Some(mut entry) = next(&mut reader)? {
            if let EntryKind::Node(Kind::File(file)) = &mut entry.kind {
                if let Content::Source { index, .. } | Content::Sparse { index, .. } = file {
                    *index += base;
                }
                let file = file.clone();
                inspect(&entry.path, &file, &mut reader.content())?;
            }
            merged.add(entry)?;
        }
        merged.end_layer()?;
        for line in reader.warnings().lines() {
            self.progress.log(&format!("{}: {line}", layer.blob.name));
        }
        // The padding, and what a compressed stream has at its end.
        let mut rest = reader.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(TarError::Read)?;
        if let (Some(expected), Some(hash)) = (&layer.diff_id, rest.hash) {
            layer.blob.compare(expected, hash.finalize().as_slice()).map_err(failed)?;
        }
        if let Some(expected) = &layer.digest {
            let found = rest.inner.into_inner().stored_hash().map_err(TarError::Read)?;
            layer.blob.compare(expected, &found).map_err(failed)?;
        }
        Ok(())
    }
}

/// The next entry; an empty archive is a layer without entries.
fn next<R: Read>(reader: &mut tar::Reader<R>) -> Result<Option<tar::Entry>, TarError> {
    match reader.next_entry() {
        Err(TarError::Empty) => Ok(None),
        other => other,
    }
}

fn failed(error: OciError) -> Ext4Error {
    match error {
        OciError::Fetch(error) => error.into(),
        other => Ext4Error::Source(Box::new(other)),
    }
}

/// Adds the name of a layer to an error; restores an error that passed through a reader.
fn in_layer(error: Ext4Error, name: &str) -> Ext4Error {
    let error = match error {
        Ext4Error::Tar(TarError::Read(source)) => {
            match source
                .downcast::<OciError>()
                .map_err(|source| FetchError::io("read", std::path::Path::new(name), source))
            {
                Ok(ours) => return Ext4Error::Source(Box::new(ours)),
                // An error without an OS code is from a decompressor: the layer is damaged.
                Err(FetchError::Io { source, .. }) if source.raw_os_error().is_none() => {
                    Ext4Error::Tar(TarError::Read(source))
                }
                Err(other) => return other.into(),
            }
        }
        Ext4Error::Fetch(_) | Ext4Error::Source(_) => return error,
        other => other,
    };
    Ext4Error::Part { name: name.to_owned(), source: Box::new(error) }
}

impl RootFs for OciImage<'_> {
    fn tree(&mut self, inspect: &mut Inspect<'_>) -> Result<Tree, Ext4Error> {
        let mut merged = Layers::default();
        let total = self.layers.len() as u64;
        for number in 0..self.layers.len() {
            self.progress.items("layers", number as u64, Some(total));
            let read = self.read_layer(number, &mut merged, inspect);
            read.map_err(|error| in_layer(error, &self.layers[number].blob.name))?;
        }
        let tree = merged.into_tree();
        let mut live = HashSet::new();
        for node in tree.live() {
            if let Kind::File(Content::Source { index, .. } | Content::Sparse { index, .. }) =
                &node.kind
            {
                live.insert((index >> LAYER_SHIFT) as usize);
            }
        }
        self.live = (0..self.layers.len()).map(|number| live.contains(&number)).collect();
        Ok(tree)
    }

    fn sha256(&self) -> String {
        self.digest.hex().to_owned()
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn unchanged(&self) -> bool {
        self.layers.iter().all(|layer| layer.blob.unchanged())
    }

    fn config(&self) -> Option<ImageConfig> {
        Some(self.config.clone())
    }
}

impl Contents for OciImage<'_> {
    fn each(&mut self, fill: &mut Fill<'_>) -> Result<(), Ext4Error> {
        for (number, layer) in self.layers.iter().enumerate() {
            if !self.live.get(number).copied().unwrap_or(true) {
                continue;
            }
            let base = (number as u64) << LAYER_SHIFT;
            let mut pass = || {
                let mut reader = self.open(layer, Pass::Contents)?;
                while let Some(entry) = next(&mut reader)? {
                    if matches!(entry.kind, EntryKind::Node(Kind::File(_))) {
                        fill(entry.index + base, &mut reader.content())?;
                    }
                }
                Ok(())
            };
            pass().map_err(|error| in_layer(error, &layer.blob.name))?;
        }
        Ok(())
    }
}
