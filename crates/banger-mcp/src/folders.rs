//! The folders of this host that a client may copy from and to: a model that was misled by the
//! content of a file must not send the user's keys to a machine, or replace the user's settings.

use std::io;
use std::path::{Path, PathBuf};

use banger_api::{ApiError, ErrorCode, Hint};

/// Folders, with everything in them.
#[derive(Debug, Clone, Default)]
pub struct Folders(Vec<PathBuf>);

impl Folders {
    /// These folders. Without any, the working folder of this process, unless that is the root of
    /// the file system, as where a desktop starts servers.
    ///
    /// # Errors
    /// A folder that is not there.
    pub fn new(folders: &[PathBuf]) -> Result<Self, ApiError> {
        if folders.is_empty() {
            let working = std::env::current_dir().and_then(|folder| folder.canonicalize());
            let of_a_project = |folder: &PathBuf| folder.parent().is_some();
            return Ok(Self(working.ok().filter(of_a_project).into_iter().collect()));
        }
        let resolved = folders.iter().map(|folder| {
            let found = folder.canonicalize().and_then(|found| match found.is_dir() {
                true => Ok(found),
                false => Err(io::ErrorKind::NotADirectory.into()),
            });
            found.map_err(|error| unusable(folder, &error))
        });
        resolved.collect::<Result<_, _>>().map(Self)
    }

    /// Resolves the path of a file or folder to read.
    ///
    /// # Errors
    /// It is missing or outside.
    pub fn source(&self, path: &str) -> Result<PathBuf, ApiError> {
        let path = Path::new(path);
        let found = path.canonicalize().map_err(|error| unusable(path, &error))?;
        self.check(path, &found)?;
        Ok(found)
    }

    /// Resolves the path of a folder to write into, or of a file or folder to make.
    ///
    /// # Errors
    /// Its parent is missing; it is outside.
    pub fn target(&self, path: &str) -> Result<PathBuf, ApiError> {
        let path = Path::new(path);
        let found = match path.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = path.file_name().ok_or_else(|| unusable(path, &error))?;
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                parent.canonicalize().map(|parent| parent.join(name))
            }
            found => found,
        };
        let found = found.map_err(|error| unusable(path, &error))?;
        self.check(path, &found)?;
        Ok(found)
    }

    fn check(&self, path: &Path, found: &Path) -> Result<(), ApiError> {
        if self.0.iter().any(|folder| found.starts_with(folder)) {
            return Ok(());
        }
        let path = banger_api::excerpt(&path.display().to_string());
        let text = format!("`{path}` is not in a folder that this server may use");
        let folders: Vec<String> = self.0.iter().map(|one| one.display().to_string()).collect();
        let hint = match folders.as_slice() {
            [] => "start it with `banger mcp --files FOLDER`".to_owned(),
            folders => {
                let folders = folders.join("`, `");
                format!("it may use `{folders}`; `banger mcp --files FOLDER` allows another one")
            }
        };
        Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(Hint::text(hint)))
    }
}

fn unusable(path: &Path, error: &io::Error) -> ApiError {
    let path = banger_api::excerpt(&path.display().to_string());
    let code = match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::NotFound,
        _ => ErrorCode::BadRequest,
    };
    ApiError::new(code, format!("`{path}` of this host cannot be used")).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_dots_do_not_lead_out() {
        let all = tempfile::tempdir().unwrap();
        let (inside, outside) = (all.path().join("in"), all.path().join("out"));
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("key"), "secret").unwrap();
        std::fs::write(inside.join("file"), "text").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let folders = Folders::new(std::slice::from_ref(&inside)).unwrap();
        let path = |name: &str| inside.join(name).display().to_string();
        for name in ["file", "sub", "sub/../file", "."] {
            folders.source(&path(name)).unwrap();
            folders.target(&path(name)).unwrap();
        }
        assert_eq!(folders.target(&path("new")).unwrap(), inside.join("new"));
        for name in ["link/key", "../out/key", "link", "sub/../../out/key", ".."] {
            let error = folders.source(&path(name)).unwrap_err();
            assert!(error.message.contains("is not in a folder"), "{name}: {error:?}");
            assert!(error.hint().unwrap().contains("--files"), "{name}");
            folders.target(&path(name)).unwrap_err();
        }
        assert!(folders.target(&path("link/new")).is_err());
        assert!(folders.target(&path("nosuch/new")).is_err());
        // A name that begins alike is another folder.
        std::fs::create_dir(all.path().join("inside")).unwrap();
        assert!(folders.source(&all.path().join("inside").display().to_string()).is_err());
        assert!(Folders::default().source(&path("file")).is_err(), "no folder allows nothing");
        assert!(Folders::new(&[inside.join("file")]).is_err(), "a file is no folder");
    }
}
