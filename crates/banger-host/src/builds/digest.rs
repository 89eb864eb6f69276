//! Digests of files and folders that a build copies: what arrives in the guest, and no more.
//! Owners and times do not count, since copies belong to root and a checkout changes times.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use banger_api::{ApiError, ErrorCode, Hint};
use banger_image::fetch::digest_of_file;

use crate::failure::on_path;

/// Maximum number of files of one copy; an agent unpacks no more.
const MAX_FILES: usize = 1 << 20;
/// Maximum depth of folders.
const MAX_DEPTH: usize = 256;

/// SHA-256 over the names, kinds, modes, link targets and contents below a path, as lowercase hex.
/// A symlink at the path itself is followed, no other one.
///
/// # Errors
/// A file that cannot be read; too many files.
pub fn of(source: &Path) -> Result<String, ApiError> {
    let meta = fs::metadata(source).map_err(|error| {
        let failed = on_path("read", source, &error);
        match error.kind() {
            std::io::ErrorKind::NotFound => ApiError { code: ErrorCode::NotFound, ..failed }
                .with_hint(Hint::text("name a file or folder on the daemon's host")),
            _ => failed,
        }
    })?;
    let mut lines = Vec::new();
    add(&mut lines, source, Path::new("."), &meta, 0)?;
    // The order of names in a folder is not defined.
    lines.sort();
    let text = lines.concat();
    digest_of_file(text.as_slice()).map_err(|error| on_path("read", source, &error))
}

fn add(
    lines: &mut Vec<Vec<u8>>,
    path: &Path,
    relative: &Path,
    meta: &fs::Metadata,
    depth: usize,
) -> Result<(), ApiError> {
    let failed = |error: std::io::Error| on_path("read", path, &error);
    let too_much = |what: &str| {
        Err(ApiError::new(ErrorCode::BadRequest, format!("`{}` has {what}", path.display())))
    };
    if lines.len() >= MAX_FILES {
        return too_much("too many files to copy");
    }
    if depth > MAX_DEPTH {
        return too_much("too many folders in each other");
    }
    let mode = meta.mode() & 0o7777;
    let kind = meta.file_type();
    // Fields end with a zero byte, which no path contains.
    let mut line = [relative.as_os_str().as_bytes(), b"\0"].concat();
    if kind.is_dir() {
        line.extend(format!("folder {mode:o}\0").into_bytes());
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let inner = entry.path();
            let meta =
                fs::symlink_metadata(&inner).map_err(|error| on_path("read", &inner, &error))?;
            add(lines, &inner, &relative.join(entry.file_name()), &meta, depth + 1)?;
        }
    } else if kind.is_file() {
        let file = File::open(path).map_err(failed)?;
        let digest = digest_of_file(file.take(u64::MAX)).map_err(failed)?;
        line.extend(format!("file {mode:o} {digest}\0").into_bytes());
    } else if kind.is_symlink() {
        line.extend(b"link ");
        line.extend(fs::read_link(path).map_err(failed)?.as_os_str().as_bytes());
        line.push(0);
    } else {
        // Pipes are copied, sockets and devices are not.
        line.extend(format!("special {:o}\0", meta.mode()).into_bytes());
    }
    lines.push(line);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_digest_changes_with_what_is_copied_only() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir_all(top.join("a")).unwrap();
        fs::write(top.join("a/one"), "1").unwrap();
        fs::write(top.join("two"), "2").unwrap();
        symlink("a/one", top.join("link")).unwrap();
        let first = of(&top).unwrap();
        let other = folder.path().join("other");
        fs::create_dir_all(other.join("a")).unwrap();
        symlink("a/one", other.join("link")).unwrap();
        fs::write(other.join("two"), "2").unwrap();
        fs::write(other.join("a/one"), "1").unwrap();
        assert_eq!(of(&other).unwrap(), first, "made in another order, at another time");
        symlink(&top, folder.path().join("to-top")).unwrap();
        assert_eq!(of(&folder.path().join("to-top")).unwrap(), first);
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(top.join("a/one"), "x").unwrap(),
            &|| {
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(top.join("two"), mode).unwrap();
            },
            &|| fs::rename(top.join("two"), top.join("a/two")).unwrap(),
            &|| {
                fs::remove_file(top.join("link")).unwrap();
                symlink("two", top.join("link")).unwrap();
            },
        ];
        let mut known = vec![first];
        for change in changes {
            change();
            let now = of(&top).unwrap();
            assert!(!known.contains(&now));
            known.push(now);
        }
        let error = of(&folder.path().join("none")).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound);
    }
}
