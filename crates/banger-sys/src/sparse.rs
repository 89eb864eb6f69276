//! Sparse files: copies that keep holes, clones, allocated size.

use std::fs::File;
use std::io;

use rustix::fs::{
    FallocateFlags, SeekFrom, copy_file_range, fallocate, fstat, ftruncate, ioctl_ficlone, seek,
};
use rustix::io::Errno;

/// Result of [`clone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloned {
    /// The files share their blocks; a change in one is not visible in the other.
    Shared,
    /// The file systems do not support clones; nothing was done.
    CannotShare,
}

/// Makes the empty file `to` a clone of `from` that shares its blocks: ioctl_ficlone(2).
///
/// # Errors
/// ioctl_ficlone(2), except the errors that mean missing support.
pub fn clone(from: &File, to: &File) -> io::Result<Cloned> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(Cloned::Shared),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
            Ok(Cloned::CannotShare)
        }
        Err(error) => Err(error.into()),
    }
}

/// Bytes that a file occupies on disk: `st_blocks` of 512 bytes each (stat(3type)).
///
/// # Errors
/// fstat(2).
pub fn allocated_bytes(file: &File) -> io::Result<u64> {
    let blocks = u64::try_from(fstat(file)?.st_blocks).unwrap_or_default();
    Ok(blocks.saturating_mul(512))
}

/// Deallocates a range of bytes, which then reads as zeros; the length of the file does not change:
/// fallocate(2), FALLOC_FL_PUNCH_HOLE.
///
/// # Errors
/// fallocate(2): `EOPNOTSUPP` if the file system does not support it.
pub fn punch(file: &File, start: u64, length: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, start, length).map_err(Into::into)
}

/// Extends a file with a hole: ftruncate(2).
///
/// # Errors
/// ftruncate(2); `InvalidInput` if the file is already longer.
pub fn extend(file: &File, length: u64) -> io::Result<()> {
    if u64::try_from(fstat(file)?.st_size).unwrap_or_default() > length {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is already longer"));
    }
    ftruncate(file, length).map_err(Into::into)
}

/// Copies the data of `from` into the empty file `to` and sets the same length.
///
/// Uses lseek(2) with SEEK_DATA and SEEK_HOLE, and copy_file_range(2), which shares blocks where
/// the file system can. Returns the bytes of data copied.
///
/// # Errors
/// lseek(2), copy_file_range(2), ftruncate(2), read(2), write(2); `to` is then incomplete.
pub fn copy(from: &File, to: &File) -> io::Result<u64> {
    let length = u64::try_from(fstat(from)?.st_size).unwrap_or_default();
    ftruncate(to, length)?;
    let mut copied = 0;
    let mut at = 0;
    while at < length {
        let data = match seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            // No data after this offset.
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
            // copy_file_range(2) does not work between these two file systems; some report that by
            // copying 0 bytes. The fallback detects whether the file became shorter.
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
    fn punch_deallocates_and_extend_adds_a_hole() {
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
    fn a_clone_is_equal_or_unsupported() {
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
