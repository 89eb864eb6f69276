//! Commands of a workspace in a guest.

use std::ffi::OsString;
use std::path::PathBuf;

use banger_api::operation::VmTag;
use banger_api::{ApiError, VmId};
use banger_client::{BlockingGuest, Client, Counter};
use banger_workspace::guest::{Guest, Talk};

use crate::context::Context;

/// The folder on this host that has the record of a machine's workspace. The daemon removes it with
/// the machine.
///
/// # Errors
/// The folders of the installation are not known.
pub fn store_folder(context: &Context, vm: &VmId) -> Result<PathBuf, ApiError> {
    Ok(context.paths()?.workspace(vm))
}

/// The guest of a machine.
pub struct Machine(BlockingGuest);

impl Machine {
    /// The guest of this machine, whose bytes are counted in both directions; within the runtime
    /// that will carry its streams.
    pub fn new(client: &Client, vm: &VmTag, counter: &Counter) -> Self {
        Self(BlockingGuest::new(client, vm).counted(counter))
    }
}

impl Guest for Machine {
    fn start(&self, command: &[OsString]) -> Result<Talk, ApiError> {
        let started = self.0.start(command)?;
        Ok(Talk {
            output: Box::new(started.output),
            input: Box::new(started.input),
            end: Box::new(move || started.end.wait()),
        })
    }
}
