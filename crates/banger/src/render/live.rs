//! The terminal on stderr, where live lines are redrawn.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use indicatif::TermLike;
use rustix::termios;

/// Columns after a live line. A terminal echoes Ctrl-C as `^C` (ECHOCTL of termios(3)); at the end
/// of a full line the echo would continue on the next one, and a redraw would not erase the first.
const ECHO_COLUMNS: u16 = 2;
/// Rows and columns of a terminal that does not report its size.
const FALLBACK: (u16, u16) = (24, 80);

/// The terminal. A redraw is one write, which does not flicker.
#[derive(Debug, Default)]
pub struct LiveTerminal {
    pending: Mutex<Vec<u8>>,
}

impl LiveTerminal {
    fn push(&self, text: &str) -> io::Result<()> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Moves the cursor `n` places with a command of ECMA-48.
    fn move_cursor(&self, n: usize, command: char) -> io::Result<()> {
        // 0 places would count as 1.
        if n == 0 { Ok(()) } else { self.push(&format!("\x1b[{n}{command}")) }
    }
}

/// Rows and columns.
pub fn size() -> (u16, u16) {
    match termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => FALLBACK,
    }
}

impl TermLike for LiveTerminal {
    fn width(&self) -> u16 {
        size().1.saturating_sub(ECHO_COLUMNS).max(1)
    }

    fn height(&self) -> u16 {
        size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.push(&format!("{s}\n"))
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.push(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.push("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = std::mem::take(&mut *pending);
        io::stderr().write_all(&bytes)
    }
}
