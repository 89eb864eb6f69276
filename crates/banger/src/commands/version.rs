//! `banger version`.

use banger_api::exit;

use crate::context::{BUILD_ID, Context, Format};
use crate::errors::Failure;

/// Show the version and build of banger.
///
///   banger version
///   banger version --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs the command.
pub fn run(context: &Context, _args: Args) -> Result<u8, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match context.format {
        Format::Text => context.print(&format!("banger {version} (build {BUILD_ID})\n"))?,
        Format::Json => {
            context.json(&serde_json::json!({ "version": version, "build_id": BUILD_ID }))?;
        }
    }
    Ok(exit::OK)
}
