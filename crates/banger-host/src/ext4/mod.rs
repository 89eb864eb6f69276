//! Makes ext4 file systems of trees: from tar archives and from folders, without root.
//!
//! A tree of names is read first ([`tar`], [`folder`]), changed as needed, and then written in one
//! go ([`build`]), for which the contents are read once more.

pub mod build;
pub mod folder;
mod node;
mod raw_names;
pub mod tar;
pub mod tree;

use std::io::{self, Read};
use std::path::PathBuf;

use crate::fetch::FetchError;

pub use build::{Plan, Use, build};
pub use tree::{Content, Extent, Kind, Meta, Name, Node, NodeId, ROOT, Tree, TreeError};

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// What everything stored can suffer from.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Names that a tree cannot take.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The archive is at fault.
    #[error("the archive cannot be used")]
    Tar(#[from] tar::TarError),
    /// ext4 cannot hold it.
    #[error("cannot make a file system of it")]
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

/// Takes the contents of the entry of this number.
pub type Fill<'a> = dyn FnMut(u64, &mut dyn Read) -> Result<(), Ext4Error> + 'a;

/// Where the contents of a tree's files come from.
pub trait Contents {
    /// Gives the contents of every entry, in any order.
    ///
    /// # Errors
    /// Those of reading, and those of `fill`.
    fn each(&mut self, fill: &mut Fill<'_>) -> Result<(), Ext4Error>;
}

/// Contents of a tree read from an archive: opened anew for each pass.
pub struct TarContents<F> {
    open: F,
}

impl<R: Read, F: FnMut() -> Result<R, FetchError>> TarContents<F> {
    /// `open` gives the uncompressed archive from its beginning.
    pub fn new(open: F) -> Self {
        Self { open }
    }

    /// Reads the names; `look` sees every entry with its contents before it is added.
    ///
    /// # Errors
    /// A damaged or hostile archive; those of `look`.
    pub fn tree(
        &mut self,
        look: &mut dyn FnMut(&tar::Entry, &mut dyn Read) -> Result<(), Ext4Error>,
    ) -> Result<(Tree, tar::Remarks), Ext4Error> {
        let mut stream = (self.open)()?;
        let mut reader = tar::Reader::new(&mut stream);
        let (mut tree, mut pending) = (Tree::new(), tar::Pending::default());
        while let Some(entry) = reader.next_entry()? {
            look(&entry, &mut reader.content())?;
            tar::add(&mut tree, entry, &mut pending)?;
        }
        pending.finish(&mut tree)?;
        let mut remarks = reader.remarks().clone();
        // Padding, and the checksum that a compressed stream has at its end.
        let mut rest = Zeros(true);
        let copied = io::copy(&mut stream.take(PADDING_BYTES), &mut rest);
        copied.map_err(tar::TarError::Read)?;
        if !rest.0 {
            remarks.add(tar::Remark::Trailing, b"");
        }
        Ok((tree, remarks))
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

/// Bytes after an archive's end mark that are read.
const PADDING_BYTES: u64 = 1 << 26;

impl<R: Read, F: FnMut() -> Result<R, FetchError>> Contents for TarContents<F> {
    fn each(&mut self, fill: &mut Fill<'_>) -> Result<(), Ext4Error> {
        let mut reader = tar::Reader::new((self.open)()?);
        while let Some(entry) = reader.next_entry()? {
            if matches!(entry.what, tar::What::Node(Kind::File(_))) {
                fill(entry.index, &mut reader.content())?;
            }
        }
        Ok(())
    }
}
