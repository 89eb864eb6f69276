//! What every command is given: where things are, how to talk to the daemon, how to show things.

use std::io::{self, IsTerminal, Write};

use banger_api::ApiError;
use banger_api::limits::VmDefaults;
use banger_api::paths::Paths;
use banger_client::{Client, Launcher};
use serde::Serialize;

use crate::cli::Global;
use crate::errors::Failure;
use crate::interrupt::Interrupts;
use crate::render::{self, plain};

/// Build of this program and of the daemon that belongs to it.
pub const BUILD_ID: &str = env!("BANGER_BUILD_ID");

/// Shape of what goes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How much is said on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volume {
    /// Errors and warnings.
    Quiet,
    /// What a person wants to know.
    Normal,
    /// Also what one wants to know when something is wrong.
    Verbose,
}

/// What every command is given.
pub struct Context {
    /// Shape of results.
    pub format: Format,
    /// How much to say.
    pub volume: Volume,
    /// Ctrl-C.
    pub interrupts: Interrupts,
}

impl Context {
    /// From the flags that every command has.
    pub fn new(global: &Global) -> Self {
        let volume = match (global.quiet, global.verbose) {
            (true, _) => Volume::Quiet,
            (false, true) => Volume::Verbose,
            (false, false) => Volume::Normal,
        };
        let format = if global.json { Format::Json } else { Format::Text };
        Self { format, volume, interrupts: Interrupts::default() }
    }

    /// Where banger keeps things.
    pub fn paths(&self) -> Result<Paths, ApiError> {
        Paths::resolve(|name| std::env::var_os(name), rustix::process::geteuid().as_raw())
    }

    /// A client that starts nothing.
    pub fn client_as_is(&self) -> Result<Client, ApiError> {
        Ok(Client::new(self.paths()?, Launcher::from_env(BUILD_ID)?))
    }

    /// A client whose first call starts the daemon where none answers.
    pub async fn client(&self) -> Result<Client, ApiError> {
        self.client_as_is()
    }

    /// Prints a result as one JSON document.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
        self.print(&(plain::json(&text) + "\n"))
    }

    /// Prints a result.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = anstream::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Says something that a person wants to know.
    pub fn say(&self, text: &str) {
        if self.volume >= Volume::Normal {
            render::to_stderr(text);
        }
    }

    /// Whether somebody sits in front of it who can answer a question.
    pub fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }
}

/// Values of a new VM as the installed daemon would decide them, where there is one.
pub async fn defaults() -> Option<VmDefaults> {
    Launcher::from_env(BUILD_ID).ok()?.defaults().await.ok()
}
