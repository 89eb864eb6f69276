//! `banger operation show`.

use banger_api::operation::OperationView;
use banger_api::{OpId, exit};

use super::{state_text, subject_text, with_hint};
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::plain;
use crate::render::time::ago;

/// Show one operation with its result.
///
///   banger operation show op-abc123
///   banger daemon logs --op op-abc123    its lines in the daemon's log
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Id, such as op-abc123
    #[arg(value_name = "OPERATION")]
    pub operation: OpId,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let view = context.client().await?.operation(&args.operation).await.map_err(with_hint)?;
    match context.format {
        Format::Json => context.json(&view)?,
        Format::Text => context.print(&text(&view))?,
    }
    Ok(exit::OK)
}

fn text(view: &OperationView) -> String {
    let mut rows = vec![
        ("id", view.id.to_string()),
        ("kind", view.kind.clone()),
        ("subject", subject_text(&view.subject)),
        ("state", state_text(view.state).to_owned()),
        ("started", format!("{} ({})", ago(&view.started_at), view.started_at)),
    ];
    rows.extend(view.made.clone().map(|made| ("created", made)));
    rows.extend(view.trace.as_ref().map(|trace| ("trace", trace.to_string())));
    if let Some(error) = &view.error {
        rows.push(("error", error.message.clone()));
        rows.extend(error.causes.iter().map(|cause| ("because", cause.clone())));
        rows.extend(error.hint().map(|hint| ("hint", hint)));
    }
    let indent = " ".repeat(9);
    let line =
        |(name, value): &(&str, String)| format!("{name:<9}{}\n", plain::block(value, &indent));
    rows.iter().map(line).collect()
}
