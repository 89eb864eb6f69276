//! Access of VMMs to files of the store.

use std::path::Path;

use banger_api::ApiError;

use crate::failure::on_path;

/// Lets a VMM with a uid of its own open a file again that it got as a descriptor (decision 2). The
/// folders above keep everybody else out.
///
/// # Errors
/// stat(2), chmod(2).
pub fn open_to_vmm(path: &Path) -> Result<(), ApiError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error: std::io::Error| on_path("give access to", path, &error);
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o444 == 0o444 {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).map_err(failed)
}
