//! Shows the log of a VM as it arrives.

use std::io::{self, IsTerminal, Write};

use banger_client::{LogPiece, LogStream};

use crate::errors::Failure;
use crate::render::console::ConsoleFilter;
use crate::render::plain;
use crate::render::since::Since;

/// Format of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// Plain text.
    Plain,
    /// One JSON object for each line.
    Objects,
}

/// Shows a log until it ends; with `since`, from that time on. Returns whether a line had a time;
/// without `since`, true.
pub async fn show(
    mut log: LogStream,
    lines: Lines,
    mut since: Option<Since>,
) -> Result<bool, Failure> {
    let mut shape = Shape::new(lines);
    let mut rest = Vec::new();
    while let Some(piece) = log.next().await? {
        // The console of a VM says nothing about the daemon.
        let LogPiece::Bytes(piece) = piece else { continue };
        let Some(since) = &mut since else {
            shape.pass(&piece)?;
            continue;
        };
        rest.extend_from_slice(&piece);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        shape.pass(&since.select(&rest.drain(..whole).collect::<Vec<u8>>()))?;
    }
    shape.end()?;
    Ok(match since {
        Some(since) => since.timed,
        None => true,
    })
}

/// Output on stdout.
enum Shape {
    Raw,
    Filtered(ConsoleFilter),
    Objects(Vec<u8>),
}

/// Maximum length of a line in one object, in bytes; a longer line becomes several objects.
const MAX_LINE: usize = 64 * 1024;

impl Shape {
    fn new(lines: Lines) -> Self {
        match lines {
            Lines::Objects => Self::Objects(Vec::new()),
            // Guest output must not control the terminal.
            Lines::Plain if io::stdout().is_terminal() => Self::Filtered(Default::default()),
            Lines::Plain => Self::Raw,
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
