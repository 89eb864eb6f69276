//! Context of a command: paths, client, output format and verbosity.

use std::io::{self, IsTerminal, Write};

use banger_api::ApiError;
use banger_api::limits::VmDefaults;
use banger_api::paths::Paths;
use banger_client::{Client, Launcher, inherited_trace};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::cli::Global;
use crate::errors::Failure;
use crate::interrupt::Interrupts;
use crate::render::{self, plain};

/// Build id of this program and of its daemon.
pub const BUILD_ID: &str = env!("BANGER_BUILD_ID");

/// Format of the output on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// Amount of output on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors and warnings.
    Quiet,
    /// Also progress and information.
    Normal,
    /// Also details for troubleshooting.
    Verbose,
}

/// Context of a command.
pub struct Context {
    /// Format of results.
    pub format: Format,
    /// Amount of output on stderr.
    pub verbosity: Verbosity,
    /// Ctrl-C.
    pub interrupts: Interrupts,
}

impl Context {
    /// Creates the context from the global flags.
    pub fn new(global: &Global) -> Self {
        let verbosity = match (global.quiet, global.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        };
        let format = if global.json { Format::Json } else { Format::Text };
        Self { format, verbosity, interrupts: Interrupts::default() }
    }

    /// Paths of folders and sockets.
    pub fn paths(&self) -> Result<Paths, ApiError> {
        Paths::resolve(|name| std::env::var_os(name), rustix::process::geteuid().as_raw())
    }

    /// A client that starts no daemon before its first call.
    pub fn client_as_is(&self) -> Result<Client, ApiError> {
        let client = Client::new(self.paths()?, Launcher::from_env(BUILD_ID)?);
        Ok(client.in_trace(inherited_trace()))
    }

    /// A client whose first call starts the daemon if none answers.
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
        self.print_bytes(text.as_bytes())
    }

    /// Prints a result that may not be text.
    pub fn print_bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = anstream::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// Prints a line of information to stderr.
    pub fn info(&self, text: &str) {
        if self.verbosity >= Verbosity::Normal {
            render::to_stderr(text);
        }
    }

    /// Whether the user can answer a question on the terminal.
    pub fn can_prompt(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks a question on the terminal; only `y` and `yes` confirm.
    pub async fn confirm(&self, question: &str) -> Result<bool, Failure> {
        write!(io::stderr(), "{question} [y/N] ")?;
        let mut answer = String::new();
        let mut stdin = BufReader::new(tokio::io::stdin());
        self.interrupts.run_interruptible(stdin.read_line(&mut answer)).await??;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// Default values of a new VM from the installed daemon program; none without one.
pub async fn defaults() -> Option<VmDefaults> {
    Launcher::from_env(BUILD_ID).ok()?.defaults().await.ok()
}
