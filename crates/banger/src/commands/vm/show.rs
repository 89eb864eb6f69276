//! `banger vm show`.

use banger_api::exit;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::details::{self, Reasons};

/// Show everything about one VM.
///
///   banger vm show web
///   banger vm show web --why        with the reason for each driver
///   banger vm show web --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// Also show why each driver was chosen
    #[arg(long)]
    pub why: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let vm = context.client().await?.vm(&args.vm).await?;
    let reasons = if args.why { Reasons::Show } else { Reasons::Hide };
    match context.format {
        Format::Json => context.json(&vm)?,
        Format::Text => context.print(&details::vm(&vm, reasons))?,
    }
    Ok(exit::OK)
}
