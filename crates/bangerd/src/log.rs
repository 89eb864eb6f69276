//! The daemon's log: JSON lines in a file that is rotated by size, at the start and while running.
//!
//! Whoever starts the daemon redirects its standard error into the same file, so that a panic is
//! not lost; a rotation takes standard error along.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use banger_api::ApiError;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::failure::io_failure;

/// Size beyond which a log is put aside, in bytes.
pub const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Old logs that are kept: `bangerd.log.1` is the newest.
pub const KEEP: u32 = 3;

/// A log file that puts itself aside when it has grown.
#[derive(Debug)]
pub struct Rotating {
    path: PathBuf,
    limit: u64,
    file: File,
    size: u64,
}

impl Rotating {
    /// Opens the log for appending, after a rotation where it is too large already.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, limit: u64) -> Result<Self, ApiError> {
        let failed = |error: io::Error| io_failure("open the log", path, &error);
        let file = append(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut log = Self { path: path.into(), limit, file, size };
        if log.size >= limit {
            log.rotate().map_err(failed)?;
        }
        Ok(log)
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEEP).rev() {
            rename_if_there(&self.aside(number), &self.aside(number + 1))?;
        }
        rename_if_there(&self.path, &self.aside(1))?;
        let new = append(&self.path)?;
        if is_stderr(&self.file) {
            rustix::stdio::dup2_stderr(&new)?;
        }
        self.file = new;
        self.size = 0;
        Ok(())
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether standard error goes to this very file.
fn is_stderr(file: &File) -> bool {
    let (Ok(stderr), Ok(file)) = (rustix::fs::fstat(rustix::stdio::stderr()), file.metadata())
    else {
        return false;
    };
    (stderr.st_dev, stderr.st_ino) == (file.dev(), file.ino())
}

impl Write for Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size >= self.limit {
            // A log that cannot be put aside grows on: that is better than no log.
            let _ = self.rotate();
        }
        // One write(2) a line with O_APPEND, so that lines of panics do not end up inside.
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hands the log to whoever has a line.
#[derive(Clone)]
struct Shared(Arc<Mutex<Rotating>>);

impl Write for Shared {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Shared {
    type Writer = Shared;

    fn make_writer(&'a self) -> Shared {
        self.clone()
    }
}

/// Sends all tracing of this process, and its panics, to `log`.
pub fn install(log: Rotating, level: LevelFilter) {
    let writer = Shared(Arc::new(Mutex::new(log)));
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_max_level(level)
        .with_writer(writer)
        .finish();
    // Only a second call in one process fails, and then the first log goes on.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(panic = %panic, "panic");
        default(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_put_aside_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bangerd.log");
        for start in 0..3 {
            let mut log = Rotating::open(&path, 20).unwrap();
            for line in 0..4 {
                log.write_all(format!("{start}.{line} 0123456\n").as_bytes()).unwrap();
            }
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        assert_eq!(read("bangerd.log"), "2.2 0123456\n2.3 0123456\n");
        assert_eq!(read("bangerd.log.1"), "2.0 0123456\n2.1 0123456\n");
        assert_eq!(read("bangerd.log.3"), "1.0 0123456\n1.1 0123456\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}
