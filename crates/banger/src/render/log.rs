//! Showing a log file, and what is added to it.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use banger_api::{ApiError, ErrorCode, exit};
use banger_client::watch::FolderWatch;

use crate::errors::Failure;
use crate::render::console::ConsoleFilter;
use crate::render::plain;

/// Most bytes read at once.
const PIECE: usize = 64 * 1024;

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

/// Shows a log file, from its beginning or the last `tail` lines of it.
pub async fn show(
    path: &Path,
    follow: Follow,
    lines: Lines,
    tail: Option<usize>,
) -> Result<u8, Failure> {
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
    if let Some(count) = tail {
        log.position = start_of_tail(&mut log.file, count).map_err(unreadable)?;
        log.file.seek(SeekFrom::Start(log.position)).map_err(unreadable)?;
    }
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
        let mut piece = vec![0; PIECE];
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

/// Where the last `count` lines begin; a line without an end counts. Reads backwards in pieces, so
/// that a long log costs no more than its tail.
fn start_of_tail(file: &mut (impl Read + Seek), count: usize) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let (mut begin, mut left) = (end, count);
    let mut piece = vec![0; PIECE];
    while begin > 0 {
        let length = begin.min(PIECE as u64);
        begin -= length;
        file.seek(SeekFrom::Start(begin))?;
        let bytes = piece.get_mut(..usize::try_from(length).unwrap_or(PIECE)).unwrap_or_default();
        file.read_exact(bytes)?;
        for (place, byte) in bytes.iter().enumerate().rev() {
            let behind = begin + place as u64 + 1;
            // The end of the last line begins no further one.
            if *byte == b'\n' && behind < end {
                if left <= 1 {
                    return Ok(if left == 0 { end } else { behind });
                }
                left -= 1;
            }
        }
    }
    Ok(if count == 0 { end } else { 0 })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(text: &[u8], count: usize) -> &[u8] {
        let start = start_of_tail(&mut io::Cursor::new(text), count).unwrap();
        &text[usize::try_from(start).unwrap()..]
    }

    #[test]
    fn a_tail_is_whole_lines() {
        for (text, count, rest) in [
            ("a\nb\nc\n", 0, ""),
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc\n", 3, "a\nb\nc\n"),
            ("a\nb\nc\n", 9, "a\nb\nc\n"),
            ("a\nb", 1, "b"),
            ("a\n\n", 1, "\n"),
            ("\n", 1, "\n"),
            ("", 3, ""),
            ("x", 0, ""),
        ] {
            let shown = String::from_utf8_lossy(tail(text.as_bytes(), count)).into_owned();
            assert_eq!(shown, rest, "{text:?} {count}");
        }
        let long: String = (0..50_000).map(|n| format!("{n}\n")).collect();
        assert_eq!(tail(long.as_bytes(), 2), b"49998\n49999\n");
        assert!(tail(long.as_bytes(), 40_000).starts_with(b"10000\n"));
        let line = [b'x'; 3 * PIECE];
        assert_eq!(tail(&line, 1), line);
    }
}
