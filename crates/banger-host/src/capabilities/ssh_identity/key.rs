//! The VM's ssh host key, created with the VM and stored in its folder.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use banger_api::hint::SetupAdvice;
use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{Applied, Undone};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

use crate::failure::on_path;

fn bad_key(path: &Path, error: &ssh_key::Error) -> ApiError {
    let text = format!("the ssh host key `{}` is damaged", path.display());
    ApiError::new(ErrorCode::Corrupt, text)
        .caused_by(error)
        .with_hint(SetupAdvice::RestoreFile { path: path.display().to_string() })
}

/// Creates an ed25519 key in OpenSSH's own format (PROTOCOL.key of OpenSSH), mode 0600.
///
/// # Errors
/// getrandom(2), write(2).
pub fn create(path: &Path, comment: &str) -> Result<Applied, ApiError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        let text = format!("cannot get random numbers for `{}`: {error}", path.display());
        ApiError::new(ErrorCode::Internal, text)
    })?;
    let key = PrivateKey::new(Ed25519Keypair::from_seed(&seed).into(), comment)
        .and_then(|key| key.to_openssh(LineEnding::LF))
        .map_err(|error| bad_key(path, &error))?;
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => file
            .write_all(key.as_bytes())
            .map(|()| Applied::Created)
            .map_err(|error| on_path("write", path, &error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Applied::AlreadyThere),
        Err(error) => Err(on_path("create", path, &error)),
    }
}

/// Removes the key.
///
/// # Errors
/// unlink(2).
pub fn remove(path: &Path) -> Result<Undone, ApiError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Undone::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Undone::WasAbsent),
        Err(error) => Err(on_path("remove", path, &error)),
    }
}

/// The public key as one line.
///
/// # Errors
/// Not a private key in OpenSSH's format.
pub fn public_line(private: &str, path: &Path) -> Result<String, ApiError> {
    parse(private).map_err(|error| bad_key(path, &error))
}

/// The same, with the error of the parser.
///
/// # Errors
/// Not a private key in OpenSSH's format.
pub fn parse(private: &str) -> Result<String, ssh_key::Error> {
    let key = PrivateKey::from_openssh(private)?;
    Ok(format!("{}\n", key.public_key().to_openssh()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert_eq!(create(&path, "web"), Ok(Applied::Created));
        let first = fs::read_to_string(&path).unwrap();
        assert_eq!(create(&path, "web"), Ok(Applied::AlreadyThere));
        assert_eq!(fs::read_to_string(&path).unwrap(), first);
        let public = public_line(&first, &path).unwrap();
        assert!(public.starts_with("ssh-ed25519 ") && public.ends_with(" web\n"), "{public}");
        assert_eq!(remove(&path), Ok(Undone::Removed));
        assert_eq!(remove(&path), Ok(Undone::WasAbsent));
        assert!(public_line("nonsense", &path).is_err());
    }
}
