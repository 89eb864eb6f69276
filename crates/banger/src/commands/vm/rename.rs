//! `banger vm rename`.

use banger_api::VmName;
use banger_api::vm::VmAction;
use banger_client::batch::resolve;

use crate::batch::{self, DurationDisplay, Messages};
use crate::context::Context;
use crate::errors::Failure;
use crate::values;

/// Give a VM another name.
///
///   banger vm rename web shop
///   banger vm rename 3f9a shop      by a prefix of its id
///
/// Id, disks, ports and labels stay. NAME.vm and `ssh` follow at once, and the old
/// name is free. The host name in a running guest changes at its next start.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of an id
    pub vm: String,
    /// The new name: 1 to 63 of a-z, 0-9 and inner hyphens
    #[arg(value_name = "NEW", value_parser = values::vm_name, allow_hyphen_values = true)]
    pub name: VmName,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let targets = resolve(&client.vms().await?, &[args.vm]);
    let messages = Messages {
        done: format!("is `{}` now", args.name).into(),
        already: "has this name already".into(),
        duration: DurationDisplay::Hide,
    };
    batch::run(context, &client, targets, VmAction::Rename { name: args.name }, &messages).await
}
