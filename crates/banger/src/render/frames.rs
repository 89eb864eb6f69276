//! Output that is refreshed: on a terminal each frame replaces the previous one, elsewhere the
//! frames follow each other.
//!
//! Writes run on a thread of their own, so that Ctrl-C ends the command while the reader of its
//! output does not read.

use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::errors::Failure;
use crate::terminal;

/// Moves the cursor to the upper left corner and clears the screen: CUP and ED of ECMA-48.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// The frames of a command.
pub struct Frames {
    live: bool,
    first: bool,
}

impl Frames {
    /// For standard output.
    pub fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { live: io::stdout().is_terminal() && !dumb, first: true }
    }

    /// Shows a frame of whole lines.
    ///
    /// # Errors
    /// write(2).
    pub async fn show(&mut self, text: String) -> Result<(), Failure> {
        let separator = if self.first { "" } else { "\n" };
        self.first = false;
        let text = match self.live {
            true => format!("{CLEAR}{}", cut(&text, usize::from(terminal::size().rows))),
            false => format!("{separator}{text}"),
        };
        write(text).await
    }
}

/// The lines that fit on a screen with the cursor below them; the last one counts the others.
fn cut(text: &str, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let room = rows.saturating_sub(1).max(2);
    if lines.len() <= room {
        return text.to_owned();
    }
    let shown: String = lines.iter().take(room - 1).map(|line| format!("{line}\n")).collect();
    format!("{shown}… and {} more\n", lines.len() - (room - 1))
}

/// Writes text to standard output.
///
/// # Errors
/// write(2).
pub async fn write(text: String) -> Result<(), Failure> {
    let writing = tokio::task::spawn_blocking(move || {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    });
    Ok(writing.await.map_err(io::Error::other)??)
}

/// Resolves when the reader of a pipe on standard output is gone (POLLERR of poll(2)); never for a
/// file. Its thread ends with the process.
pub async fn reader_gone() {
    let watched = tokio::task::spawn_blocking(|| {
        let out = io::stdout();
        let mut polled = [PollFd::new(&out, PollFlags::empty())];
        loop {
            match poll(&mut polled, None) {
                Err(Errno::INTR) => {}
                ended => return ended,
            }
        }
    });
    if !matches!(watched.await, Ok(Ok(_))) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_on_the_screen() {
        let text = "NAME\na\nb\nc\n";
        assert_eq!(cut(text, 5), text);
        assert_eq!(cut(text, 4), "NAME\na\n… and 2 more\n");
        assert_eq!(cut(text, 1), "NAME\n… and 3 more\n", "a terminal of one row");
    }
}
