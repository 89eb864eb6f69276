//! `banger mcp`: machines as tools for agents.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use banger_api::{ApiError, Hint, exit};
use banger_mcp::{Access, Ended, Folders, Options, Tool};

use crate::context::Context;
use crate::errors::{Failure, usage};

/// Serve tools to an agent, on standard input and output (Model Context Protocol).
///
///   banger mcp                        all tools
///   banger mcp --read-only            tools that change nothing
///   banger mcp --tools create,exec    these tools only
///
/// Agents start it, such as after `claude mcp add banger -- banger mcp`; it is of
/// no use on a terminal. The machines that an agent creates are deleted when it
/// ends the session, unless it asks to keep them.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Offer only tools that change no machine and no file
    #[arg(long)]
    pub read_only: bool,
    /// Offer only these tools, separated by commas [default: all]
    #[arg(long, value_name = "TOOLS", value_delimiter = ',', value_parser = tool)]
    pub tools: Vec<Tool>,
    /// Let the agent copy files from and to this folder of this host, and what is in it; once for
    /// each folder [default: the working folder]
    #[arg(long, value_name = "FOLDER")]
    pub files: Vec<PathBuf>,
}

fn tool(name: &str) -> Result<Tool, String> {
    name.parse().map_err(|error: ApiError| match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    })
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let options = Options {
        tools: offered(&args)?,
        folders: Folders::new(&args.files)?,
        version: env!("CARGO_PKG_VERSION"),
    };
    if io::stdin().is_terminal() {
        let hint = "an agent starts it, such as after `claude mcp add banger -- banger mcp`";
        return Err(usage("standard input is a terminal").with_hint(Hint::text(hint)).into());
    }
    match banger_mcp::serve(context.client_as_is()?, options).await? {
        Ended::Closed => Ok(exit::OK),
        Ended::Signal(number) => Ok(128 + number),
    }
}

fn offered(args: &Args) -> Result<Vec<Tool>, ApiError> {
    let wanted = |tool: &Tool| args.tools.is_empty() || args.tools.contains(tool);
    let allowed = |tool: &Tool| !args.read_only || tool.access() == Access::Read;
    if let Some(tool) = args.tools.iter().find(|tool| !allowed(tool)) {
        return Err(usage(format!("`{tool}` changes something, which `--read-only` excludes")));
    }
    Ok(Tool::ALL.into_iter().filter(|tool| wanted(tool) && allowed(tool)).collect())
}
