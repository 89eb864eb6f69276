//! A repository of the host, and whether it can be sent.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use banger_api::{ApiError, ErrorCode, Hint};
use banger_archive::beneath::Folder;

use crate::git::Git;

/// A git repository with a work tree.
#[derive(Debug, Clone)]
pub struct Repository {
    git: Git,
    /// The folder of this work tree's own state: HEAD, index, a merge in progress.
    git_dir: PathBuf,
}

impl Repository {
    /// The repository that has this folder in its work tree.
    ///
    /// # Errors
    /// Not a folder, not in a repository, a bare repository, inside of `.git`, or git's.
    pub fn find(path: &Path) -> Result<Self, ApiError> {
        let shown = path.display();
        let path = std::fs::canonicalize(path).map_err(|error| {
            let text = format!("`{shown}` cannot be opened");
            ApiError::new(ErrorCode::NotFound, text).caused_by(&error)
        })?;
        if !path.is_dir() {
            return Err(ApiError::new(ErrorCode::BadRequest, format!("`{shown}` is not a folder")));
        }
        let git = Git::new(&path);
        let asked =
            ["rev-parse", "--is-bare-repository", "--is-inside-git-dir", "--is-inside-work-tree"];
        let Some(answer) = answered(&git, &asked)? else {
            let text = format!("`{shown}` is not in a git repository");
            return Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(Hint::text(format!(
                "`--copy` sends the folder as it is, `git init` makes it a repository; to run \
                 `{shown}` as a command: `banger run -- {shown}`"
            ))));
        };
        if answer.starts_with(b"true") {
            let text = format!("`{shown}` is a bare repository: it has no files to work on");
            return Err(ApiError::new(ErrorCode::BadRequest, text)
                .with_hint(Hint::text("clone it, and name the clone")));
        }
        if answer == b"false\nfalse\nfalse\n" {
            let text =
                format!("the repository of `{shown}` has its files elsewhere (`core.worktree`)");
            return Err(ApiError::new(ErrorCode::BadRequest, text)
                .with_hint(Hint::text("clone it, and name the clone")));
        }
        if !answer.ends_with(b"true\n") {
            let text = format!("`{shown}` is inside of a `.git` folder");
            return Err(ApiError::new(ErrorCode::BadRequest, text)
                .with_hint(Hint::text("name a folder of the work tree")));
        }
        let top = line(git.output(["rev-parse", "--show-toplevel"])?);
        let git = Git::without_filters(Path::new(OsStr::from_bytes(&top)))?;
        let git_dir = line(git.output(["rev-parse", "--absolute-git-dir"])?);
        Ok(Self { git, git_dir: PathBuf::from(OsStr::from_bytes(&git_dir)) })
    }

    /// git in the top folder of the work tree.
    pub fn git(&self) -> &Git {
        &self.git
    }

    /// The top folder of the work tree, opened.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn folder(&self) -> Result<Folder, ApiError> {
        Folder::open(self.top()).map_err(|error| {
            let text = format!("`{}` cannot be opened", self.top().display());
            ApiError::new(ErrorCode::NotFound, text).caused_by(&error)
        })
    }

    /// The folder of the repository's objects.
    ///
    /// # Errors
    /// git's.
    pub fn objects(&self) -> Result<Vec<u8>, ApiError> {
        let asked = ["rev-parse", "--path-format=absolute", "--git-path", "objects"];
        Ok(line(self.git.output(asked)?))
    }

    /// Paths of files that are neither tracked nor ignored, and of other repositories in the work
    /// tree.
    ///
    /// # Errors
    /// git's.
    pub fn untracked(&self) -> Result<[Vec<Vec<u8>>; 2], ApiError> {
        let listing = self.git.output(["ls-files", "--others", "--exclude-standard", "-z"])?;
        let paths = listing.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        // Another repository is shown as a folder.
        let (nested, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.ends_with(b"/"));
        Ok([files, nested].map(|paths| paths.into_iter().map(<[u8]>::to_vec).collect()))
    }

    /// Copies the index, with its times: git compares those with the files'. Without an index there
    /// is no copy.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn copy_index(&self, to: &Path) -> Result<(), ApiError> {
        let from = self.git_dir.join("index");
        let copied = (|| {
            match std::fs::remove_file(to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let times = match std::fs::metadata(&from) {
                Ok(found) => found.modified()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            std::fs::copy(&from, to)?;
            std::fs::File::options().write(true).open(to)?.set_modified(times)
        })();
        copied.map_err(|error| {
            let text = format!("`{}` cannot be copied", from.display());
            ApiError::new(ErrorCode::of_io(&error), text).caused_by(&error)
        })
    }

    /// The top folder of the work tree.
    pub fn top(&self) -> &Path {
        self.git.folder()
    }

    /// The folder of this work tree's own state.
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// The folder of objects, branches and settings, which all work trees share.
    ///
    /// # Errors
    /// git's.
    pub fn common_dir(&self) -> Result<PathBuf, ApiError> {
        let asked = ["rev-parse", "--path-format=absolute", "--git-common-dir"];
        let path = line(self.git.output(asked)?);
        Ok(PathBuf::from(OsStr::from_bytes(&path)))
    }

    /// A file in the folder of this work tree's state; `None` if it does not exist or is larger
    /// than 1 MiB.
    pub fn state(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.git_dir.join(name);
        let is_small = std::fs::metadata(&path).is_ok_and(|file| file.len() <= 1 << 20);
        is_small.then(|| std::fs::read(path).ok())?
    }

    /// Whether this work tree's state has such a file or folder.
    pub fn has_state(&self, name: &str) -> bool {
        self.git_dir.join(name).exists()
    }

    /// Settings of the repository itself whose names match a regular expression.
    ///
    /// # Errors
    /// git's.
    pub fn local_settings(&self, pattern: &str) -> Result<Vec<(String, Vec<u8>)>, ApiError> {
        let listing = self.git.optional(["config", "--local", "-z", "--get-regexp", pattern])?;
        let listing = listing.unwrap_or_default();
        let entries = listing.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
        let setting = |entry: &[u8]| {
            let (name, value) = entry.split_at_checked(entry.iter().position(|b| *b == b'\n')?)?;
            Some((String::from_utf8(name.to_vec()).ok()?, value.get(1..)?.to_vec()))
        };
        Ok(entries.filter_map(setting).collect())
    }

    /// A setting; with `local` only of the repository itself.
    ///
    /// # Errors
    /// git's.
    pub fn setting(&self, name: &str, local: bool) -> Result<Option<Vec<u8>>, ApiError> {
        let scope: &[&str] = if local { &["--local"] } else { &[] };
        let arguments = [&["config"], scope, &["-z", "--get", name]].concat();
        let value = self.git.optional(arguments)?;
        Ok(value.map(|value| value.strip_suffix(b"\0").unwrap_or(&value).to_vec()))
    }
}

/// The answer of rev-parse; `None` outside of any repository.
fn answered(git: &Git, arguments: &[&str]) -> Result<Option<Vec<u8>>, ApiError> {
    match git.output(arguments) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.causes.iter().any(|cause| cause.contains("not a git repository")) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Output without its line break.
fn line(mut output: Vec<u8>) -> Vec<u8> {
    if output.last() == Some(&b'\n') {
        output.pop();
    }
    output
}
