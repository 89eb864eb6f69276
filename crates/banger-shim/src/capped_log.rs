//! A log file with a size limit.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use banger_shim::CappedLog;
use banger_sys::fs::{open_folder, open_log};

/// Length in bytes of the tail kept for the exit story.
const TAIL: usize = 4096;

/// The open log.
pub struct Log {
    folder: OwnedFd,
    name: String,
    reader: Option<u32>,
    cap: u64,
    file: File,
    length: u64,
    tail: Vec<u8>,
}

impl Log {
    /// Opens the log for appending. Replaces links and files of other users, so the folder may be
    /// writable for an untrusted process.
    ///
    /// # Errors
    /// `InvalidInput` for a path without a UTF-8 file name; errors of the file system.
    pub fn open(config: &CappedLog, reader: Option<u32>) -> io::Result<Self> {
        let path = config.path.as_path();
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(invalid)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = open_folder(folder.unwrap_or(Path::new(".")))?;
        let file = open_log(&folder, name, reader)?;
        let length = file.metadata()?.len();
        let (name, cap) = (name.to_owned(), config.cap_bytes.max(1));
        Ok(Self { folder, name, reader, cap, file, length, tail: Vec::new() })
    }

    /// Marks the beginning of a run, so that the output of one boot is distinguishable from that of
    /// another. The line is not part of the tail.
    pub fn begin(&mut self, now: jiff::Timestamp) {
        let before = if self.length > 0 { "\n" } else { "" };
        let time = now.strftime("%Y-%m-%dT%H:%M:%SZ");
        self.write(format!("{before}--- VM started {time} ---\n").as_bytes());
        self.tail.clear();
    }

    /// Appends output. On a full disk output is lost; the VM continues.
    pub fn write(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(TAIL)..];
        self.tail.extend_from_slice(kept);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.length > 0
                && self.length.saturating_add(rest.len() as u64) > self.cap
                && self.rotate().is_err()
            {
                return;
            }
            // Larger than the limit: written in parts.
            let fits = usize::try_from(self.cap).unwrap_or(usize::MAX).min(rest.len());
            let (piece, more) = rest.split_at(fits);
            self.add(piece);
            rest = more;
        }
    }

    fn add(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            match self.file.write(piece) {
                Ok(count) if count > 0 => {
                    self.length += count as u64;
                    piece = &piece[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Starts a new file, and keeps the old one as `<path>.1`. If it cannot be renamed, it is
    /// truncated, because the limit takes precedence.
    fn rotate(&mut self) -> io::Result<()> {
        let kept = format!("{}.1", self.name);
        let renamed = rustix::fs::renameat(&self.folder, &self.name, &self.folder, kept);
        let anew = || open_log(&self.folder, &self.name, self.reader);
        match renamed.map_err(io::Error::from).and_then(|()| anew()) {
            Ok(file) => self.file = file,
            Err(_) => self.file.set_len(0)?,
        }
        self.length = 0;
        Ok(())
    }

    /// The tail of the output in this run, starting at a character boundary.
    pub fn tail(&self) -> String {
        let partial = self.tail.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
        String::from_utf8_lossy(&self.tail[partial..]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &tempfile::TempDir, cap_bytes: u64) -> Log {
        let path = folder.path().join("console.log").into();
        Log::open(&CappedLog { path, cap_bytes }, None).unwrap()
    }

    fn sizes(folder: &tempfile::TempDir) -> Vec<u64> {
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).collect()
    }

    #[test]
    fn each_run_begins_with_a_line_that_is_not_in_the_tail() {
        let folder = tempfile::tempdir().unwrap();
        for run in 0..2 {
            let mut log = log(&folder, 1000);
            log.begin(jiff::Timestamp::from_second(1_700_000_000 + run).unwrap());
            log.write(b"no newline");
            assert_eq!(log.tail(), "no newline");
        }
        let text = std::fs::read_to_string(folder.path().join("console.log")).unwrap();
        let expected = "--- VM started 2023-11-14T22:13:20Z ---\nno newline\n\
            --- VM started 2023-11-14T22:13:21Z ---\nno newline";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_size_stays_below_twice_the_cap() {
        let folder = tempfile::tempdir().unwrap();
        // Opened repeatedly, as in consecutive runs.
        for run in 0..10 {
            let mut log = log(&folder, 10_000);
            for n in 0..100 {
                log.write(format!("run {run} line {n:02} {}\n", "x".repeat(50)).as_bytes());
            }
            assert!(log.tail().ends_with("xx\n") && log.tail().contains("line 99"));
            assert!(log.tail().len() <= TAIL);
            assert!(sizes(&folder).iter().all(|size| *size <= 10_000), "{:?}", sizes(&folder));
        }
        assert_eq!(sizes(&folder).len(), 2);
    }

    #[test]
    fn a_write_larger_than_the_cap_stays_below_it() {
        let folder = tempfile::tempdir().unwrap();
        log(&folder, 1000).write(&[b'x'; 16 * 1024]);
        assert!(sizes(&folder).iter().all(|size| *size <= 1000), "{:?}", sizes(&folder));
    }

    #[test]
    fn a_log_that_cannot_be_rotated_stays_below_the_cap() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("console.log.1/full")).unwrap();
        let mut log = log(&folder, 1000);
        for _ in 0..100 {
            log.write(&[b'x'; 100]);
        }
        let size = std::fs::metadata(folder.path().join("console.log")).unwrap().len();
        assert!(size <= 1000 && size > 0, "{size}");
    }

    #[test]
    fn the_tail_starts_at_a_character_boundary() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(&folder, 1 << 20);
        log.write("a".as_bytes());
        log.write("€".repeat(2000).as_bytes());
        assert!(log.tail().starts_with('€') && log.tail().len() > TAIL - 3);
    }
}
