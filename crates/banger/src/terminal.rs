//! The user's terminal: in raw mode during a session with a guest, and always restored.

use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;

use banger_api::{ApiError, Hint};
use banger_client::WindowSize;
use rustix::termios::{self, OptionalActions, Termios};

use crate::errors::usage;

/// Size of a terminal that does not report its own.
const FALLBACK: WindowSize = WindowSize { rows: 24, cols: 80 };

/// A terminal in raw mode; restored when dropped, also by a panic.
pub struct RawTerminal {
    terminal: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// Sets the terminal on standard input to raw mode.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub fn take() -> Result<Self, ApiError> {
        let input = io::stdin();
        let taken = rustix::io::dup(&input).and_then(|terminal| {
            let before = termios::tcgetattr(&terminal)?;
            Ok(Self { terminal, before })
        });
        let raw = taken.and_then(|raw| {
            raw.apply()?;
            Ok(raw)
        });
        raw.map_err(|error| {
            usage("the terminal cannot be set up").caused_by(&io::Error::from(error))
        })
    }

    /// Sets raw mode (again: a shell restores the mode when it stops this process).
    pub fn apply(&self) -> rustix::io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        termios::tcsetattr(&self.terminal, OptionalActions::Now, &raw)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Discards unread input, which was typed for the guest (TCSAFLUSH of tcsetattr(3)).
        let _ = termios::tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Size of the terminal on standard output.
pub fn size() -> WindowSize {
    let known = termios::tcgetwinsize(io::stdout()).or_else(|_| termios::tcgetwinsize(io::stdin()));
    match known {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            WindowSize { rows: size.ws_row, cols: size.ws_col }
        }
        _ => FALLBACK,
    }
}

/// Whether standard input and output are terminals.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Reason for a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The flag `-t`.
    Flag,
    /// A shell.
    Shell,
}

/// Checks that a guest's terminal can be shown.
///
/// # Errors
/// Input or output is not a terminal.
pub fn require(wanted: Wanted) -> Result<(), ApiError> {
    let missing = match (io::stdin().is_terminal(), io::stdout().is_terminal()) {
        (true, true) => return Ok(()),
        (false, _) => "standard input",
        (true, false) => "standard output",
    };
    Err(match wanted {
        Wanted::Flag => usage(format!("`-t` needs a terminal, and {missing} is not one"))
            .with_hint(Hint::text("leave out `-t`; `-i` alone passes standard input on")),
        Wanted::Shell => usage(format!("a shell needs a terminal, and {missing} is not one"))
            .with_hint(Hint::text(
                "`banger exec VM -- CMD` runs one command, `banger exec -i VM -- sh` passes \
                 standard input to a shell",
            )),
    })
}
