//! `banger vm workspace diff`.

use std::io::{self, IsTerminal as _, Write as _};

use banger_api::{ApiError, exit};
use banger_workspace::Workspace;
use banger_workspace::fetch::Limits;
use banger_workspace::pull::{Fetched, Form, Which};

use super::{machine, on_workspace, open, thread_failed};
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::render::patch::Patch;

/// Show what the machine has changed, as a patch.
///
///   banger vm workspace diff web
///   banger vm workspace diff web --stat       files and numbers of lines
///   banger vm workspace diff web >work.patch  for `git apply`
///
/// The patch leads from the last common state of both sides to the machine's files,
/// whether they are committed there or not.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// Show files and numbers of lines only
    #[arg(long)]
    pub stat: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if context.format == Format::Json {
        return Err(
            usage("a patch cannot be shown as JSON: `status --json` lists the files").into()
        );
    }
    let client = context.client().await?;
    let vm = machine(&client, &args.vm).await?;
    let form = if args.stat { Form::Stat } else { Form::Patch };
    let workspace = (open(context, &vm).await?, "diff");
    let (workspace, fetched) =
        on_workspace(context, &client, &vm, workspace, |workspace, machine| {
            workspace.fetch(&machine, &Limits::default(), Which::All)
        })
        .await?;
    // A pager may not read for a while.
    let writing = tokio::task::spawn_blocking(move || write(&workspace, &fetched, form));
    let written = context.interrupts.run_interruptible(writing).await?;
    written.map_err(|error| thread_failed(&error))???;
    Ok(exit::OK)
}

/// Writes the changes to standard output; the inner error is a reader that has closed it.
fn write(workspace: &Workspace, fetched: &Fetched, form: Form) -> Result<io::Result<()>, ApiError> {
    let mut stdout = Stdout { to: io::stdout(), is_closed: false };
    let written = if stdout.to.is_terminal() {
        let mut patch = Patch::new(anstream::AutoStream::auto(io::stdout()));
        workspace.write(fetched, form, &mut patch).map(|()| patch.flush())
    } else {
        // As it is, for git: escape sequences are content.
        workspace.write(fetched, form, &mut stdout).map(|()| stdout.flush())
    };
    match written {
        Err(_) if stdout.is_closed => Ok(Err(io::ErrorKind::BrokenPipe.into())),
        written => written,
    }
}

/// Standard output, and whether its reader has closed it.
struct Stdout {
    to: io::Stdout,
    is_closed: bool,
}

impl io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes);
        self.is_closed |= matches!(&written, Err(e) if e.kind() == io::ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
