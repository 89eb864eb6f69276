//! Writes a tree as an ext4 image: no root, no mount, the same bytes for the same input.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use mkext4::{
    FsBuilder, InodeCount, InodeHandle, Layout, Options, RegionSink, SparseSeg, SpecialKind,
};

use super::raw_names::RawNames;
use super::tree::{Content, Extent, Kind, Meta, NodeId, ROOT, Tree};
use super::{Contents, Ext4Error};
use crate::fetch::PathContext;

/// Block size in bytes.
const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;

/// Purpose of an image; determines its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Mounted read-only: the smallest possible size.
    ReadOnly,
    /// A root disk: the lower layer of an overlay, or copied and grown by the guest to any size. It
    /// has free space in case it is not grown, a journal for the grown size, and mke2fs's ratio of
    /// inodes, which resize2fs keeps.
    Root,
}

/// Parameters of an image.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Purpose.
    pub purpose: Purpose,
    /// Label, at most 16 bytes.
    pub label: String,
    /// UUID of the file system, derived from the source so that equal sources make equal images.
    pub uuid: [u8; 16],
}

/// Size of the whole image in bytes, and its number of inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    bytes: u64,
    inodes: u32,
    journal_blocks: u32,
}

/// Bytes of the blocks of data and folders, and the number of inodes.
fn needed(tree: &Tree) -> (u64, u64) {
    let (mut blocks, mut inodes) = (0, 0);
    for node in tree.live() {
        inodes += 1;
        blocks += match &node.kind {
            Kind::File(content) => content.stored_bytes().div_ceil(BLOCK),
            // 8 bytes and the name for each, half-full blocks where the index splits them.
            Kind::Folder(names) => {
                let bytes: usize = names.keys().map(|name| name.len() + 12).sum();
                (bytes as u64 * 2).div_ceil(BLOCK) + 1
            }
            Kind::Symlink(target) if target.len() > 59 => 1,
            _ => 0,
        };
        blocks += u64::from(!node.xattrs.is_empty());
    }
    (blocks * BLOCK, inodes)
}

/// An estimate, larger with each `attempt`.
fn size(tree: &Tree, purpose: Purpose, attempt: u32) -> Size {
    let (data, nodes) = needed(tree);
    let (slack, ratio) = match purpose {
        Purpose::ReadOnly => (2 * MIB, u64::MAX),
        Purpose::Root => ((data / 8).max(64 * MIB), 16384),
    };
    let inodes = nodes + nodes / 8 + 64;
    let journal_blocks = match purpose {
        Purpose::ReadOnly => 1024,
        Purpose::Root if data > 256 * MIB => 8192,
        Purpose::Root => 4096,
    };
    // The inode table, the journal, and 1 in 64 for bitmaps, descriptors and extents.
    let fixed = |inodes: u64| inodes * 256 + u64::from(journal_blocks) * BLOCK;
    let bytes = (data + data / 64 + slack + fixed(inodes)) * u64::from(8 + attempt) / 8;
    let bytes = bytes.max(64 * MIB).next_multiple_of(MIB);
    let inodes = inodes.max(bytes / ratio);
    // The journal may take at most a quarter.
    Size { bytes, inodes: u32::try_from(inodes).unwrap_or(u32::MAX), journal_blocks }
}

/// Number of larger sizes to try after the first.
const ATTEMPTS: u32 = 8;

/// Writes the image of `tree` to the new file `path`, mode 0600; returns its length in bytes.
///
/// # Errors
/// ext4 cannot represent the tree; contents that end early; write(2).
pub fn build(
    tree: &Tree,
    contents: &mut dyn Contents,
    plan: &Plan,
    path: &Path,
) -> Result<u64, Ext4Error> {
    let mut attempt = 0;
    let (layout, handles, raw_names) = loop {
        let declared = declare(tree, plan, size(tree, plan.purpose, attempt));
        match declared.and_then(|all| Ok((all.builder.seal()?, all.handles, all.raw_names))) {
            Ok(sealed) => break sealed,
            // "Out of space" has no variant of its own; other errors recur with the next size.
            Err(mkext4::Error::Invalid(_) | mkext4::Error::Unsupported(_))
                if attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            Err(error) => return Err(Ext4Error::Build(error)),
        }
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(path).at("create", path)?;
    file.set_len(layout.image_len()).at("write", path)?;
    let written = write(tree, contents, &layout, &handles, &file);
    let written = written.and_then(|()| Ok(raw_names.restore(&file)?));
    written.map_err(|error| match error {
        Ext4Error::Build(mkext4::Error::Io(source)) => {
            crate::fetch::FetchError::io("write", path, source).into()
        }
        other => other,
    })?;
    Ok(layout.image_len())
}

fn write(
    tree: &Tree,
    contents: &mut dyn Contents,
    layout: &Layout,
    handles: &HashMap<NodeId, InodeHandle>,
    file: &File,
) -> Result<(), Ext4Error> {
    let mut writer = layout.writer(Sparse { file })?;
    let mut by_entry = HashMap::new();
    for (id, handle) in handles {
        match &tree.node(*id).kind {
            Kind::File(Content::Inline(bytes)) if !bytes.is_empty() => {
                writer.fill(*handle, &mut bytes.as_slice())?;
            }
            Kind::File(Content::Source { index, bytes: 1.. }) => {
                by_entry.insert(*index, *handle);
            }
            Kind::File(Content::Sparse { index, data, .. }) if !data.is_empty() => {
                by_entry.insert(*index, *handle);
            }
            _ => {}
        }
    }
    contents.each(&mut |index, reader| {
        if let Some(handle) = by_entry.remove(&index) {
            writer.fill(handle, &mut SizedReader(reader))?;
        }
        Ok(())
    })?;
    writer.finish()?;
    Ok(())
}

/// Wraps an unsized reader, because `fill` takes a sized one.
struct SizedReader<'a>(&'a mut dyn io::Read);

impl io::Read for SizedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// A tree declared to the writer.
struct Declared {
    builder: FsBuilder,
    handles: HashMap<NodeId, InodeHandle>,
    raw_names: RawNames,
}

fn declare(tree: &Tree, plan: &Plan, size: Size) -> mkext4::Result<Declared> {
    let newest = tree.live().map(|node| node.meta.mtime_s).max().unwrap_or_default();
    let epoch = newest.clamp(0, i64::from(u32::MAX));
    let mut options = Options::new(size.bytes, plan.uuid, epoch);
    options.label = Some(plan.label.clone());
    options.inodes = InodeCount::Exact(size.inodes);
    options.reserved_percent = 0;
    options.journal_blocks = Some(size.journal_blocks);
    let mut builder = FsBuilder::new(options)?;
    let (mut handles, mut raw_names) = (HashMap::from([(ROOT, mkext4::ROOT)]), RawNames::default());
    builder.set_meta(mkext4::ROOT, meta(&tree.node(ROOT).meta))?;
    attributes(&mut builder, tree, ROOT, mkext4::ROOT)?;
    let mut todo = vec![(ROOT, Vec::new())];
    while let Some((folder, path)) = todo.pop() {
        let (Kind::Folder(names), Some(parent)) =
            (&tree.node(folder).kind, handles.get(&folder).copied())
        else {
            continue;
        };
        let texts = raw_names.texts(&path, names);
        for (name, id) in names {
            // mkfs creates this folder.
            if folder == ROOT && **name == *b"lost+found" {
                continue;
            }
            let text = texts.of(name)?;
            if let Some(known) = handles.get(id) {
                builder.hardlink(parent, text, *known)?;
                continue;
            }
            let path = [&path, b"/".as_slice(), text.as_bytes()].concat();
            let handle = match &tree.node(*id).kind {
                Kind::Symlink(target) => {
                    let target = raw_names.target(&path, target);
                    builder.symlink(parent, text, &target, meta(&tree.node(*id).meta))?
                }
                _ => declare_one(&mut builder, tree, *id, parent, text)?,
            };
            attributes(&mut builder, tree, *id, handle)?;
            handles.insert(*id, handle);
            if matches!(tree.node(*id).kind, Kind::Folder(_)) {
                todo.push((*id, path));
            }
        }
    }
    Ok(Declared { builder, handles, raw_names })
}

fn declare_one(
    builder: &mut FsBuilder,
    tree: &Tree,
    id: NodeId,
    parent: InodeHandle,
    name: &str,
) -> mkext4::Result<InodeHandle> {
    let node = tree.node(id);
    let meta = meta(&node.meta);
    let special = match &node.kind {
        Kind::Folder(_) => return builder.mkdir(parent, name, meta),
        Kind::File(Content::Sparse { bytes, data, .. }) => {
            return builder.file_sparse(parent, name, meta, &segments(*bytes, data));
        }
        Kind::File(content) => return builder.file(parent, name, meta, content.bytes()),
        Kind::Symlink(_) => {
            return Err(mkext4::Error::Invalid("a symbolic link without a target".into()));
        }
        Kind::Char { major, minor } => SpecialKind::Char { major: *major, minor: *minor },
        Kind::Block { major, minor } => SpecialKind::Block { major: *major, minor: *minor },
        Kind::Fifo => SpecialKind::Fifo,
    };
    builder.mknod(parent, name, meta, special)
}

/// Alternating data and holes of a sparse file.
fn segments(bytes: u64, data: &[Extent]) -> Vec<SparseSeg> {
    let (mut segments, mut at) = (Vec::new(), 0);
    for extent in data {
        if extent.offset > at {
            segments.push(SparseSeg::Hole(extent.offset - at));
        }
        segments.push(SparseSeg::Data(extent.bytes));
        at = extent.offset + extent.bytes;
    }
    if bytes > at {
        segments.push(SparseSeg::Hole(bytes - at));
    }
    segments
}

fn attributes(
    builder: &mut FsBuilder,
    tree: &Tree,
    id: NodeId,
    handle: InodeHandle,
) -> mkext4::Result<()> {
    for (name, value) in &tree.node(id).xattrs {
        builder.set_xattr(handle, name, value)?;
    }
    Ok(())
}

fn meta(meta: &Meta) -> mkext4::Meta {
    mkext4::Meta::new(meta.mode, meta.uid, meta.gid, (meta.mtime_s, meta.mtime_ns))
}

/// Writes into a new sparse file: blocks of zeros stay holes.
struct Sparse<'a> {
    file: &'a File,
}

impl RegionSink for Sparse<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let zeros = run(rest, true);
            at += zeros;
            let data = run(&bytes[at..], false);
            self.file.write_all_at(&bytes[at..at + data], offset + at as u64)?;
            at += data;
        }
        Ok(())
    }

    fn zeros(&mut self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Length of the leading blocks of `bytes` that are all zero (or, if not `zero`, are not).
fn run(bytes: &[u8], zero: bool) -> usize {
    bytes
        .chunks(BLOCK as usize)
        .take_while(|block| block.iter().all(|byte| *byte == 0) == zero)
        .map(<[u8]>::len)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_blocks_are_detected() {
        let mut bytes = vec![0; 3 * 4096];
        bytes[5000] = 1;
        assert_eq!(run(&bytes, true), 4096);
        assert_eq!(run(&bytes[4096..], false), 4096);
        assert_eq!(run(&bytes[8192..], true), 4096);
        assert_eq!(run(&[], true), 0);
    }

    #[test]
    fn an_estimate_grows_and_keeps_the_journal_below_a_quarter() {
        let tree = Tree::new();
        for purpose in [Purpose::ReadOnly, Purpose::Root] {
            let first = size(&tree, purpose, 0);
            assert!(size(&tree, purpose, 4).bytes >= first.bytes);
            assert!(u64::from(first.journal_blocks) * BLOCK * 4 <= first.bytes);
        }
    }
}
