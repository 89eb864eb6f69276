//! Reads a folder of the host into a tree: modes, owners, links and devices as on the host.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, FileType};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::tree::{Content, Kind, Meta, Tree};
use super::{Contents, Ext4Error, Fill};
use crate::fetch::PathContext;

/// Source of owners, modes and times in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// Those of the host.
    Kept,
    /// Owner root, mode 0755 or 0644, and this time in seconds since 1970 for all files, so that
    /// the same folder always makes the same image.
    Uniform(i64),
}

/// The files of a folder, by the number of their entry.
#[derive(Debug)]
pub struct FolderContents {
    files: Vec<PathBuf>,
}

/// Reads `folder` into the tree below `prefix`.
///
/// Files must be readable. Sockets are skipped: they are useless without their process.
///
/// # Errors
/// Files and folders that cannot be read; a tree that is too large.
pub fn read(
    folder: &Path,
    prefix: &str,
    metadata: Metadata,
) -> Result<(Tree, FolderContents), Ext4Error> {
    let mut tree = Tree::new();
    let mut files = Vec::new();
    let mut seen: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut todo = vec![(folder.to_owned(), prefix.as_bytes().to_vec())];
    while let Some((path, name)) = todo.pop() {
        let meta = fs::symlink_metadata(&path).at("look at", &path)?;
        let kind = meta.file_type();
        if kind.is_socket() {
            continue;
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            if let Some(first) = seen.get(&(meta.dev(), meta.ino())) {
                tree.link(&name, first)?;
                continue;
            }
            seen.insert((meta.dev(), meta.ino()), name.clone());
        }
        let node = node(&path, &meta, kind, files.len() as u64)?;
        if kind.is_file() {
            files.push(path.clone());
        }
        tree.put(&name, node, attributes(&meta, metadata))?;
        if kind.is_dir() {
            for entry in fs::read_dir(&path).at("read the folder", &path)? {
                let entry = entry.at("read the folder", &path)?;
                let below = [&name, b"/".as_slice(), entry.file_name().as_bytes()].concat();
                todo.push((entry.path(), below));
            }
        }
    }
    Ok((tree, FolderContents { files }))
}

fn node(path: &Path, meta: &fs::Metadata, kind: FileType, index: u64) -> Result<Kind, Ext4Error> {
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Ok(if kind.is_dir() {
        Kind::Folder(BTreeMap::new())
    } else if kind.is_symlink() {
        let target = fs::read_link(path).at("read the link", path)?;
        Kind::Symlink(target.into_os_string().into_vec())
    } else if kind.is_char_device() {
        Kind::Char { major, minor }
    } else if kind.is_block_device() {
        Kind::Block { major, minor }
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        Kind::File(Content::Source { index, bytes: meta.len() })
    })
}

fn attributes(meta: &fs::Metadata, metadata: Metadata) -> Meta {
    if let Metadata::Uniform(mtime_s) = metadata {
        let mode = if meta.is_file() { 0o644 } else { 0o755 };
        return Meta { mtime_s, ..Meta::of_root(mode) };
    }
    Meta {
        mode: (meta.mode() & 0o7777) as u16,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime_s: meta.mtime(),
        mtime_ns: u32::try_from(meta.mtime_nsec()).unwrap_or_default(),
    }
}

impl Contents for FolderContents {
    fn each(&mut self, fill: &mut Fill<'_>) -> Result<(), Ext4Error> {
        for (index, path) in (0..).zip(&self.files) {
            let file = open(path).at("open", path)?;
            fill(index, &mut io::BufReader::with_capacity(1 << 16, file))?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    fs::OpenOptions::new().read(true).custom_flags(no_follow).open(path)
}
