//! Root disks that share their blocks with the image, on file systems with FICLONE (XFS, btrfs).

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use banger_sys::sparse::{self, Cloned};

/// Tests with two unnamed files whether a file of one folder can share blocks with a file of
/// another.
///
/// # Errors
/// The reason, as text after "not reflink: ".
pub fn reflinks(from: &Path, to: &Path) -> Result<(), String> {
    let tried = || -> io::Result<Cloned> {
        let (source, target) = (unnamed(from)?, unnamed(to)?);
        source.write_all_at(&[1; 4096], 0)?;
        sparse::clone(&source, &target)
    };
    match tried() {
        Ok(Cloned::Shared) => Ok(()),
        Ok(Cloned::CannotShare) => Err(why_not(from, to)),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(why_not(from, to)),
        Err(error) => Err(format!("trying it in `{}` failed: {error}", to.display())),
    }
}

/// O_TMPFILE of open(2): the kernel removes the file with its descriptor.
fn unnamed(folder: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(open(folder, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// The reason why two folders cannot share blocks.
pub(super) fn why_not(from: &Path, to: &Path) -> String {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    let (from_shown, to_shown) = (from.display(), to.display());
    match (device(from), device(to)) {
        (Some(one), Some(other)) if one != other => {
            format!("`{from_shown}` and `{to_shown}` are on different file systems")
        }
        _ => format!("the file system of `{to_shown}` cannot share blocks between files"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn support_is_reported_with_a_reason() {
        let one = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        if let Err(why) = reflinks(one.path(), one.path()) {
            assert!(why.contains("cannot share blocks"), "{why}");
        }
        let why = reflinks(one.path(), "/proc".as_ref()).unwrap_err();
        assert!(why.contains("different file systems"), "{why}");
        let why = reflinks(one.path(), "/no/such".as_ref()).unwrap_err();
        assert!(why.contains("/no/such"), "{why}");
        assert_eq!(std::fs::read_dir(one.path()).unwrap().count(), 0);
    }
}
