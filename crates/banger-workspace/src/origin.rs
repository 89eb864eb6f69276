//! Where the files of a machine came from. A folder that was copied (`banger run PATH --copy`) has
//! a record of that only, without a list of files, so nothing is compared with it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use banger_api::{ApiError, ErrorCode, Hint};

use crate::store::{self, Store, make, of_file};

/// Name of the file, beside the record of a repository.
const FILE: &str = "copied";

/// Most bytes of the two paths of a record.
const MAX_PATHS: u64 = 64 << 10;

/// A repository or a copied folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// On this host.
    pub path: PathBuf,
    /// In the guest.
    pub folder: Vec<u8>,
}

impl Origin {
    /// The one on record in the folder of a machine's workspace, without its list of files.
    ///
    /// # Errors
    /// Another version of banger wrote the record of the repository, or it cannot be read.
    pub fn of(workspace: &Path) -> Result<Option<Self>, ApiError> {
        if !Store::is_at(workspace) {
            return Ok(Self::of_copy(workspace));
        }
        let path = workspace.join(store::RECORD);
        let read = File::open(&path).and_then(|file| {
            let mut from = BufReader::new(file.take(MAX_PATHS));
            let mut field = || {
                let mut field = Vec::new();
                from.read_until(0, &mut field).map(|_| (field.pop() == Some(0)).then_some(field))
            };
            Ok([field()?, field()?, field()?])
        });
        match read.map_err(|error| of_file(&path, &error))? {
            [Some(format), Some(top), Some(folder)] if format == store::FORMAT => {
                Ok(Some(Self { path: OsString::from_vec(top).into(), folder }))
            }
            _ => Err(store::unknown(&path)),
        }
    }

    /// Puts a copied folder on record in the folder of a machine's workspace.
    ///
    /// # Errors
    /// The file system's.
    pub fn keep_copy(&self, workspace: &Path) -> Result<(), ApiError> {
        let file = workspace.join(FILE);
        let content = [self.path.as_os_str().as_bytes(), b"\0", &self.folder, b"\0"].concat();
        let kept = make(workspace).and_then(|()| fs::write(&file, content));
        kept.map_err(|error| of_file(&file, &error))
    }

    /// The copied folder on record.
    fn of_copy(workspace: &Path) -> Option<Self> {
        let content = fs::read(workspace.join(FILE)).ok()?;
        let mut fields = content.split(|byte| *byte == 0);
        let path = PathBuf::from(OsString::from_vec(fields.next()?.to_vec()));
        let folder = fields.next()?.to_vec();
        // Without its end it was cut off.
        fields.next().map(|_| Self { path, folder })
    }
}

/// The error for a machine `vm` without the record of a repository in this folder.
pub fn no_repository(workspace: &Path, vm: &str) -> ApiError {
    let Some(Origin { path, folder }) = Origin::of_copy(workspace) else {
        let text = format!("no repository of this host is on record for `{vm}`");
        return ApiError::new(ErrorCode::NotFound, text)
            .with_hint(Hint::text("`banger run PATH` puts a repository in a new machine"));
    };
    let (path, folder) = (path.display(), String::from_utf8_lossy(&folder));
    let text = format!(
        "`{vm}` has a copy of `{path}` in `{folder}`, which `--copy` made: only repositories are \
         compared"
    );
    let hint = format!(
        "`banger cp {vm}:{folder} .` copies it back, `banger vm set {vm} --sync {path}:{folder}` \
         keeps both alike, `banger run PATH` without `--copy` makes a workspace"
    );
    ApiError::new(ErrorCode::NotFound, text).with_hint(Hint::text(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_on_record_and_named_in_the_error() {
        let state = tempfile::tempdir().unwrap();
        let at = state.path().join("workspace");
        assert_eq!(Origin::of_copy(&at), None);
        assert!(no_repository(&at, "web").message.contains("no repository of this host"));
        let path = PathBuf::from(OsString::from_vec(b"/home/me/a \xff".to_vec()));
        let copied = Origin { path, folder: b"/root/a \xff".to_vec() };
        copied.keep_copy(&at).unwrap();
        assert_eq!(Origin::of_copy(&at), Some(copied));
        let error = no_repository(&at, "web");
        assert!(error.message.contains("/home/me/a"), "{error:?}");
        let whole = fs::read(at.join(FILE)).unwrap();
        fs::write(at.join(FILE), &whole[..whole.len() - 1]).unwrap();
        assert_eq!(Origin::of_copy(&at), None, "it is cut off");
    }
}
