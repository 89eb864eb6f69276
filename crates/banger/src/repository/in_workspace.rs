//! `--workspace`: the folder of a machine's repository as the working folder of a command.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::{Client, ExecRequest};
use banger_workspace::origin::Origin;

use super::store_folder;
use crate::context::Context;
use crate::errors::Failure;

/// The working folder of a command in a machine.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct InWorkspace {
    /// Run in the folder of the repository that `banger run PATH` put in the machine
    #[arg(long, conflicts_with = "workdir")]
    pub workspace: bool,
}

impl InWorkspace {
    /// Sets the working folder, if it was asked for.
    ///
    /// # Errors
    /// No such machine, or no repository on record for it.
    pub async fn apply(
        self,
        context: &Context,
        client: &Client,
        vm: &str,
        request: &mut ExecRequest,
    ) -> Result<(), Failure> {
        if !self.workspace {
            return Ok(());
        }
        let vm = client.vm(vm).await?.summary;
        let folder = store_folder(context, &vm.id)?;
        let Some(origin) = Origin::of(&folder)? else {
            let text = format!("no repository of this host is on record for `{}`", vm.name);
            let hint = "`banger run PATH` puts one in a new machine; `-w DIR` names any folder";
            let error = ApiError::new(ErrorCode::NotFound, text);
            return Err(error.with_hint(Hint::text(hint)).into());
        };
        request.cwd = Some(OsString::from_vec(origin.folder).into());
        Ok(())
    }
}
