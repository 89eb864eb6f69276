//! Creates ext4 file systems from tar archives and folders, without root.
//!
//! [`tar`] and [`folder`] read the names into a tree, callers amend it, and [`build()`] writes the
//! image, which reads the source a second time for the contents.

pub mod build;
mod descriptors;
pub mod folder;
pub mod layers;
mod node;
pub mod overlaid;
mod raw_names;
pub mod subtree;
pub mod tar;
pub mod tree;
pub mod used;
pub mod volume;

use std::io::{self, Read};
use std::path::PathBuf;

use crate::fetch::FetchError;

pub use build::{Plan, Purpose, build};
pub use tree::{Content, Extent, Kind, Meta, Name, Node, NodeId, ROOT, Tree, TreeError};

/// Errors of creating an image.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// An error that all stored objects share.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// An invalid path.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// An invalid archive.
    #[error("the archive cannot be used")]
    Tar(#[from] tar::TarError),
    /// A part of the source, such as a layer, is invalid.
    #[error("`{name}` in it cannot be used")]
    Part {
        /// Name of the part.
        name: String,
        /// The error.
        #[source]
        source: Box<Ext4Error>,
    },
    /// An error of the source's own kind.
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// A file system that cannot be read.
    #[error("the file system cannot be used")]
    Volume(#[from] volume::VolumeError),
    /// A file of the source changed while it was read.
    #[error("`{}` changed while it was read", .0.display())]
    Changed(PathBuf),
    /// ext4 cannot represent the tree.
    #[error("cannot create a file system from it")]
    Build(#[source] mkext4::Error),
}

impl From<mkext4::Error> for Ext4Error {
    fn from(error: mkext4::Error) -> Self {
        match error {
            mkext4::Error::Io(source) if source.get_ref().is_some_and(|e| e.is::<FetchError>()) => {
                Self::Fetch(FetchError::io("write", &PathBuf::new(), source))
            }
            other => Self::Build(other),
        }
    }
}

/// Receives a file while names are read: its path without a leading slash, its length and holes,
/// and its content.
pub type Inspect<'a> = dyn FnMut(&[u8], &Content, &mut dyn Read) -> Result<(), Ext4Error> + 'a;

/// Receives the contents of the entry with this number.
pub type Fill<'a> = dyn FnMut(u64, &mut dyn Read) -> Result<(), Ext4Error> + 'a;

/// Source of the contents of a tree's files.
pub trait Contents {
    /// Calls `fill` with the contents of every entry, in any order.
    ///
    /// # Errors
    /// Those of reading, and those of `fill`.
    fn each(&mut self, fill: &mut Fill<'_>) -> Result<(), Ext4Error>;
}

/// Contents of a tree read from an archive, which is opened again for each pass.
pub struct TarContents<F> {
    open: F,
}

impl<R: Read, F: FnMut() -> Result<R, FetchError>> TarContents<F> {
    /// `open` returns a reader of the uncompressed archive.
    pub fn new(open: F) -> Self {
        Self { open }
    }

    /// Reads the names; calls `inspect` with every entry and its contents before it is added.
    ///
    /// # Errors
    /// A damaged or hostile archive; errors of `inspect`.
    pub fn tree(
        &mut self,
        inspect: &mut dyn FnMut(&tar::Entry, &mut dyn Read) -> Result<(), Ext4Error>,
    ) -> Result<(Tree, tar::Warnings), Ext4Error> {
        let mut stream = (self.open)()?;
        let mut reader = tar::Reader::new(&mut stream);
        let (mut tree, mut pending) = (Tree::new(), tar::Pending::default());
        while let Some(entry) = reader.next_entry()? {
            inspect(&entry, &mut reader.content())?;
            tar::add(&mut tree, entry, &mut pending)?;
        }
        pending.finish(&mut tree)?;
        let mut warnings = reader.warnings().clone();
        // Padding, and the checksum that a compressed stream has at its end.
        let mut rest = Zeros(true);
        let copied = io::copy(&mut stream.take(PADDING_BYTES), &mut rest);
        copied.map_err(tar::TarError::Read)?;
        if !rest.0 {
            warnings.add(tar::Warning::TrailingData, b"");
        }
        Ok((tree, warnings))
    }
}

/// Whether everything written to it was zero.
struct Zeros(bool);

impl io::Write for Zeros {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 &= bytes.iter().all(|byte| *byte == 0);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Maximum number of bytes read after the end mark.
const PADDING_BYTES: u64 = 1 << 26;

impl<R: Read, F: FnMut() -> Result<R, FetchError>> Contents for TarContents<F> {
    fn each(&mut self, fill: &mut Fill<'_>) -> Result<(), Ext4Error> {
        let mut reader = tar::Reader::new((self.open)()?);
        while let Some(entry) = reader.next_entry()? {
            if matches!(entry.kind, tar::EntryKind::Node(Kind::File(_))) {
                fill(entry.index, &mut reader.content())?;
            }
        }
        Ok(())
    }
}
