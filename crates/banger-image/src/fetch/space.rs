//! Disk space: free bytes, and allocated size of folders.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use banger_api::disk::HEADROOM_BYTES;

use super::{FetchError, PathContext};

/// Bytes that an unprivileged user can still write at `path`: statvfs(3).
///
/// # Errors
/// statvfs(3).
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Checks that enough space is free for these bytes and [`HEADROOM_BYTES`].
///
/// # Errors
/// [`FetchError::NoSpace`].
pub fn need_space(path: &Path, need_bytes: u64) -> Result<(), FetchError> {
    let free_bytes = free_bytes(path).at("look at the free space of", path)?;
    let need_bytes = need_bytes.saturating_add(HEADROOM_BYTES);
    if free_bytes < need_bytes {
        return Err(FetchError::NoSpace { path: path.to_owned(), need_bytes, free_bytes });
    }
    Ok(())
}

/// Allocated bytes of a file, or of a folder with its content; links are not followed.
///
/// Files removed meanwhile count as zero.
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
    fn the_allocated_size_of_a_sparse_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("full"), vec![1; 1 << 20]).unwrap();
        fs::File::create(folder.path().join("holes")).unwrap().set_len(1 << 30).unwrap();
        let used = used_bytes(folder.path());
        assert!((1 << 20..2 << 20).contains(&used), "{used}");
    }
}
