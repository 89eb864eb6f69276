//! Looks up programs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Finds a program in the folders of `path` (a `PATH` value), or by its own path.
pub fn find_program(name: &Path, path: impl AsRef<OsStr>) -> Option<PathBuf> {
    let is_program = |candidate: &Path| {
        fs::metadata(candidate)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.components().count() > 1 {
        return is_program(name).then(|| name.to_owned());
    }
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|found| is_program(found))
}
