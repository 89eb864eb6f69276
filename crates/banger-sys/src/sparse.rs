//! Sparse copies: only what is data is copied, holes stay holes.

use std::fs::File;
use std::io;

use rustix::fs::{
    FallocateFlags, SeekFrom, copy_file_range, fallocate, fstat, ftruncate, ioctl_ficlone, seek,
};
use rustix::io::Errno;

/// Whether two files came to share their blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloned {
    /// They share them; a change in one is not seen in the other.
    Shared,
    /// Their file systems cannot; nothing was done.
    CannotShare,
}

/// Makes the empty file `to` a clone of `from` that shares its blocks: ioctl_ficlone(2).
///
/// # Errors
/// Those of the call that do not mean that the file systems cannot.
pub fn clone(from: &File, to: &File) -> io::Result<Cloned> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(Cloned::Shared),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
            Ok(Cloned::CannotShare)
        }
        Err(error) => Err(error.into()),
    }
}

/// Bytes that a file takes on disk: `st_blocks` of 512 bytes each (stat(3type)).
///
/// # Errors
/// fstat(2).
pub fn allocated_bytes(file: &File) -> io::Result<u64> {
    let blocks = u64::try_from(fstat(file)?.st_blocks).unwrap_or_default();
    Ok(blocks.saturating_mul(512))
}

/// Gives a range of bytes back to the file system; they read as zeros then, and the length stays:
/// fallocate(2), FALLOC_FL_PUNCH_HOLE.
///
/// # Errors
/// fallocate(2); `EOPNOTSUPP` where the file system cannot.
pub fn punch(file: &File, start: u64, length: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, start, length).map_err(Into::into)
}

/// Makes a file longer, with a hole at its end: ftruncate(2).
///
/// # Errors
/// ftruncate(2); `InvalidInput` if it is longer already, since nothing may be cut off a disk.
pub fn extend(file: &File, length: u64) -> io::Result<()> {
    if u64::try_from(fstat(file)?.st_size).unwrap_or_default() > length {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "longer than that already"));
    }
    ftruncate(file, length).map_err(Into::into)
}

/// Copies the data of `from` into the empty file `to` and gives it the same length.
///
/// Uses lseek(2) with SEEK_DATA and SEEK_HOLE, and copy_file_range(2), which shares blocks where
/// the file system can. Returns the bytes of data copied.
///
/// # Errors
/// Those of the calls; `to` is then incomplete.
pub fn copy(from: &File, to: &File) -> io::Result<u64> {
    let length = u64::try_from(fstat(from)?.st_size).unwrap_or_default();
    ftruncate(to, length)?;
    let mut copied = 0;
    let mut at = 0;
    while at < length {
        let data = match seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            // No data behind this place.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(from, SeekFrom::Hole(data))?;
        copied += copy_range(from, to, data, end)?;
        at = end;
    }
    Ok(copied)
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<u64> {
    let (mut source, mut target) = (start, start);
    while source < end {
        let length = usize::try_from(end - source).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut source), to, Some(&mut target), length) {
            Ok(count) if count > 0 => {}
            Err(Errno::INTR) => {}
            // Not between these two file systems, some of which say so with nothing copied: by
            // hand, which finds out if the file has really become shorter.
            Ok(_) | Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {
                return copy_by_hand(from, to, source, end).map(|_| end - start);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(end - start)
}

fn copy_by_hand(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 1 << 20];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let count = from.read_at(&mut buffer[..want], at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all_at(&buffer[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn holes_stay_holes_and_data_is_the_same() {
        let from = tempfile::tempfile().unwrap();
        from.set_len(1 << 30).unwrap();
        from.write_all_at(b"begin", 0).unwrap();
        from.write_all_at(b"middle", (1 << 29) + 4096).unwrap();
        let to = tempfile::tempfile().unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 1 << 30);
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "stays sparse");
        for (place, text) in [(0, &b"begin"[..]), ((1 << 29) + 4096, b"middle")] {
            let mut read = vec![0; text.len()];
            to.read_exact_at(&mut read, place).unwrap();
            assert_eq!(read, text);
        }
    }

    #[test]
    fn a_hole_is_punched_and_a_file_made_longer() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        let before = allocated_bytes(&file).unwrap();
        assert!(before >= 1 << 20);
        punch(&file, 0, 1 << 19).unwrap();
        assert!(allocated_bytes(&file).unwrap() <= before - (1 << 19));
        let mut bytes = [9; 2];
        file.read_exact_at(&mut bytes, (1 << 19) - 1).unwrap();
        assert_eq!(bytes, [0, 1]);
        extend(&file, 1 << 30).unwrap();
        assert!(extend(&file, 1 << 20).is_err());
        assert_eq!(file.metadata().unwrap().len(), 1 << 30);
        assert!(allocated_bytes(&file).unwrap() <= before);
    }

    #[test]
    fn a_clone_is_the_same_or_nothing_was_done() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all_at(&[7; 8192], 0).unwrap();
        let length = match clone(&from, &to).unwrap() {
            Cloned::Shared => 8192,
            Cloned::CannotShare => 0,
        };
        assert_eq!(to.metadata().unwrap().len(), length);
    }

    #[test]
    fn an_empty_file_and_a_file_without_holes() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        assert_eq!(copy(&from, &to).unwrap(), 0);
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        from.write_all_at(&bytes, 0).unwrap();
        copy(&from, &to).unwrap();
        let mut read = vec![0; bytes.len()];
        to.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes);
        copy_by_hand(&from, &to, 1000, 2_500_000).unwrap();
    }
}
