//! The helper with a failpoint.
//!
//! `BANGER_ROOT_ABORT_ONCE=FILE` aborts the process at the point that FILE names, for example
//! `jail_make.after`, and removes FILE before, so that the next helper continues.

use std::path::Path;

/// Name of the variable.
pub const VARIABLE: &str = "BANGER_ROOT_ABORT_ONCE";

/// Aborts the process if the environment selects this point.
pub fn abort_once(point: &str) {
    if std::env::var_os(VARIABLE).is_some_and(|file| take(Path::new(&file), point)) {
        std::process::abort();
    }
}

/// Whether the file names the point and is removed now.
fn take(file: &Path, point: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|wanted| wanted.trim() == point)
        && std::fs::remove_file(file).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("point");
        assert!(!take(&file, "make.after"), "no file");
        std::fs::write(&file, "make.after\n").unwrap();
        assert!(!take(&file, "make.before"));
        assert!(take(&file, "make.after"));
        assert!(!take(&file, "make.after") && !file.exists());
    }
}
