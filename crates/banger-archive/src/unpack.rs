//! Unpacks an archive beneath a folder. Nothing in the archive, and no symlink in the tree, leads a
//! write out of that folder; every file appears whole or not at all.
//!
//! Kept: content, holes, modes, modification times, symlinks, hard links, named pipes, and numeric
//! owners where requested. Not kept: extended attributes. A folder that exists keeps its own mode,
//! owner and time.

use std::io::{self, Read};

use rustix::fs::{self, Mode, Timestamps};

use crate::beneath::{Folder, Owner, components, split_last};
use crate::entry::{Entry, Kind};
use crate::failure::{Failure, shown};
use crate::new_file::remove_leftovers;
use crate::read::Reader;

mod file;
mod other;

/// Most entries of an archive.
pub const MAX_ENTRIES: u64 = 4_000_000;

/// Most folders that get their mode and time at the end; further ones keep the time of their
/// creation.
const MAX_LATE_FOLDERS: usize = 262_144;

/// Bytes copied at once.
const PIECE: usize = 256 * 1024;

/// Bytes written between two looks at the free space.
const SPACE_STEP: u64 = 16 * 1024 * 1024;

/// Most names of entries that were left out and are reported.
const MAX_NAMED: usize = 8;

/// Who owns what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// The numeric owners of the archive.
    Keep,
    /// The caller.
    Caller,
}

/// Which permission bits of files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetId {
    /// All.
    Keep,
    /// All but set-user-id and set-group-id: the files would run as the caller.
    Drop,
}

/// What happens to devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// They are an error.
    Refuse,
    /// They are left out and counted.
    LeaveOut,
}

/// How names of the archive become names beneath the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Top<'a> {
    /// As they are.
    AsIs,
    /// All begin with the same part, which is replaced by this name.
    Named(&'a [u8]),
}

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Owners.
    pub owners: Owners,
    /// Set-id bits.
    pub set_id: SetId,
    /// Devices.
    pub special: Special,
    /// Names.
    pub top: Top<'a>,
    /// Most entries.
    pub max_entries: u64,
    /// Least space left free on the disk, in bytes.
    pub reserve_bytes: u64,
}

/// What has been unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries.
    pub entries: u64,
    /// Bytes of content, without holes.
    pub bytes: u64,
    /// Devices that were left out.
    pub left_out: u64,
    /// Names of the first of those.
    pub left_out_names: Vec<String>,
}

/// Unpacks the archive `from` beneath `folder`; removes leftovers of killed copies from the folders
/// that it adds to. `done` counts what has arrived, which stays when
/// an error ends it.
///
/// # Errors
/// A malformed or hostile archive, a full disk, a file in the way; the message names the entry.
pub fn unpack(
    folder: &Folder,
    from: impl Read,
    rules: &Rules<'_>,
    done: &mut Unpacked,
) -> Result<(), Failure> {
    remove_leftovers(folder);
    let buffer = vec![0; PIECE];
    let mut unpacker = Unpacker {
        folder,
        rules,
        parent: None,
        top: None,
        late: Vec::new(),
        since_look: 0,
        buffer,
    };
    let mut reader = Reader::new(from);
    let outcome = unpacker.all(&mut reader, done);
    unpacker.end_folders();
    outcome
}

/// A folder that gets its mode and times when its content is there.
struct LateFolder {
    path: Vec<u8>,
    mode: u32,
    times: Timestamps,
}

struct Unpacker<'a> {
    folder: &'a Folder,
    rules: &'a Rules<'a>,
    /// The folder of the last entry: archives come folder by folder.
    parent: Option<(Vec<u8>, Folder)>,
    /// First part of all names, where it is replaced.
    top: Option<Vec<u8>>,
    late: Vec<LateFolder>,
    /// Bytes written since the last look at the free space.
    since_look: u64,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn all<R: Read>(&mut self, reader: &mut Reader<R>, done: &mut Unpacked) -> Result<(), Failure> {
        let mut entries = 0;
        while let Some(mut entry) = reader.next_entry()? {
            entries += 1;
            if entries > self.rules.max_entries {
                let most = self.rules.max_entries;
                return Err(Failure::archive(format!("the archive has over {most} entries")));
            }
            let sent = entry.path.clone();
            let failed = |error| Failure::file(format!("cannot unpack `{}`", shown(&sent)), error);
            entry.path = self.renamed(&entry.path).map_err(failed)?;
            if entry.kind == Kind::HardLink {
                entry.link = self.renamed(&entry.link).map_err(failed)?;
            }
            if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
                if self.rules.special == Special::Refuse {
                    return Err(failed(io::Error::other("devices are not taken")));
                }
                done.left_out += 1;
                if done.left_out_names.len() < MAX_NAMED {
                    done.left_out_names.push(shown(&sent));
                }
                continue;
            }
            self.place(&entry, reader).map_err(|failure| match failure {
                Placing::File(error) => failed(error),
                Placing::Archive(failure) => failure,
            })?;
            done.entries += 1;
            done.bytes += entry.data_bytes();
        }
        Ok(())
    }

    /// The path beneath the folder.
    fn renamed(&mut self, path: &[u8]) -> io::Result<Vec<u8>> {
        let mut parts = components(path)?;
        let Top::Named(name) = self.rules.top else { return Ok(parts.join(&b'/')) };
        let other = || io::Error::other("it is not beneath the first entry of the archive");
        let first = parts.first_mut().ok_or_else(other)?;
        if self.top.get_or_insert_with(|| first.to_vec()) != first {
            return Err(other());
        }
        *first = name;
        Ok(parts.join(&b'/'))
    }

    fn place<R: Read>(&mut self, entry: &Entry, data: &mut Reader<R>) -> Result<(), Placing> {
        // The folder itself is the caller's: it stays as it is.
        let Some((parent, name)) = split_last(&entry.path) else { return Ok(()) };
        if self.parent.as_ref().is_none_or(|(path, _)| path != parent) {
            let opened = self.folder.make_folders(parent, Owner::ROOT, 0o755)?;
            self.parent = Some((parent.to_vec(), opened));
        }
        let Some((path, parent)) = self.parent.take() else { return Ok(()) };
        let placed = match entry.kind {
            Kind::File => self.put_file(&parent, name, entry, data),
            Kind::Folder => self.put_folder(&parent, name, entry).map_err(Into::into),
            Kind::Symlink => self.put_symlink(&parent, name, entry).map_err(Into::into),
            Kind::HardLink => {
                other::put_link(self.folder, &parent, name, entry).map_err(Into::into)
            }
            Kind::Pipe => self.put_pipe(&parent, name, entry).map_err(Into::into),
            Kind::CharDevice | Kind::BlockDevice => Ok(()),
        };
        self.parent = Some((path, parent));
        placed
    }

    fn owner(&self, entry: &Entry) -> Option<Owner> {
        match self.rules.owners {
            Owners::Keep => Some(Owner { uid: entry.uid, gid: entry.gid }),
            Owners::Caller => None,
        }
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let kept = match (self.rules.set_id, entry.kind) {
            (SetId::Drop, Kind::File) => 0o1777,
            _ => 0o7777,
        };
        Mode::from_raw_mode(entry.mode & kept)
    }
}

/// Why an entry was not placed.
enum Placing {
    /// Its file.
    File(io::Error),
    /// The archive.
    Archive(Failure),
}

impl From<io::Error> for Placing {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

/// Bytes to leave free on the disk of a folder on the host: 5 %, at most 512 MiB.
///
/// # Errors
/// As fstatvfs(2).
pub fn reserve(folder: &Folder) -> Result<u64, Failure> {
    let disk = fs::fstatvfs(folder)
        .map_err(|errno| Failure::file("cannot look at the free space of the disk", errno))?;
    Ok((disk.f_blocks.saturating_mul(disk.f_frsize) / 20).min(512 << 20))
}

#[cfg(test)]
mod tests;
