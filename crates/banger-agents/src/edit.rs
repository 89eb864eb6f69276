//! A change of one file, made whole or not at all.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use banger_api::{ApiError, ErrorCode, Hint};

/// Largest file that is changed, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A file before and after; absent files are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path.
    pub path: PathBuf,
    /// Its present text.
    pub before: Option<String>,
    /// Its text after the change.
    pub after: Option<String>,
}

impl Change {
    /// Whether there is anything to do.
    pub fn is_needed(&self) -> bool {
        self.before != self.after
    }

    /// Writes or removes the file; folders that become empty are removed up to `top`.
    ///
    /// # Errors
    /// The file has been changed meanwhile, or the system's.
    pub fn make(&self, top: &Path) -> Result<(), ApiError> {
        if read(&self.path)? != self.before {
            let text = format!("`{}` was changed meanwhile", self.path.display());
            return Err(ApiError::new(ErrorCode::Busy, text));
        }
        let made = match &self.after {
            Some(text) => write(&self.path, text),
            None => fs::remove_file(&self.path).map(|()| remove_empty(&self.path, top)),
        };
        made.map_err(|error| failed(&self.path, "cannot be written", &error))
    }
}

/// Reads a text file; `None` if it is absent.
///
/// # Errors
/// The system's; what is no file, not text, or too large.
pub fn read(path: &Path) -> Result<Option<String>, ApiError> {
    let failed = |error: io::Error| failed(path, "cannot be read", &error);
    let refused = |what: &str| {
        let text = format!("`{}` {what}", path.display());
        Err(ApiError::new(ErrorCode::BadRequest, text))
    };
    // A FIFO is not waited for, and a device not read: a repository can have links to both.
    match fs::metadata(path) {
        Ok(file) if !file.is_file() => return refused("is no file"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match path.is_symlink() {
                true => refused("is a link to a file that does not exist"),
                false => Ok(None),
            };
        }
        found => found.map_err(failed)?,
    };
    let file = fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if read as u64 > MAX_BYTES {
        return refused("has more than 4 MiB");
    }
    Ok(Some(text))
}

/// Checks that a path does not lead out of the folder by a link: a repository can have one to the
/// settings of the user, which are those of all other folders.
///
/// # Errors
/// It does.
pub fn check_inside(path: &Path, top: &Path) -> Result<(), ApiError> {
    let is_dangling = |above: &&Path| above.is_symlink() && !above.exists();
    if let Some(link) = path.ancestors().take_while(|above| *above != top).find(is_dangling) {
        let text = format!("`{}` is a link to a folder that does not exist", link.display());
        return Err(ApiError::new(ErrorCode::BadRequest, text));
    }
    let (place, inside) = (resolved(path), resolved(top));
    if place.starts_with(&inside) {
        return Ok(());
    }
    let text = format!(
        "`{}` is `{}` by a link, which is outside of `{}`",
        path.display(),
        place.display(),
        inside.display()
    );
    Err(ApiError::new(ErrorCode::BadRequest, text)
        .with_hint(Hint::text("put a folder in place of the link: nothing was written")))
}

/// Where a path leads, which may not exist.
fn resolved(path: &Path) -> PathBuf {
    let real: Option<PathBuf> = path.ancestors().find_map(|above| {
        let (found, rest) = (fs::canonicalize(above).ok()?, path.strip_prefix(above).ok()?);
        Some(found.components().chain(rest.components()).collect())
    });
    real.unwrap_or_else(|| path.to_owned())
}

fn failed(path: &Path, what: &str, error: &io::Error) -> ApiError {
    let text = format!("`{}` {what}", path.display());
    ApiError::new(ErrorCode::of_io(error), text).caused_by(error)
}

/// Replaces a file by one with this text and the same mode; a symlink stays, and its target is
/// replaced.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mode = fs::metadata(&path).map_or(0o644, |file| file.permissions().mode() & 0o777);
    let temporary = folder.join(format!(".banger-{}.tmp", std::process::id()));
    let written = (|| {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    })();
    if written.is_err() {
        // The first error is the reason.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn remove_empty(path: &Path, top: &Path) {
    let mut folder = path.parent();
    while let Some(empty) = folder.filter(|folder| *folder != top && folder.starts_with(top)) {
        // It fails for a folder with something in it.
        if fs::remove_dir(empty).is_err() {
            return;
        }
        folder = empty.parent();
    }
}
