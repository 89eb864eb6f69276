//! Writes files: whole or not at all, with their holes.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};

use rustix::fs;
use rustix::io::Errno;

use super::{PIECE, Placing, SPACE_STEP, Unpacker};
use crate::beneath::Folder;
use crate::entry::Entry;
use crate::new_file::NewFile;
use crate::read::Reader;

impl Unpacker<'_> {
    pub(super) fn put_file<R: Read>(
        &mut self,
        parent: &Folder,
        name: &[u8],
        entry: &Entry,
        data: &mut Reader<R>,
    ) -> Result<(), Placing> {
        self.look_at_space(0)?;
        let mut new = NewFile::create(parent, self.owner(entry))?;
        self.write(new.file(), entry, data)?;
        fs::fchmod(new.file(), self.mode(entry)).map_err(io::Error::from)?;
        fs::futimens(new.file(), &entry.times()).map_err(io::Error::from)?;
        Ok(new.finish(name)?)
    }

    fn write<R: Read>(
        &mut self,
        file: &mut File,
        entry: &Entry,
        data: &mut Reader<R>,
    ) -> Result<(), Placing> {
        let whole = [crate::Segment { offset: 0, length: entry.size }];
        for segment in entry.segments.as_deref().unwrap_or(&whole) {
            file.seek(SeekFrom::Start(segment.offset))?;
            let mut left = segment.length;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                let mut buffer = std::mem::take(&mut self.buffer);
                let read = data.data(buffer.get_mut(..most).unwrap_or_default());
                let written = match read {
                    Ok(length) => {
                        left -= length as u64;
                        let piece = buffer.get(..length).unwrap_or_default();
                        file.write_all(piece).map(|()| length as u64).map_err(Placing::File)
                    }
                    Err(failure) => Err(Placing::Archive(failure)),
                };
                self.buffer = buffer;
                self.look_at_space(written?)?;
            }
        }
        if entry.segments.is_some() {
            file.set_len(entry.size)?;
        }
        Ok(())
    }

    /// Keeps an archive without end from filling the disk.
    fn look_at_space(&mut self, written: u64) -> io::Result<()> {
        self.since_look += written;
        if self.rules.reserve_bytes == 0 || (written > 0 && self.since_look < SPACE_STEP) {
            return Ok(());
        }
        self.since_look = 0;
        let disk = fs::fstatvfs(self.folder)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < self.rules.reserve_bytes {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }
}
