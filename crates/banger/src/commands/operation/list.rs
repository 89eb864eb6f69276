//! `banger operation list`.

use banger_api::exit;
use banger_api::operation::{OpState, OperationView};

use super::{state_text, subject_text};
use crate::context::{Context, Format, Verbosity};
use crate::errors::Failure;
use crate::render::table::{Column, table};
use crate::render::time::ago;

/// Show the newest operations of the daemon, newest first.
///
///   banger operation list
///   banger operation list --running
///   banger op ls -q                 ids only
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only operations that have not ended
    #[arg(long)]
    pub running: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let mut operations = context.client().await?.operations().await?;
    if args.running {
        operations.retain(|operation| operation.state == OpState::Running);
    }
    match (context.format, context.verbosity) {
        (Format::Json, _) => context.json(&operations)?,
        (Format::Text, Verbosity::Quiet) => {
            let ids = operations.iter().map(|operation| format!("{}\n", operation.id));
            context.print(&ids.collect::<String>())?;
        }
        (Format::Text, _) => context.print(&text(&operations))?,
    }
    Ok(exit::OK)
}

fn text(operations: &[OperationView]) -> String {
    let columns = [
        Column::text("ID", 0),
        Column::text("KIND", 1),
        Column::long_text("SUBJECT", 2, 12),
        Column::text("STATE", 3),
        Column::text("STARTED", 4),
    ];
    let row = |operation: &OperationView| {
        vec![
            operation.id.to_string(),
            operation.kind.clone(),
            subject_text(&operation.subject),
            state_text(operation.state).to_owned(),
            ago(&operation.started_at),
        ]
    };
    table(&columns, &operations.iter().map(row).collect::<Vec<_>>())
}
