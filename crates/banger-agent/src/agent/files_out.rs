//! `GET /files`: packs a file or a folder into a tar stream, without following any symlink below
//! the path that was asked for. Names in the stream begin with the path's last part, as `tar -C
//! parent name` makes them.
//!
//! Kept: what [`super::files_in`] keeps, except that hard links come as files of their own.
//! Sockets are left out, and of /proc, /sys and their kin only the empty folder is packed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::http::Refusal;
use crate::beneath::{Folder, Links, MAX_DEPTH};

/// File systems that only look like files: proc, sysfs, cgroup2, devpts, debugfs, tracefs,
/// securityfs, bpf (`linux/magic.h`).
const KERNEL_FILE_SYSTEMS: [u64; 8] =
    [0x9fa0, 0x6265_6572, 0x6367_7270, 0x1cd1, 0x6462_6720, 0x7472_6163, 0x7363_6673, 0xcafe_4a11];

/// What will be packed.
pub struct Source {
    fd: OwnedFd,
    /// Name of the top entry.
    name: Vec<u8>,
}

/// Opens what `path` names, through symlinks.
///
/// # Errors
/// 404 where there is nothing, 400 for a path that has no name.
pub fn open(path: &[u8]) -> Result<Source, Refusal> {
    let shown = String::from_utf8_lossy(path);
    let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    let name = parts.next_back().unwrap_or(b".").to_vec();
    if name == b".." {
        return Err(Refusal::bad(format!("`{shown}` does not end in a name")));
    }
    match fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Source { fd, name }),
        Err(Errno::NOENT | Errno::NOTDIR) => {
            Err(Refusal::new(404, format!("the guest has no `{shown}`")))
        }
        Err(errno) => Err(Refusal::new(500, format!("cannot open `{shown}`: {errno}"))),
    }
}

/// Writes the archive.
///
/// # Errors
/// The receiver's, or a disk's that cannot be read. Files that vanish meanwhile are left out.
pub fn pack(source: Source, to: &mut impl Write) -> io::Result<()> {
    let mut packer = Packer { builder: Builder::new(io::BufWriter::with_capacity(64 * 1024, to)) };
    let stat = fs::fstat(&source.fd)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            packer.folder(&Folder::from_fd(source.fd), &source.name, &stat, 0)?;
        }
        FileType::RegularFile => {
            // The handle is only a name; /proc turns it into the file itself.
            use std::os::fd::AsRawFd as _;
            let file = File::open(format!("/proc/self/fd/{}", source.fd.as_raw_fd()))?;
            packer.file(file, &source.name, &stat)?;
        }
        kind => packer.special(kind, &source.name, &stat)?,
    }
    packer.builder.into_inner()?.flush()
}

struct Packer<W: Write> {
    builder: Builder<W>,
}

impl<W: Write> Packer<W> {
    fn folder(
        &mut self,
        folder: &Folder,
        path: &[u8],
        stat: &Stat,
        depth: usize,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("folders are nested too deep"));
        }
        let mut header = header(stat, EntryType::Directory, 0);
        let named = [path, b"/"].concat();
        self.builder.append_data(&mut header, to_path(&named), io::empty())?;
        if is_kernel_file_system(folder)? {
            return Ok(());
        }
        for name in crate::boot::names(folder)? {
            match self.entry(folder, &name, &[path, b"/", &name].concat(), depth) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, folder: &Folder, name: &[u8], path: &[u8], depth: usize) -> io::Result<()> {
        let stat = fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let inner = folder.folder(name, Links::Refuse)?;
                self.folder(&inner, path, &stat, depth + 1)
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                let file = File::from(folder.open_beneath(name, flags, Links::Refuse)?);
                self.file(file, path, &stat)
            }
            FileType::Symlink => {
                let target = fs::readlinkat(folder, name, Vec::new())?;
                let mut header = header(&stat, EntryType::Symlink, 0);
                self.builder.append_link(&mut header, to_path(path), to_path(target.to_bytes()))
            }
            kind => self.special(kind, path, &stat),
        }
    }

    /// The size was promised before the content: what is written meanwhile is left out, what is
    /// cut off meanwhile comes as zeros.
    fn file(&mut self, file: File, path: &[u8], stat: &Stat) -> io::Result<()> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = header(stat, EntryType::Regular, size);
        let content = file.chain(io::repeat(0)).take(size);
        self.builder.append_data(&mut header, to_path(path), content)
    }

    fn special(&mut self, kind: FileType, path: &[u8], stat: &Stat) -> io::Result<()> {
        let kind = match kind {
            FileType::Fifo => EntryType::Fifo,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            _ => return Ok(()),
        };
        let mut header = header(stat, kind, 0);
        header.set_device_major(fs::major(stat.st_rdev))?;
        header.set_device_minor(fs::minor(stat.st_rdev))?;
        self.builder.append_data(&mut header, to_path(path), io::empty())
    }
}

fn header(stat: &Stat, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header
}

fn to_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn is_kernel_file_system(folder: impl AsFd) -> io::Result<bool> {
    let kind = fs::fstatfs(folder)?.f_type as u64;
    Ok(KERNEL_FILE_SYSTEMS.contains(&(kind & 0xffff_ffff)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    use super::*;

    fn packed(path: &Path) -> BTreeMap<String, (EntryType, Vec<u8>)> {
        let mut bytes = Vec::new();
        pack(open(path.as_os_str().as_bytes()).unwrap(), &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let kind = entry.header().entry_type();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (name, (kind, content))
        });
        entries.collect()
    }

    #[test]
    fn a_folder_comes_under_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        let long = "n".repeat(150);
        std::fs::create_dir_all(top.join(&long)).unwrap();
        std::fs::write(top.join(&long).join("file"), "content").unwrap();
        symlink("/etc/passwd", top.join("link")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap();
        let entries = packed(&top);
        drop(socket);
        let names: Vec<_> = entries.keys().cloned().collect();
        let wanted = ["top/", "top/link", &format!("top/{long}/"), &format!("top/{long}/file")];
        assert_eq!(names, wanted);
        assert_eq!(entries[&format!("top/{long}/file")].1, b"content");
        assert_eq!(entries["top/link"].0, EntryType::Symlink);
    }

    #[test]
    fn a_single_file_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "content").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        let entries = packed(&dir.path().join("link"));
        assert_eq!(entries["link"], (EntryType::Regular, b"content".to_vec()));
    }

    #[test]
    fn packed_data_can_be_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("a/b/file"), "content").unwrap();
        let mut bytes = Vec::new();
        pack(open(from.as_os_str().as_bytes()).unwrap(), &mut bytes).unwrap();
        let folder = super::super::files_in::open(to.as_os_str().as_bytes()).unwrap();
        super::super::files_in::unpack(&folder, bytes.as_slice()).unwrap();
        assert_eq!(std::fs::read(to.join("from/a/b/file")).unwrap(), b"content");
    }

    #[test]
    fn proc_is_only_a_folder() {
        let entries = packed(Path::new("/proc"));
        assert_eq!(entries.keys().collect::<Vec<_>>(), ["proc/"]);
    }

    #[test]
    fn paths_without_a_name() {
        assert_eq!(open(b"/tmp/..").err().unwrap().status, 400);
        assert_eq!(open(b"/nowhere/at/all").err().unwrap().status, 404);
        assert_eq!(open(b"/").unwrap().name, b".");
    }
}
