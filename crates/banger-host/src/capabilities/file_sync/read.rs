//! Reads a file or folder of the host within limits. Symbolic links inside a folder are not
//! followed and not copied.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

use banger_agent_proto::boot::{GuestFile, WriteWhen};
use banger_archive::beneath::{Folder, Links};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::{Dir, FileType, OFlags};

use crate::handover::SyncedFile;

/// Bytes of all files of a start: with base64 they fit in the configuration of a guest
/// (`MAX_CONFIG_LINE`).
pub const MAX_BYTES: u64 = 8 << 20;
/// Files of a start.
pub const MAX_FILES: usize = 2000;
/// Folders in each other.
const MAX_DEPTH: usize = 32;
/// Names of a folder that are looked at.
const MAX_NAMES: usize = 20_000;

/// What is left of the limits of a start.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    bytes: u64,
    files: usize,
    names: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: MAX_BYTES, files: MAX_FILES, names: MAX_NAMES }
    }
}

/// A file or folder that was read.
#[derive(Debug, Default)]
pub struct Found {
    /// Files for the guest.
    pub files: Vec<GuestFile>,
    /// What was left out, in words.
    pub left_out: Vec<String>,
}

/// Why there is nothing to copy.
#[derive(Debug)]
pub enum Trouble {
    /// It does not exist.
    Missing,
    /// The system's reason.
    Unreadable(io::Error),
    /// It is something else or too large, in words that follow its name.
    Refused(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Unreadable(error),
        }
    }
}

impl From<rustix::io::Errno> for Trouble {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// Reads an entry whole, or nothing of it. A link at its end is followed.
///
/// # Errors
/// The reason why nothing of it can be copied.
pub fn read(synced: &SyncedFile, budget: &mut Budget) -> Result<Found, Trouble> {
    // Does not wait for the writer of a named pipe.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let top = OpenOptions::new().read(true).custom_flags(flags).open(&synced.host)?;
    let meta = top.metadata()?;
    let mut reader = Reader { synced, left: *budget, found: Found::default(), skipped: [0; 4] };
    if meta.is_dir() {
        reader.folder(top.into())?;
    } else if meta.is_file() {
        reader.file(top, &meta, synced.guest.clone())?;
    } else {
        return Err(Trouble::Refused("is neither a file nor a folder".into()));
    }
    *budget = reader.left;
    Ok(reader.finish())
}

/// What is left out of a folder.
#[derive(Clone, Copy)]
enum Skipped {
    Link,
    Special,
    Name,
    Unreadable,
}

struct Reader<'a> {
    synced: &'a SyncedFile,
    left: Budget,
    found: Found,
    /// Counts by [`Skipped`].
    skipped: [u64; 4],
}

impl Reader<'_> {
    fn folder(&mut self, top: OwnedFd) -> Result<(), Trouble> {
        let mut levels = vec![(Folder::from_fd(top), self.synced.guest.clone())];
        while let Some((folder, path)) = levels.pop() {
            let handle =
                folder.open_beneath(b".", OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse)?;
            for name in self.names(handle)? {
                let Ok(text) = std::str::from_utf8(&name) else {
                    self.skip(Skipped::Name);
                    continue;
                };
                let path = format!("{path}/{text}");
                match folder.kind_of(&name) {
                    Some(FileType::Directory) => match folder.folder(&name, Links::Refuse) {
                        Ok(inner) if is_readable(&inner) => {
                            if path.matches('/').count() > MAX_DEPTH {
                                let why =
                                    format!("has more than {MAX_DEPTH} folders in each other");
                                return Err(Trouble::Refused(why));
                            }
                            levels.push((inner, path));
                        }
                        _ => self.skip(Skipped::Unreadable),
                    },
                    Some(FileType::RegularFile) => {
                        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                        match folder.open_beneath(&name, flags, Links::Refuse).map(File::from) {
                            Ok(file) => {
                                let meta = file.metadata()?;
                                self.file(file, &meta, path)?;
                            }
                            Err(_) => self.skip(Skipped::Unreadable),
                        }
                    }
                    Some(FileType::Symlink) => self.skip(Skipped::Link),
                    Some(_) => self.skip(Skipped::Special),
                    // It has vanished meanwhile.
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Names in a folder, sorted.
    fn names(&mut self, folder: OwnedFd) -> Result<Vec<Vec<u8>>, Trouble> {
        let mut names = Vec::new();
        for entry in Dir::new(folder)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            self.left.names = self.left.names.checked_sub(1).ok_or_else(too_many)?;
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    fn file(&mut self, file: File, meta: &Metadata, guest: String) -> Result<(), Trouble> {
        if !meta.is_file() {
            self.skip(Skipped::Special);
            return Ok(());
        }
        // A sparse file may claim any size.
        if meta.len() > self.left.bytes {
            return Err(too_large());
        }
        let mut content = Vec::new();
        file.take(self.left.bytes + 1).read_to_end(&mut content)?;
        self.left.bytes =
            self.left.bytes.checked_sub(content.len() as u64).ok_or_else(too_large)?;
        self.left.files = self.left.files.checked_sub(1).ok_or_else(too_many)?;
        let mode = self.synced.mode.unwrap_or(meta.permissions().mode() & 0o777);
        let content = BASE64.encode(content);
        self.found.files.push(GuestFile {
            path: guest,
            mode,
            uid: 0,
            gid: 0,
            content,
            when: WriteWhen::Always,
        });
        Ok(())
    }

    fn skip(&mut self, what: Skipped) {
        if let Some(count) = self.skipped.get_mut(what as usize) {
            *count += 1;
        }
    }

    fn finish(mut self) -> Found {
        let words = [
            ("symbolic link", "symbolic links"),
            ("special file", "special files"),
            ("name that is not UTF-8", "names that are not UTF-8"),
            ("unreadable entry", "unreadable entries"),
        ];
        for (count, (one, many)) in self.skipped.iter().zip(words) {
            match count {
                0 => {}
                1 => self.found.left_out.push(format!("one {one}")),
                count => self.found.left_out.push(format!("{count} {many}")),
            }
        }
        self.found
    }
}

fn is_readable(folder: &Folder) -> bool {
    folder.open_beneath(b".", OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse).is_ok()
}

fn too_large() -> Trouble {
    let mib = MAX_BYTES >> 20;
    Trouble::Refused(format!("is too large: all files of a start have at most {mib} MiB"))
}

fn too_many() -> Trouble {
    Trouble::Refused(format!("has too many files: all of a start are at most {MAX_FILES}"))
}
