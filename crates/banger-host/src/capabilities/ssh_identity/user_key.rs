//! The user's ssh key: made at the first start of a VM, accepted by root of every VM.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use banger_api::hint::SetupAdvice;
use banger_api::{ApiError, ErrorCode};

use super::key;
use crate::failure::on_path;

/// Comment of the key, by which users recognise it in `authorized_keys`.
const COMMENT: &str = "banger";

/// The public half, as one line, of the key at `path`, which is made if it is missing.
///
/// # Errors
/// No room; a file that is not a private key.
pub fn public_line(path: &Path) -> Result<String, ApiError> {
    let private = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path)?;
            fs::read_to_string(path)
        }
        read => read,
    };
    let private = private.map_err(|error| on_path("read", path, &error))?;
    key::parse(&private).map_err(|error| {
        let text = format!("the ssh key `{}` is damaged", path.display());
        ApiError::new(ErrorCode::Corrupt, text)
            .caused_by(&error)
            .with_hint(SetupAdvice::RemoveFile { path: path.display().to_string() })
    })
}

/// Makes the key whole under another name first, so that it is never seen in part. Two at once
/// agree on one key, since link(2) replaces nothing.
fn make(path: &Path) -> Result<(), ApiError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(folder).map_err(|error| on_path("create", folder, &error))?;
    let random = getrandom::u64().map_err(|error| {
        let text = format!("cannot get random numbers for `{}`: {error}", path.display());
        ApiError::new(ErrorCode::Internal, text)
    })?;
    let made = path.with_file_name(format!(".new-{random:016x}"));
    let linked = key::create(&made, COMMENT).map(|_| fs::hard_link(&made, path));
    key::remove(&made)?;
    match linked? {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(on_path("create", path, &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_also_by_many_at_once() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("ssh/id_ed25519");
        let makers: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || public_line(&path).unwrap())
            })
            .collect();
        let lines: Vec<String> = makers.into_iter().map(|maker| maker.join().unwrap()).collect();
        assert!(lines[0].starts_with("ssh-ed25519 ") && lines[0].ends_with(" banger\n"));
        assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::write(&path, "nonsense").unwrap();
        let error = public_line(&path).unwrap_err();
        assert_eq!(error.code, ErrorCode::Corrupt);
        assert!(error.hint().unwrap().starts_with("remove `"));
    }
}
