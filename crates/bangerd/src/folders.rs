//! The daemon's folders: created if missing, accessible to their owner only.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use banger_api::paths::Paths;
use banger_api::{ApiError, ErrorCode, Hint};

use crate::failure::io_failure;

/// Creates all folders (mkdir(2) with mode 0700) and checks the owner of existing ones.
///
/// # Errors
/// A folder that cannot be created, is not a folder, or belongs to another user.
pub fn make(paths: &Paths) -> Result<(), ApiError> {
    let log = paths.log_folder();
    for folder in [&paths.state, &log, &paths.data, &paths.cache, &paths.run] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| io_failure("create the folder", folder, &error))?;
        check_owner(folder)?;
    }
    Ok(())
}

fn check_owner(folder: &Path) -> Result<(), ApiError> {
    let found =
        fs::metadata(folder).map_err(|error| io_failure("stat the folder", folder, &error))?;
    let ours = rustix::process::geteuid().as_raw();
    if found.uid() == ours {
        return Ok(());
    }
    let text = format!(
        "the folder `{}` belongs to user {}, but the daemon runs as user {ours}",
        folder.display(),
        found.uid()
    );
    Err(ApiError::new(ErrorCode::HostNotReady, text)
        .with_hint(Hint::UseFolder { variable: "BANGER_HOME".into() }))
}
