//! `banger __man`, with which `make install` writes the manual pages.

use std::path::PathBuf;

use banger_api::{ApiError, ErrorCode, exit};
use clap::CommandFactory;

use crate::cli::Cli;
use crate::context::Context;
use crate::errors::Failure;
use crate::{man, values};

/// Write the manual pages of all commands to a folder.
///
///   banger __man /usr/share/man/man1
///   banger __man                    names of the pages only
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The folder, which must exist
    pub folder: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let pages = man::pages(values::with_defaults(Cli::command(), None))?;
    let Some(folder) = args.folder else {
        context.print(&pages.iter().map(|page| format!("{}\n", page.name)).collect::<String>())?;
        return Ok(exit::OK);
    };
    for page in pages {
        let path = folder.join(&page.name);
        std::fs::write(&path, &page.text).map_err(|error| {
            let text = format!("cannot write `{}`", path.display());
            ApiError::new(ErrorCode::Internal, text).caused_by(&error)
        })?;
    }
    Ok(exit::OK)
}
