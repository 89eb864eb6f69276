//! Names and link targets that are not UTF-8.
//!
//! mkext4 accepts UTF-8 only. Each other name is declared as a placeholder of the same length, and
//! the placeholder is overwritten in the written image: in the blocks of the folder and in the
//! inode or block of the link, with their checksums (Linux, Documentation/filesystems/ext4,
//! "Directory Entries" and "Checksums"). A folder that was indexed by hash becomes a linear
//! one, because the hashes no longer match; `e2fsck -D` restores the index.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;

use mkext4::csum;
use mkext4::reader::{FileExtent, Fs};
use mkext4::spec::{DirentIter, Inode, iflags};
use mkext4::{Error, Result};

use super::tree::{Name, NodeId};

/// Bytes of a checksum record at the end of a block of a folder.
const TAIL: usize = 12;
/// Where an inode has its flags, its blocks or short link target, and its checksum.
const FLAGS: usize = 0x20;
const BLOCKS: usize = 0x28;
const CHECKSUM_LOW: usize = 0x7c;
const CHECKSUM_HIGH: usize = 0x82;

/// Placeholders to overwrite in the written image.
#[derive(Debug, Default)]
pub struct RawNames {
    folders: Vec<(Vec<u8>, HashMap<String, Name>)>,
    links: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Placeholders for the names of one folder.
pub struct Texts<'a>(HashMap<&'a [u8], String>);

impl Texts<'_> {
    /// The name to declare for a name of the folder.
    pub fn of<'a>(&'a self, name: &'a [u8]) -> Result<&'a str> {
        match std::str::from_utf8(name) {
            Ok(text) => Ok(text),
            Err(_) => self.0.get(name).map(String::as_str).ok_or_else(too_many_names),
        }
    }
}

fn too_many_names() -> Error {
    Error::Unsupported("a folder with that many short names that are not UTF-8".into())
}

impl RawNames {
    /// Chooses the placeholders for a folder; `path` is the declared path of the folder.
    pub fn texts<'a>(&mut self, path: &[u8], names: &'a BTreeMap<Name, NodeId>) -> Texts<'a> {
        let raw = names.keys().filter(|name| std::str::from_utf8(name).is_err());
        let (mut texts, mut by_length) = (HashMap::new(), HashMap::new());
        for name in raw {
            let left = by_length.entry(name.len()).or_insert_with(|| placeholders(name.len()));
            if let Some(text) = left.find(|text| !names.contains_key(text.as_bytes())) {
                texts.insert(&name[..], text);
            }
        }
        if !texts.is_empty() {
            let back = texts.iter().map(|(name, text)| (text.clone(), Name::from(*name)));
            self.folders.push((path.to_vec(), back.collect()));
        }
        Texts(texts)
    }

    /// The target to declare for the symbolic link at the declared path `path`.
    pub fn target(&mut self, path: &[u8], target: &[u8]) -> String {
        String::from_utf8(target.to_vec()).unwrap_or_else(|_| {
            self.links.push((path.to_vec(), target.to_vec()));
            "x".repeat(target.len())
        })
    }

    /// Writes the names and targets into the image.
    ///
    /// # Errors
    /// read(2), write(2).
    pub fn restore(&self, image: &File) -> Result<()> {
        if self.folders.is_empty() && self.links.is_empty() {
            return Ok(());
        }
        let fs = Fs::open(image)?;
        // Resolve all paths before the first name changes.
        let links: Vec<u32> =
            self.links.iter().map(|(path, _)| find(&fs, path)).collect::<Result<_>>()?;
        let folders: Vec<u32> =
            self.folders.iter().map(|(path, _)| find(&fs, path)).collect::<Result<_>>()?;
        for (ino, (_, target)) in links.into_iter().zip(&self.links) {
            restore_target(image, &fs, ino, target)?;
        }
        for (ino, (_, names)) in folders.into_iter().zip(&self.folders) {
            restore_names(image, &fs, ino, names)?;
        }
        Ok(())
    }
}

/// Candidates of this length for placeholders.
fn placeholders(length: usize) -> impl Iterator<Item = String> {
    const DIGITS: &[u8] = b"~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_!#%+,";
    let base = DIGITS.len();
    let digits = length.min(5);
    (0..base.pow(digits as u32)).map(move |number| {
        let mut text = "~".repeat(length - digits);
        let mut rest = number;
        for _ in 0..digits {
            text.push(char::from(DIGITS[rest % base]));
            rest /= base;
        }
        text
    })
}

fn find(fs: &Fs<&File>, path: &[u8]) -> Result<u32> {
    let mut ino = mkext4::spec::ROOT_INO;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        ino = fs.lookup(ino, part)?.ok_or_else(|| damaged("a name is missing"))?;
    }
    Ok(ino)
}

fn damaged(what: &str) -> Error {
    Error::Invalid(format!("the written image is damaged: {what}"))
}

/// Writes an inode with its checksum.
fn put_inode(image: &File, fs: &Fs<&File>, ino: u32, inode: &Inode, raw: &mut [u8]) -> Result<()> {
    let sum = csum::inode(fs.fs_seed(), ino, inode.generation, raw);
    raw[CHECKSUM_LOW..CHECKSUM_LOW + 2].copy_from_slice(&sum.to_le_bytes()[..2]);
    raw[CHECKSUM_HIGH..CHECKSUM_HIGH + 2].copy_from_slice(&sum.to_le_bytes()[2..]);
    let per_group = fs.superblock().inodes_per_group;
    let (group, at) = (u64::from((ino - 1) / per_group), u64::from((ino - 1) % per_group));
    let table = fs.group_desc(group)?.inode_table * mkext4::spec::BLOCK_SIZE as u64;
    Ok(image.write_all_at(raw, table + at * raw.len() as u64)?)
}

fn restore_target(image: &File, fs: &Fs<&File>, ino: u32, target: &[u8]) -> Result<()> {
    let inode = fs.inode(ino)?;
    if inode.fast_symlink_target().is_some() {
        let mut raw = fs.inode_raw(ino)?;
        raw[BLOCKS..BLOCKS + target.len()].copy_from_slice(target);
        return put_inode(image, fs, ino, &inode, &mut raw);
    }
    let extents = fs.extents(ino, &inode)?;
    let block = fs.file_block(&extents, 0).ok_or_else(|| damaged("a link has no target"))?;
    Ok(image.write_all_at(target, block * mkext4::spec::BLOCK_SIZE as u64)?)
}

fn restore_names(
    image: &File,
    fs: &Fs<&File>,
    ino: u32,
    names: &HashMap<String, Name>,
) -> Result<()> {
    let inode = fs.inode(ino)?;
    let extents: Vec<FileExtent> = fs.extents(ino, &inode)?;
    let block_bytes = mkext4::spec::BLOCK_SIZE as u64;
    let seed = csum::inode_seed(fs.fs_seed(), ino, inode.generation);
    let indexed = inode.flags & iflags::INDEX != 0;
    for logical in 0..inode.size / block_bytes {
        let place =
            fs.file_block(&extents, logical).ok_or_else(|| damaged("a folder has a hole"))?;
        let mut block = fs.read_block(place)?;
        if indexed {
            make_linear(&mut block, logical);
        }
        let tail = block.len() - TAIL;
        block[tail..].copy_from_slice(&[0, 0, 0, 0, TAIL as u8, 0, 0, 0xde, 0, 0, 0, 0]);
        rename(&mut block, names)?;
        let sum = csum::dirent_block(seed, &block);
        block[tail + 8..].copy_from_slice(&sum.to_le_bytes());
        image.write_all_at(&block, place * block_bytes)?;
    }
    if indexed {
        let mut raw = fs.inode_raw(ino)?;
        let flags = inode.flags & !iflags::INDEX;
        raw[FLAGS..FLAGS + 4].copy_from_slice(&flags.to_le_bytes());
        put_inode(image, fs, ino, &inode, &mut raw)?;
    }
    Ok(())
}

/// Turns an index block into a block without entries except `.` and `..`; keeps other blocks.
fn make_linear(block: &mut [u8], logical: u64) {
    let spans_all = block[..4] == [0; 4]
        && usize::from(u16::from_le_bytes([block[4], block[5]])) == block.len();
    let used = match logical {
        // `.` takes 12 bytes; the header and the name of `..` follow.
        0 => 24,
        _ if spans_all => 8,
        _ => return,
    };
    block[used..].fill(0);
    let last_entry = if logical == 0 { 12 } else { 0 };
    let length = (block.len() - TAIL - last_entry) as u16;
    block[last_entry + 4..last_entry + 6].copy_from_slice(&length.to_le_bytes());
}

fn rename(block: &mut [u8], names: &HashMap<String, Name>) -> Result<()> {
    let mut changes = Vec::new();
    for entry in DirentIter::new(block) {
        let entry = entry?;
        let text = std::str::from_utf8(entry.name).ok();
        if let Some(name) = text.and_then(|text| names.get(text)) {
            changes.push((entry.offset + 8, name));
        }
    }
    for (at, name) in changes {
        block[at..at + name.len()].copy_from_slice(name);
    }
    Ok(())
}
