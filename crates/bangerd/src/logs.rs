//! Log files as streams, from their last lines on, also while they grow.
//!
//! Other processes rotate the files: they rename `NAME` to `NAME.1` and create a new `NAME`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use axum::body::Bytes;
use banger_api::{ApiError, ErrorCode};

use crate::failure::io_failure;

/// Maximum number of lines from the end of a log.
pub const MAX_TAIL: u32 = 100_000;
/// Size of a read in bytes.
const CHUNK: usize = 64 * 1024;
/// Interval between checks of a followed log for new bytes.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Behaviour at the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Wait for new bytes.
    Yes,
    /// Stop at the end.
    No,
}

/// A position in a log that stays valid when the log is rotated: a file, and an offset from its
/// beginning, which may reach into the next file. On the wire `INODE:BYTES`; inode 0 is the oldest
/// existing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    inode: u64,
    offset: u64,
}

impl Place {
    /// The position this number of bytes earlier in the same file.
    pub fn before(self, bytes: usize) -> Self {
        Self { offset: self.offset.saturating_sub(bytes as u64), ..self }
    }

    /// The position this number of bytes later.
    pub fn after(self, bytes: usize) -> Self {
        Self { offset: self.offset.saturating_add(bytes as u64), ..self }
    }
}

impl FromStr for Place {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let place = text.split_once(':').and_then(|(inode, offset)| {
            Some(Self { inode: inode.parse().ok()?, offset: offset.parse().ok()? })
        });
        place.ok_or_else(|| {
            let shown = banger_api::excerpt(text);
            let text = format!("`from` is `{shown}`: it must be INODE:BYTES");
            ApiError::new(ErrorCode::BadRequest, text)
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.inode, self.offset)
    }
}

/// A log being read.
pub struct LogFile {
    path: PathBuf,
    follow: Follow,
    /// The rotated file, until it was read.
    before: Option<(File, u64)>,
    file: Option<File>,
    position: u64,
}

impl LogFile {
    /// Opens a log; with `tail`, at that number of lines before its end. A missing file is an empty
    /// log.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &Path, tail: Option<u32>, follow: Follow) -> Result<Self, ApiError> {
        let failed = |error: io::Error| io_failure("read the log", path, &error);
        let (before, file) = open_both(path).map_err(failed)?;
        let mut log = Self { path: path.into(), follow, before: None, file, position: 0 };
        let Some(tail) = tail else {
            log.before = before.map(|file| (file, 0));
            return Ok(log);
        };
        let mut missing = tail;
        if let Some(file) = &log.file {
            (log.position, missing) = tail_of(file, tail).map_err(failed)?;
        }
        if let Some(file) = before.filter(|_| missing > 0) {
            let (start, _) = tail_of(&file, missing).map_err(failed)?;
            log.before = Some((file, start));
        }
        Ok(log)
    }

    /// Opens a log at the position of an earlier reader. If that file was removed, reading
    /// continues with the oldest existing file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open_at(path: &Path, place: Place, follow: Follow) -> Result<Self, ApiError> {
        let failed = |error: io::Error| io_failure("read the log", path, &error);
        let (before, file) = open_both(path).map_err(failed)?;
        let mut log = Self { path: path.into(), follow, before: None, file, position: 0 };
        let current = match &log.file {
            Some(file) => Some(file.metadata().map_err(failed)?),
            None => None,
        };
        if current.as_ref().is_some_and(|current| current.ino() == place.inode) {
            log.position = place.offset;
            return Ok(log);
        }
        let Some(before) = before else {
            log.position = if place.inode == 0 { place.offset } else { 0 };
            return Ok(log);
        };
        let length = before.metadata().map_err(failed)?;
        let known = place.inode == 0 || length.ino() == place.inode;
        let offset = if known { place.offset } else { 0 };
        if offset < length.len() {
            log.before = Some((before, offset));
        } else {
            log.position = offset - length.len();
        }
        Ok(log)
    }

    /// Position of the next byte.
    ///
    /// # Errors
    /// fstat(2).
    pub fn place(&self) -> io::Result<Place> {
        let at = |file: &File, offset| Ok(Place { inode: file.metadata()?.ino(), offset });
        match (&self.before, &self.file) {
            (Some((file, offset)), _) => at(file, *offset),
            (None, Some(file)) => at(file, self.position),
            (None, None) => Ok(Place { inode: 0, offset: 0 }),
        }
    }

    /// Opens a log at its current end.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn at_end(path: &Path, follow: Follow) -> Result<Self, ApiError> {
        let failed = |error: io::Error| io_failure("read the log", path, &error);
        let file = open(path).map_err(failed)?;
        let position = match &file {
            Some(file) => file.metadata().map_err(failed)?.len(),
            None => 0,
        };
        Ok(Self { path: path.into(), follow, before: None, file, position })
    }

    /// Offset of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes; `None` at the end of a log that is not followed, or whose folder was
    /// removed. Cancel safe.
    ///
    /// # Errors
    /// read(2).
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Reads of regular files do not block on other processes.
            if let Some(piece) = self.read()? {
                return Ok(Some(piece));
            }
            let gone = || self.path.parent().is_some_and(|folder| !folder.exists());
            if self.follow == Follow::No || self.file.is_some() && gone() {
                return Ok(None);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The next bytes that exist already; `None` at the present end. All are of one file.
    ///
    /// # Errors
    /// read(2).
    pub fn read(&mut self) -> io::Result<Option<Bytes>> {
        if let Some((file, position)) = &mut self.before {
            if let Some(piece) = read_chunk(file, position)? {
                return Ok(Some(piece));
            }
            self.before = None;
        }
        if let Some(file) = &self.file {
            if let Some(piece) = read_chunk(file, &mut self.position)? {
                return Ok(Some(piece));
            }
            if !replaced(&self.path, file, self.position) {
                return Ok(None);
            }
        }
        self.file = open(&self.path)?;
        self.position = 0;
        match &self.file {
            Some(file) => read_chunk(file, &mut self.position),
            None => Ok(None),
        }
    }
}

/// The rotated file and the current one.
fn open_both(path: &Path) -> io::Result<(Option<File>, Option<File>)> {
    let mut rotated = path.as_os_str().to_owned();
    rotated.push(".1");
    let mut file = open(path)?;
    let mut before = open(Path::new(&rotated))?;
    let inode = |file: &Option<File>| -> io::Result<Option<u64>> {
        file.as_ref().map(|file| Ok(file.metadata()?.ino())).transpose()
    };
    // The log was rotated between both calls: they opened the same file.
    while before.is_some() && inode(&file)? == inode(&before)? {
        file = open(path)?;
        before = open(Path::new(&rotated))?;
    }
    Ok((before, file))
}

/// Opens a regular file and follows no link: the VMM's user may be able to write to the folder.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_chunk(file: &File, position: &mut u64) -> io::Result<Option<Bytes>> {
    let mut bytes = vec![0; CHUNK];
    let length = file.read_at(&mut bytes, *position)?;
    bytes.truncate(length);
    *position += length as u64;
    Ok((length > 0).then(|| bytes.into()))
}

/// Whether the path now refers to another file, or to one shorter than the bytes read so far.
fn replaced(path: &Path, file: &File, position: u64) -> bool {
    let (Ok(there), Ok(here)) = (std::fs::symlink_metadata(path), file.metadata()) else {
        return false;
    };
    (there.dev(), there.ino()) != (here.dev(), here.ino()) || there.len() < position
}

/// Offset of the last `lines` lines, and the number of lines that this file lacks.
fn tail_of(file: &File, lines: u32) -> io::Result<(u64, u32)> {
    let mut end = file.metadata()?.len();
    if lines == 0 {
        return Ok((end, 0));
    }
    let mut found: u32 = 0;
    let mut last_byte = true;
    let mut bytes = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let piece = bytes.get_mut(..usize::try_from(end - start).unwrap_or(0)).unwrap_or_default();
        file.read_exact_at(piece, start)?;
        for (at, byte) in piece.iter().enumerate().rev() {
            // No line begins after the newline at the end of the file.
            if *byte == b'\n' && !std::mem::take(&mut last_byte) {
                found += 1;
                if found == lines {
                    return Ok((start + at as u64 + 1, 0));
                }
            }
            last_byte = false;
        }
        end = start;
    }
    let empty = file.metadata()?.len() == 0;
    Ok((0, lines.saturating_sub(found + u32::from(!empty))))
}

/// A log: the first `limit / 2` bytes of the rotated file, then those of the current one, which is
/// read up to `end`.
///
/// # Errors
/// It cannot be read.
pub fn whole(path: &Path, limit: u64, end: u64) -> io::Result<Vec<u8>> {
    let (before, file) = open_both(path)?;
    let mut all = Vec::new();
    if let Some(file) = before {
        file.take(limit / 2).read_to_end(&mut all)?;
    }
    if let Some(file) = file {
        file.take(end.min(limit / 2)).read_to_end(&mut all)?;
    }
    Ok(all)
}

/// Checks a number of lines.
///
/// # Errors
/// More than [`MAX_TAIL`].
pub fn check_tail(tail: Option<u32>) -> Result<(), ApiError> {
    match tail {
        Some(tail) if tail > MAX_TAIL => {
            let text = format!("`tail` is {tail}: it must be 0 to {MAX_TAIL}");
            Err(ApiError::new(ErrorCode::BadRequest, text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(path: &Path, tail: Option<u32>) -> String {
        let mut log = LogFile::open(path, tail, Follow::No).unwrap();
        let mut text = Vec::new();
        while let Some(piece) = log.next().await.unwrap() {
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn the_last_lines_come_from_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        assert_eq!(all(&path, Some(3)).await, "", "nothing was written yet");
        std::fs::write(folder.path().join("console.log.1"), "1\n2\n3\n").unwrap();
        std::fs::write(&path, "4\n5").unwrap();
        for (tail, expected) in [
            (Some(0), ""),
            (Some(1), "5"),
            (Some(2), "4\n5"),
            (Some(3), "3\n4\n5"),
            (Some(9), "1\n2\n3\n4\n5"),
            (None, "1\n2\n3\n4\n5"),
        ] {
            assert_eq!(all(&path, tail).await, expected, "{tail:?}");
        }
        let long = "x".repeat(CHUNK) + "\n" + &"y".repeat(CHUNK) + "\n";
        std::fs::write(&path, &long).unwrap();
        assert_eq!(all(&path, Some(1)).await.len(), CHUNK + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_followed_log_continues_after_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l");
        std::fs::write(&path, "a").unwrap();
        let mut log = LogFile::open(&path, None, Follow::Yes).unwrap();
        assert_eq!(log.next().await.unwrap().unwrap(), "a");
        std::fs::rename(&path, folder.path().join("l.1")).unwrap();
        std::fs::write(&path, "b").unwrap();
        assert_eq!(log.next().await.unwrap().unwrap(), "b");
        std::fs::write(&path, "").unwrap();
        std::fs::write(&path, "").unwrap();
        let waiting = tokio::time::timeout(Duration::from_secs(1), log.next()).await;
        assert!(waiting.is_err(), "nothing new");
    }

    #[tokio::test]
    async fn reading_resumes_after_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l");
        let rest = async |place: Place, read: u64| {
            let place = Place { offset: place.offset + read, ..place };
            assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
            let mut log = LogFile::open_at(&path, place, Follow::No).unwrap();
            let mut text = Vec::new();
            while let Some(piece) = log.next().await.unwrap() {
                text.extend_from_slice(&piece);
            }
            String::from_utf8(text).unwrap()
        };
        let empty = LogFile::open(&path, None, Follow::No).unwrap().place().unwrap();
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(rest(empty, 2).await, "c", "a log that began while it was followed");
        let begin = LogFile::open(&path, None, Follow::No).unwrap().place().unwrap();
        assert_eq!(rest(begin, 1).await, "bc");
        std::fs::rename(&path, folder.path().join("l.1")).unwrap();
        assert_eq!(rest(begin, 1).await, "bc", "nothing was written since");
        std::fs::write(&path, "def").unwrap();
        for (read, expected) in [(0, "abcdef"), (2, "cdef"), (3, "def"), (5, "f"), (6, "")] {
            assert_eq!(rest(begin, read).await, expected, "{read}");
            assert_eq!(rest(empty, read).await, expected, "{read}");
        }
        let before = LogFile::open(&path, Some(4), Follow::No).unwrap().place().unwrap();
        assert_eq!(before, begin, "the rotated file comes first");
        let gone = Place { inode: u64::MAX, offset: 5 };
        assert_eq!(rest(gone, 0).await, "abcdef", "a file that is gone");
        for wrong in ["", "1", "x:1", "1:-1", ":"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn following_ends_when_the_folder_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        let path = logs.join("l");
        std::fs::write(&path, "a").unwrap();
        let mut log = LogFile::open(&path, None, Follow::Yes).unwrap();
        assert_eq!(log.next().await.unwrap().unwrap(), "a");
        std::fs::remove_dir_all(&logs).unwrap();
        assert_eq!(log.next().await.unwrap(), None);
    }

    #[test]
    fn links_and_pipes_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        assert!(LogFile::open(&link, None, Follow::No).is_err());
        let error = LogFile::open(folder.path(), None, Follow::No).err().unwrap();
        assert!(error.message.contains("read the log"), "{}", error.message);
        assert!(check_tail(Some(0)).is_ok() && check_tail(Some(MAX_TAIL + 1)).is_err());
    }
}
