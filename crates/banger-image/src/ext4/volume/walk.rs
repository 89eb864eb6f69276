//! Reads the names of a file system into a tree, and the contents of its files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read};

use mkext4::spec::{Inode, ROOT_INO, inode::FileType};

use super::{Volume, VolumeError, damaged};
use crate::ext4::tree::{Kind, Meta, Tree};
use crate::ext4::{Ext4Error, Fill, Inspect};

/// Names of a file system.
pub struct Walked {
    /// The tree.
    pub tree: Tree,
    /// Inodes of the files, in order.
    pub files: Vec<u32>,
    /// Number of sockets, which are left out.
    pub sockets: u64,
}

/// State of a walk.
struct Walk {
    walked: Walked,
    folders: HashSet<u32>,
    /// First names of files that may have several.
    names: HashMap<u32, Vec<u8>>,
    /// Files with one name.
    single: HashSet<u32>,
}

impl Volume {
    /// Reads all names from the root; calls `inspect` with each file before it is added.
    ///
    /// # Errors
    /// A damaged file system; errors of `inspect`.
    pub fn walk(&self, inspect: &mut Inspect<'_>) -> Result<Walked, Ext4Error> {
        self.visits.set(0);
        let walked = Walked { tree: Tree::new(), files: Vec::new(), sockets: 0 };
        let (folders, names) = (HashSet::new(), HashMap::new());
        let mut walk = Walk { walked, folders, names, single: HashSet::new() };
        let mut todo = vec![(ROOT_INO, Vec::new())];
        while let Some((number, path)) = todo.pop() {
            let (inode, raw) = self.inode(number)?;
            if inode.file_type() != FileType::Dir {
                if number == ROOT_INO {
                    return Err(damaged("its root is no folder").into());
                }
                self.add(&mut walk, number, &path, (&inode, &raw), inspect)?;
                continue;
            }
            if !walk.folders.insert(number) {
                return Err(damaged(format!("the folder {number} has two names")).into());
            }
            let tree = &mut walk.walked.tree;
            let id = tree.put(&path, Kind::Folder(BTreeMap::new()), meta(&inode))?;
            tree.set_xattrs(id, self.xattrs(&inode, &raw)?.into_iter().collect())?;
            for (name, below) in self.names(&inode)? {
                // Each file system has its own.
                if path.is_empty() && name == b"lost+found" {
                    continue;
                }
                let path = if path.is_empty() { name } else { [&path, &b"/"[..], &name].concat() };
                todo.push((below, path));
            }
        }
        walk.walked.files.sort_unstable();
        Ok(walk.walked)
    }

    fn add(
        &self,
        walk: &mut Walk,
        number: u32,
        path: &[u8],
        (inode, raw): (&Inode, &[u8]),
        inspect: &mut Inspect<'_>,
    ) -> Result<(), Ext4Error> {
        let Walk { walked, names, single, .. } = walk;
        if inode.file_type() == FileType::Socket {
            walked.sockets += 1;
            return Ok(());
        }
        if let Some(first) = names.get(&number) {
            walked.tree.link(path, first)?;
            return Ok(());
        }
        if inode.links_count > 1 {
            names.insert(number, path.to_vec());
        } else if !single.insert(number) {
            return Err(damaged(format!("the inode {number} has more names than links")).into());
        }
        let (major, minor) = inode.dev_numbers().unwrap_or_default();
        let kind = match inode.file_type() {
            FileType::Regular => {
                let runs = self.runs(inode)?;
                let content = self.content(u64::from(number), inode.size, &runs);
                let data = self.data(inode.size, &runs);
                inspect(path, &content, &mut self.reader(&runs, &data))?;
                walked.files.push(number);
                Kind::File(content)
            }
            FileType::Symlink => Kind::Symlink(self.target(inode)?),
            FileType::CharDev => Kind::Char { major, minor },
            FileType::BlockDev => Kind::Block { major, minor },
            FileType::Fifo => Kind::Fifo,
            _ => return Err(damaged(format!("the inode {number} has no known type")).into()),
        };
        let id = walked.tree.put(path, kind, meta(inode))?;
        walked.tree.set_xattrs(id, self.xattrs(inode, raw)?.into_iter().collect())?;
        Ok(())
    }

    /// The content of the file at a path without symbolic links; `None` if there is none, or if it
    /// has more than `limit` bytes.
    ///
    /// # Errors
    /// A damaged file system.
    pub fn read_file(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>, VolumeError> {
        self.visits.set(0);
        let mut inode = self.inode(ROOT_INO)?.0;
        for part in path.split(|byte| *byte == b'/') {
            if inode.file_type() != FileType::Dir {
                return Ok(None);
            }
            let names = self.names(&inode)?;
            let Some((_, number)) = names.iter().find(|(name, _)| name == part) else {
                return Ok(None);
            };
            inode = self.inode(*number)?.0;
        }
        if inode.file_type() != FileType::Regular || inode.size > limit {
            return Ok(None);
        }
        let runs = self.runs(&inode)?;
        let mut content = Vec::new();
        let whole = [super::blocks::whole(inode.size)];
        self.reader(&runs, &whole).read_to_end(&mut content).map_err(VolumeError::Read)?;
        Ok(Some(content))
    }

    /// Calls `fill` with the contents of these files.
    ///
    /// # Errors
    /// A damaged file system; errors of `fill`.
    pub fn contents(&self, files: &[u32], fill: &mut Fill<'_>) -> Result<(), Ext4Error> {
        self.visits.set(0);
        for number in files {
            let (inode, _) = self.inode(*number)?;
            let runs = self.runs(&inode)?;
            let data = self.data(inode.size, &runs);
            let mut reader = io::BufReader::with_capacity(1 << 17, self.reader(&runs, &data));
            fill(u64::from(*number), &mut reader)?;
        }
        Ok(())
    }
}

fn meta(inode: &Inode) -> Meta {
    let (mtime_s, mtime_ns) = Inode::timestamp(inode.mtime, inode.mtime_extra);
    let mtime_ns = if mtime_ns < 1_000_000_000 { mtime_ns } else { 0 };
    Meta { mode: inode.mode & 0o7777, uid: inode.uid, gid: inode.gid, mtime_s, mtime_ns }
}

impl From<VolumeError> for io::Error {
    fn from(error: VolumeError) -> Self {
        match error {
            VolumeError::Read(source) => source,
            other => Self::other(other),
        }
    }
}
