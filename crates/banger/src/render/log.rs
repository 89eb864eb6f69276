//! Showing a log file, and what is added to it.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use banger_api::{ApiError, ErrorCode, exit};
use banger_client::watch::FolderWatch;

use crate::errors::Failure;
use crate::render::console::ConsoleFilter;
use crate::render::plain;

/// Whether to go on after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Wait for more.
    Yes,
    /// Stop there.
    No,
}

/// Whether lines are put into JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// As they are.
    AsTheyAre,
    /// Each as an object.
    Objects,
}

/// Shows a log file.
pub async fn show(path: &Path, follow: Follow, lines: Lines) -> Result<u8, Failure> {
    let unreadable = |error: io::Error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let code = if missing { ErrorCode::NotFound } else { ErrorCode::Internal };
        let text = format!("the log `{}` cannot be read", path.display());
        let failure = ApiError::new(code, text).caused_by(&error);
        if missing { failure.with_hint("nothing has been written to it yet") } else { failure }
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Before the first look, so that nothing falls between.
    let watch = match follow {
        Follow::Yes => Some(FolderWatch::new(folder).map_err(unreadable)?),
        Follow::No => None,
    };
    let mut log = Log { file: File::open(path).map_err(unreadable)?, position: 0 };
    let mut shape = Shape::new(lines);
    loop {
        log.copy(&mut shape)?;
        let Some(watch) = &watch else { break };
        watch.changed().await?;
        log.reopen_if_replaced(path)?;
    }
    shape.end()?;
    Ok(exit::OK)
}

struct Log {
    file: File,
    position: u64,
}

impl Log {
    fn copy(&mut self, shape: &mut Shape) -> Result<(), Failure> {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let length = self.file.read(&mut piece)?;
            if length == 0 {
                return Ok(());
            }
            self.position += length as u64;
            shape.pass(piece.get(..length).unwrap_or_default())?;
        }
    }

    /// A log that was rotated or cut is read from its beginning.
    fn reopen_if_replaced(&mut self, path: &Path) -> io::Result<()> {
        let Ok(there) = std::fs::metadata(path) else { return Ok(()) };
        let same = self.file.metadata()?.ino() == there.ino();
        if same && there.len() >= self.position {
            return Ok(());
        }
        self.file = File::open(path)?;
        self.position = 0;
        Ok(())
    }
}

/// What the log looks like on stdout.
enum Shape {
    Raw,
    Filtered(ConsoleFilter),
    Objects(Vec<u8>),
}

/// Longest line that is put into one object; a longer one becomes several.
const MAX_LINE: usize = 64 * 1024;

impl Shape {
    fn new(lines: Lines) -> Self {
        match lines {
            Lines::Objects => Self::Objects(Vec::new()),
            // What a guest wrote must not drive the terminal.
            Lines::AsTheyAre if io::stdout().is_terminal() => Self::Filtered(Default::default()),
            Lines::AsTheyAre => Self::Raw,
        }
    }

    fn pass(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match self {
            Self::Raw => out.write_all(bytes)?,
            Self::Filtered(filter) => out.write_all(&filter.pass(bytes))?,
            Self::Objects(line) => {
                for byte in bytes {
                    if *byte == b'\n' || line.len() >= MAX_LINE {
                        write_object(&mut out, line)?;
                    }
                    if *byte != b'\n' {
                        line.push(*byte);
                    }
                }
            }
        }
        Ok(out.flush()?)
    }

    fn end(&mut self) -> Result<(), Failure> {
        match self {
            Self::Objects(line) if !line.is_empty() => {
                Ok(write_object(&mut io::stdout().lock(), line)?)
            }
            Self::Filtered(filter) => Ok(io::stdout().lock().write_all(&filter.end())?),
            Self::Objects(_) | Self::Raw => Ok(()),
        }
    }
}

fn write_object(out: &mut impl Write, line: &mut Vec<u8>) -> io::Result<()> {
    let text = String::from_utf8_lossy(line);
    let object = serde_json::json!({ "line": text.trim_end_matches('\r') });
    line.clear();
    writeln!(out, "{}", plain::json(&object.to_string()))
}
