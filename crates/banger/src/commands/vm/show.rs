//! `banger vm show`.

use banger_api::exit;
use banger_api::opencode::VmSecrets;
use banger_api::vm::VmDetails;
use serde::Serialize;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::details::{self, Reasons};

/// Show everything about one VM.
///
///   banger vm show web
///   banger vm show web --why        with the reason for each driver
///   banger vm show web --secrets    with the password of its opencode server
///   banger vm show web --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub vm: String,
    /// Also show why each driver was chosen
    #[arg(long)]
    pub why: bool,
    /// Also show passwords
    #[arg(long)]
    pub secrets: bool,
}

/// The document of `--json --secrets`.
#[derive(Serialize)]
struct WithSecrets<'a> {
    #[serde(flatten)]
    vm: &'a VmDetails,
    secrets: VmSecrets,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let vm = client.vm(&args.vm).await?;
    let secrets = match args.secrets {
        true => Some(client.secrets(vm.summary.id.as_str()).await?),
        false => None,
    };
    let reasons = if args.why { Reasons::Show } else { Reasons::Hide };
    match (context.format, secrets) {
        (Format::Json, None) => context.json(&vm)?,
        (Format::Json, Some(secrets)) => context.json(&WithSecrets { vm: &vm, secrets })?,
        (Format::Text, secrets) => {
            let secrets = secrets.as_ref().map(details::secrets).unwrap_or_default();
            context.print(&(details::vm(&vm, reasons) + &secrets))?;
        }
    }
    Ok(exit::OK)
}
