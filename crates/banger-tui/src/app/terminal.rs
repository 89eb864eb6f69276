//! The user's terminal: taken for the screen, and always given back as it was.

use std::io::{self, IsTerminal, Stdout, Write};

use banger_api::{ApiError, ErrorCode, Hint};
use crossterm::cursor::{Hide, Show};
use crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
};
use crossterm::execute;
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use crate::model::Model;
use crate::view;

/// The screen in place of the terminal's content, until this is dropped.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

/// The error for a terminal that does not work.
fn failed(error: &io::Error) -> ApiError {
    ApiError::new(ErrorCode::Internal, "the terminal cannot be used").caused_by(error)
}

/// Checks that there is a terminal with a screen.
///
/// # Errors
/// Input or output is not a terminal, or it cannot move its cursor.
pub fn require() -> Result<(), ApiError> {
    let missing = match (io::stdin().is_terminal(), io::stdout().is_terminal()) {
        (true, true) => None,
        (false, _) => Some("standard input"),
        (true, false) => Some("standard output"),
    };
    let hint = Hint::text("`banger vm list` shows all VMs, `banger vm list --json` for programs");
    if let Some(missing) = missing {
        let text = format!("`banger tui` needs a terminal, and {missing} is not one");
        return Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(hint));
    }
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        let text = "`banger tui` needs a terminal with a screen, and `TERM` is `dumb`";
        return Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(hint));
    }
    Ok(())
}

impl Screen {
    /// Takes the terminal. A panic gives it back before its message is shown.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn take() -> Result<Self, ApiError> {
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()));
        let mut screen = Self { terminal: terminal.map_err(|error| failed(&error))? };
        screen.enter()?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            before(panic);
        }));
        Ok(screen)
    }

    /// Shows the screen, again after [`leave`].
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn enter(&mut self) -> Result<(), ApiError> {
        let entered = enable_raw_mode().and_then(|()| {
            let mut out = io::stdout();
            let (mouse, paste) = (EnableMouseCapture, EnableBracketedPaste);
            execute!(out, EnterAlternateScreen, Clear(ClearType::All), mouse, paste, Hide)
        });
        // A new terminal draws all cells. `Terminal::clear` would ask for the place of the cursor
        // and wait for the answer.
        let fresh = entered.and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match fresh {
            Ok(terminal) => self.terminal = terminal,
            Err(error) => {
                leave();
                return Err(failed(&error));
            }
        }
        Ok(())
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn draw(&mut self, model: &mut Model) -> Result<(), ApiError> {
        let drawn = self.draw_frame(model);
        drawn.map_err(|error| failed(&error))
    }

    fn draw_frame(&mut self, model: &mut Model) -> io::Result<()> {
        // The terminal shows the frame as a whole, if it can.
        execute!(io::stdout(), BeginSynchronizedUpdate)?;
        let mut hits = Vec::new();
        self.terminal.draw(|frame| hits = view::draw(model, frame))?;
        model.hits = hits;
        execute!(io::stdout(), EndSynchronizedUpdate)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Gives the terminal back as it was; a second time has no effect.
pub fn leave() {
    let mut out = io::stdout();
    // A terminal that is gone cannot be restored, nor can that be told to anybody.
    let _ = disable_raw_mode();
    let _ = execute!(
        out,
        EndSynchronizedUpdate,
        DisableBracketedPaste,
        DisableMouseCapture,
        LeaveAlternateScreen,
        Show
    );
    let _ = out.flush();
}
