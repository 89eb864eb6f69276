//! Files of a folder of the host, and of an image, in comparable form.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use mkext4::reader::Fs;
use mkext4::spec::inode::FileType;

/// A file or folder, as far as an archive can tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime_s: i64,
    pub mtime_ns: u32,
    /// Attributes but access lists and labels of SELinux.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Content, target or device number.
    pub content: Vec<u8>,
    /// Which of several names of one file this is: the first of them.
    pub same_as: Option<Vec<u8>>,
}

pub type Listing = BTreeMap<Vec<u8>, Seen>;

/// Gives all names of one file the first of them.
fn link_names(listing: &mut Listing, inodes: &HashMap<Vec<u8>, u64>) {
    let mut first = HashMap::new();
    for (path, seen) in listing.iter_mut().filter(|(_, seen)| seen.kind != "folder") {
        let known = first.entry(inodes[path]).or_insert_with(|| path.clone());
        seen.same_as = (known != path).then(|| known.clone());
    }
}

fn is_compared(name: &str) -> bool {
    !name.starts_with("system.") && name != "security.selinux"
}

fn host_xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap_or_default();
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let names = names.map(|name| String::from_utf8(name.to_vec()).unwrap());
    let value = |name: &String| {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, name.as_str(), &mut value).unwrap();
        value[..length].to_vec()
    };
    names.filter(|name| is_compared(name)).map(|name| (name.clone(), value(&name))).collect()
}

fn image_xattrs(fs: &Fs<&fs::File>, ino: u32) -> BTreeMap<String, Vec<u8>> {
    let named = fs
        .xattrs(ino)
        .unwrap()
        .into_iter()
        .map(|entry| (String::from_utf8(entry.full_name().unwrap()).unwrap(), entry.value));
    named.filter(|(name, _)| is_compared(name)).collect()
}

pub fn on_host(folder: &Path) -> Listing {
    let (mut listing, mut inodes) = (Listing::new(), HashMap::new());
    let mut todo = vec![(folder.to_owned(), Vec::new())];
    while let Some((path, name)) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        // No source of an image has sockets.
        if kind.is_socket() {
            continue;
        }
        let device = || meta.rdev().to_le_bytes().to_vec();
        let (kind, content) = if kind.is_dir() {
            for entry in fs::read_dir(&path).unwrap().map(Result::unwrap) {
                let below = [&name[..], b"/", entry.file_name().as_bytes()].concat();
                todo.push((entry.path(), below));
            }
            ("folder", Vec::new())
        } else if kind.is_symlink() {
            ("link", fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
        } else if kind.is_char_device() {
            ("char", device())
        } else if kind.is_block_device() {
            ("block", device())
        } else if kind.is_fifo() {
            ("fifo", Vec::new())
        } else {
            ("file", fs::read(&path).unwrap())
        };
        let seen = Seen {
            kind,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime_s: meta.mtime(),
            mtime_ns: meta.mtime_nsec() as u32,
            xattrs: host_xattrs(&path),
            content,
            same_as: None,
        };
        inodes.insert(name.clone(), meta.ino());
        listing.insert(name, seen);
    }
    link_names(&mut listing, &inodes);
    listing
}

pub fn in_image(disk: &Path) -> Listing {
    let file = fs::File::open(disk).unwrap();
    let fs = Fs::open(&file).unwrap();
    let (mut listing, mut inodes) = (Listing::new(), HashMap::new());
    let mut todo = vec![(mkext4::spec::ROOT_INO, Vec::new())];
    while let Some((ino, name)) = todo.pop() {
        let inode = fs.inode(ino).unwrap();
        let device = || {
            let (major, minor) = inode.dev_numbers().unwrap();
            rustix::fs::makedev(major, minor).to_le_bytes().to_vec()
        };
        let (kind, content) = match inode.file_type() {
            FileType::Dir => {
                for entry in fs.read_dir(ino).unwrap() {
                    let own = name.is_empty() && entry.name == b"lost+found";
                    if entry.name != b"." && entry.name != b".." && !own {
                        todo.push((entry.inode, [&name[..], b"/", &entry.name].concat()));
                    }
                }
                ("folder", Vec::new())
            }
            FileType::Symlink => ("link", fs.symlink_target(ino).unwrap()),
            FileType::CharDev => ("char", device()),
            FileType::BlockDev => ("block", device()),
            FileType::Fifo => ("fifo", Vec::new()),
            _ => ("file", fs.read_file(ino).unwrap()),
        };
        let (mtime_s, mtime_ns) = mkext4::spec::Inode::timestamp(inode.mtime, inode.mtime_extra);
        let seen = Seen {
            kind,
            mode: u32::from(inode.mode) & 0o7777,
            owner: (inode.uid, inode.gid),
            mtime_s,
            mtime_ns,
            xattrs: image_xattrs(&fs, ino),
            content,
            same_as: None,
        };
        inodes.insert(name.clone(), u64::from(ino));
        listing.insert(name, seen);
    }
    link_names(&mut listing, &inodes);
    listing
}

/// What cannot be compared: an ordinary user's tar gives everything to that user and makes no
/// devices; the modes of links are the host's; the machine-id is emptied.
pub fn comparable(mut listing: Listing) -> Listing {
    let root = rustix::process::geteuid().is_root();
    listing.retain(|_, seen| root || !["char", "block"].contains(&seen.kind));
    for seen in listing.values_mut() {
        if !root {
            seen.owner = (0, 0);
        }
        if seen.kind == "link" {
            seen.mode = 0o777;
        }
    }
    listing
}
