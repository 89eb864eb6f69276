//! The password of a VM's opencode server: a file in the VM's folder, which only the daemon's user
//! can read. It is neither in the store nor in the configuration.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{Applied, Undone};

use crate::failure::on_path;

/// Bytes of entropy.
const ENTROPY: usize = 24;

/// Creates the password, unless there is one.
///
/// # Errors
/// getrandom(2), write(2), rename(2).
pub fn create(path: &Path) -> Result<Applied, ApiError> {
    if read(path).is_ok() {
        return Ok(Applied::AlreadyThere);
    }
    let mut entropy = [0; ENTROPY];
    getrandom::fill(&mut entropy).map_err(|error| {
        let text = format!("cannot get random numbers for `{}`: {error}", path.display());
        ApiError::new(ErrorCode::Internal, text)
    })?;
    let mut password = String::with_capacity(2 * ENTROPY);
    for byte in entropy {
        // Writing to a string does not fail.
        let _ = write!(password, "{byte:02x}");
    }
    // Whole or not at all: a daemon may be killed meanwhile.
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
    file.and_then(|mut file| file.write_all(password.as_bytes()))
        .and_then(|()| fs::rename(&new, path))
        .map_err(|error| on_path("create", path, &error))?;
    Ok(Applied::Created)
}

/// Removes the password.
///
/// # Errors
/// unlink(2).
pub fn remove(path: &Path) -> Result<Undone, ApiError> {
    let mut undone = Undone::WasAbsent;
    for path in [path.with_extension("new"), path.to_owned()] {
        match fs::remove_file(&path) {
            Ok(()) => undone = Undone::Removed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(on_path("remove", &path, &error)),
        }
    }
    Ok(undone)
}

/// The password.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn read(path: &Path) -> Result<String, ApiError> {
    let text = fs::read_to_string(path).map_err(|error| on_path("read", path, &error))?;
    if text.len() == 2 * ENTROPY && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text);
    }
    let text = format!("the password in `{}` is damaged", path.display());
    Err(ApiError::new(ErrorCode::Corrupt, text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_password_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("opencode-password");
        assert_eq!(create(&path).unwrap(), Applied::Created);
        let password = read(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create(&path).unwrap(), Applied::AlreadyThere);
        assert_eq!(read(&path).unwrap(), password);
        let other = folder.path().join("other");
        create(&other).unwrap();
        assert_ne!(read(&other).unwrap(), password);
        assert_eq!(remove(&path).unwrap(), Undone::Removed);
        assert_eq!(remove(&path).unwrap(), Undone::WasAbsent);
        assert_eq!(read(&path).unwrap_err().code, ErrorCode::Internal);
    }

    #[test]
    fn a_damaged_password_is_named_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("opencode-password");
        fs::write(&path, "").unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.code, ErrorCode::Corrupt);
        assert!(error.message.contains("opencode-password"), "{error:?}");
        assert_eq!(create(&path).unwrap(), Applied::Created);
        assert!(read(&path).is_ok());
    }
}
