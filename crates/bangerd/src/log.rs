//! The daemon's log: JSON lines in a file that is rotated by size, at startup and while running.
//!
//! The client that starts the daemon redirects its standard error into the same file, so that a
//! panic is not lost; a rotation redirects it again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use banger_api::ApiError;
use tracing::Metadata;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::failure::io_failure;
use crate::otlp::Export;

/// Size at which the log is rotated, in bytes.
pub const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Number of old logs; `bangerd.log.1` is the newest.
pub const KEEP: u32 = 3;

/// A log file with rotation.
#[derive(Debug)]
pub struct Rotating {
    path: PathBuf,
    limit: u64,
    /// `None` while the file cannot be created: the disk is full.
    file: Option<File>,
    size: u64,
    /// The last line is incomplete: the disk was full.
    cut: bool,
}

impl Rotating {
    /// Opens the log for appending, and rotates it first if it is too large. A full disk loses
    /// lines and is not an error.
    ///
    /// # Errors
    /// The file cannot be opened, for another reason than a full disk.
    pub fn open(path: &Path, limit: u64) -> Result<Self, ApiError> {
        let mut log = Self { path: path.into(), limit, file: None, size: 0, cut: false };
        match append(path) {
            Ok(file) => {
                log.size = file.metadata().map_or(0, |file| file.len());
                log.file = Some(file);
            }
            Err(error) if is_full(&error) => {}
            Err(error) => return Err(io_failure("open the log", path, &error)),
        }
        if log.size >= limit {
            // A log that cannot be rotated continues to grow.
            let _ = log.rotate();
        }
        Ok(log)
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEEP).rev() {
            rename_if_there(&self.aside(number), &self.aside(number + 1))?;
        }
        rename_if_there(&self.path, &self.aside(1))?;
        let new = append(&self.path)?;
        if self.file.as_ref().is_some_and(is_stderr) {
            rustix::stdio::dup2_stderr(&new)?;
        }
        self.file = Some(new);
        self.size = 0;
        self.cut = false;
        Ok(())
    }

    /// Appends one line with one write(2), so that it does not interleave with a panic message. The
    /// line is lost if the disk is full.
    fn append_line(&mut self, line: &[u8]) {
        if self.size >= self.limit {
            let _ = self.rotate();
        }
        if self.file.is_none() {
            self.file = append(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return };
        let whole = if self.cut { [b"\n", line].concat() } else { line.to_vec() };
        if let Ok(written) = file.write(&whole) {
            self.size += written as u64;
            // The write failed as a whole: the file ends as before.
            self.cut = if written == 0 { self.cut } else { written < whole.len() };
        }
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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

/// Whether standard error refers to this file.
fn is_stderr(file: &File) -> bool {
    let (Ok(stderr), Ok(file)) = (rustix::fs::fstat(rustix::stdio::stderr()), file.metadata())
    else {
        return false;
    };
    (stderr.st_dev, stderr.st_ino) == (file.dev(), file.ino())
}

/// The log, shared by all threads.
#[derive(Clone)]
struct Shared(Arc<Mutex<Rotating>>);

/// Never fails: callers of a logger cannot handle the error.
impl Write for Shared {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).append_line(line);
        Ok(line.len())
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

/// Sends all tracing of this process, and its panics, to `log`, and spans to a collector.
pub fn install(log: Rotating, level: LevelFilter, export: Option<&Export>) {
    let writer = Shared(Arc::new(Mutex::new(log)));
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        // Lines of an operation have its trace.
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(writer)
        // The default hook would use `eprintln!`, which writes to the same disk.
        .log_internal_errors(false)
        // At any level: a line has the trace of the span that it is in.
        .with_filter(filter_fn(move |about| about.is_span() || *about.level() <= level));
    let spans = export.map(|export| {
        let ours = |about: &Metadata<'_>| {
            about.target().starts_with("banger") && *about.level() <= LevelFilter::INFO
        };
        export.layer().with_filter(filter_fn(ours))
    });
    let subscriber = tracing_subscriber::registry().with(spans).with(lines);
    // Fails only on a second call in one process; the first log stays installed.
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
    fn a_full_disk_loses_lines_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bangerd.log");
        let mut log = Rotating::open(&path, 1000).unwrap();
        // full(4): every write fails with ENOSPC.
        log.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        log.append_line(b"lost\n");
        log.file = None;
        log.cut = true;
        log.append_line(b"kept\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "\nkept\n", "after an incomplete line");
        assert!(!log.cut);
    }

    #[test]
    fn logs_are_rotated_and_old_ones_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bangerd.log");
        for start in 0..3 {
            let mut log = Rotating::open(&path, 20).unwrap();
            for line in 0..4 {
                log.append_line(format!("{start}.{line} 0123456\n").as_bytes());
            }
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        assert_eq!(read("bangerd.log"), "2.2 0123456\n2.3 0123456\n");
        assert_eq!(read("bangerd.log.1"), "2.0 0123456\n2.1 0123456\n");
        assert_eq!(read("bangerd.log.3"), "1.0 0123456\n1.1 0123456\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}
