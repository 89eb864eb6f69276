//! `banger vm show`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use banger_api::opencode::VmSecrets;
use banger_api::vm::{VmDetails, VmSummary};
use banger_api::{ApiError, ByteString, exit};
use banger_workspace::origin::Origin;
use banger_workspace::store::Store;
use serde::Serialize;

use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::details::{self, Reasons};
use crate::repository::store_folder;

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

/// The document of `--json`: what the daemon knows, and what this host does.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    vm: &'a VmDetails,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<WorkspaceView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets: Option<VmSecrets>,
}

/// The repository or folder that `banger run PATH` put in a machine.
#[derive(Serialize)]
struct WorkspaceView {
    /// On this host.
    host: ByteString,
    /// In the machine.
    guest: ByteString,
    /// Whether it is a copy of a folder, which is not compared.
    is_copy: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let vm = client.vm(&args.vm).await?;
    let secrets = match args.secrets {
        true => Some(client.secrets(vm.summary.id.as_str()).await?),
        false => None,
    };
    let workspace = workspace(context, &vm.summary)?;
    let reasons = if args.why { Reasons::Show } else { Reasons::Hide };
    if context.format == Format::Json {
        context.json(&Shown { vm: &vm, workspace, secrets })?;
        return Ok(exit::OK);
    }
    let workspace = workspace.map(|shown| details::workspace(&shown.host, &shown.guest));
    let secrets = secrets.as_ref().map(details::secrets);
    let more = workspace.into_iter().chain(secrets).collect::<String>();
    context.print(&(details::vm(&vm, reasons) + &more))?;
    Ok(exit::OK)
}

/// What is on record on this host for a machine.
fn workspace(context: &Context, vm: &VmSummary) -> Result<Option<WorkspaceView>, ApiError> {
    let folder = store_folder(context, &vm.id)?;
    // A record in another form does not hide the machine; `vm workspace` tells of it.
    let Ok(Some(Origin { path, folder: guest })) = Origin::of(&folder) else { return Ok(None) };
    Ok(Some(WorkspaceView {
        host: path.into_os_string().into(),
        guest: OsString::from_vec(guest).into(),
        is_copy: !Store::is_at(&folder),
    }))
}
