//! The user's terminal: raw while a guest's terminal is shown on it, and always put back.

use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;

use banger_api::ApiError;
use banger_client::WindowSize;
use rustix::termios::{self, OptionalActions, Termios};

use crate::errors::usage;

/// Size that is assumed where the terminal does not know its own.
const FALLBACK: WindowSize = WindowSize { rows: 24, cols: 80 };

/// A terminal in raw mode; put back when dropped, which a panic does too.
pub struct RawTerminal {
    terminal: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// Takes the terminal that is our standard input, so that keys go to the guest as they are.
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

    /// Makes it raw (again: a shell that stopped and continued us has put it back).
    pub fn apply(&self) -> rustix::io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        termios::tcsetattr(&self.terminal, OptionalActions::Now, &raw)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // What was typed and not read is the guest's, so it is thrown away (tcsetattr(3), FLUSH).
        let _ = termios::tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Size of the terminal that shows our output.
pub fn size() -> WindowSize {
    let known = termios::tcgetwinsize(io::stdout()).or_else(|_| termios::tcgetwinsize(io::stdin()));
    match known {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            WindowSize { rows: size.ws_row, cols: size.ws_col }
        }
        _ => FALLBACK,
    }
}

/// Whether both ends are a terminal, so that a shell can be shown.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// What needs a terminal.
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
            .with_hint("leave out `-t`; `-i` alone passes standard input on"),
        Wanted::Shell => usage(format!("a shell needs a terminal, and {missing} is not one"))
            .with_hint(
                "`banger exec VM -- CMD` runs one command, `banger exec -i VM -- sh` passes \
                 standard input to a shell",
            ),
    })
}
