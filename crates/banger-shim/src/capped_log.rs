//! A log file that cannot fill the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use banger_shim::CappedLog;

/// Bytes of the end that are kept for the story.
const TAIL: usize = 4096;

/// The log, open.
pub struct Log {
    path: PathBuf,
    cap: u64,
    file: File,
    length: u64,
    tail: Vec<u8>,
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

impl Log {
    /// Opens the log, going on behind what an earlier run wrote.
    pub fn open(config: &CappedLog) -> io::Result<Self> {
        let path = PathBuf::from(&config.path);
        let file = open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { path, cap: config.cap_bytes, file, length, tail: Vec::new() })
    }

    /// Adds output. A full disk loses output, never the VM.
    pub fn write(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        if self.length.saturating_add(bytes.len() as u64) > self.cap {
            let mut rotated = self.path.clone().into_os_string();
            rotated.push(".1");
            if std::fs::rename(&self.path, rotated).is_ok()
                && let Ok(file) = open(&self.path)
            {
                self.file = file;
            }
            self.length = 0;
        }
        if self.file.write_all(bytes).is_ok() {
            self.length += bytes.len() as u64;
        }
    }

    /// The end of what was written in this run.
    pub fn tail(&self) -> String {
        String::from_utf8_lossy(&self.tail).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_twice_the_cap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let config = CappedLog { path: path.display().to_string(), cap_bytes: 10_000 };
        let mut log = Log::open(&config).unwrap();
        for n in 0..1000 {
            log.write(format!("line {n:04} {}\n", "x".repeat(50)).as_bytes());
        }
        let sizes: Vec<u64> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|f| f.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| *size <= 10_000), "{sizes:?}");
        assert!(log.tail().ends_with("xx\n") && log.tail().contains("line 0999"));
        assert!(log.tail().len() <= TAIL);
    }
}
