//! Room on the disk: what is free, what a folder really takes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{FetchError, Place};

/// Bytes an unprivileged user may still write where `path` is: statvfs(3).
///
/// # Errors
/// Those of the call.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Refuses work that would not fit.
///
/// # Errors
/// [`FetchError::NoSpace`].
pub fn need_space(path: &Path, need_bytes: u64) -> Result<(), FetchError> {
    let free_bytes = free_bytes(path).at("look at the free space of", path)?;
    if free_bytes < need_bytes {
        return Err(FetchError::NoSpace { path: path.to_owned(), need_bytes, free_bytes });
    }
    Ok(())
}

/// Bytes that a file, or a folder with everything in it, takes on the disk; links are not followed.
///
/// What vanishes while it is looked at counts as nothing.
pub fn used_bytes(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let own = meta.blocks() * 512;
    if !meta.is_dir() {
        return own;
    }
    let Ok(entries) = fs::read_dir(path) else { return own };
    own + entries.flatten().map(|entry| used_bytes(&entry.path())).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_needs_are_refused_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        need_space(folder.path(), 1).unwrap();
        let error = need_space(folder.path(), u64::MAX).unwrap_err();
        assert!(matches!(error, FetchError::NoSpace { need_bytes: u64::MAX, .. }), "{error}");
    }

    #[test]
    fn a_sparse_file_takes_what_it_takes() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("full"), vec![1; 1 << 20]).unwrap();
        fs::File::create(folder.path().join("holes")).unwrap().set_len(1 << 30).unwrap();
        let used = used_bytes(folder.path());
        assert!((1 << 20..2 << 20).contains(&used), "{used}");
    }
}
