//! What can go wrong with stored objects and the programs that make them.

use std::io;
use std::path::{Path, PathBuf};

/// What an object is, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A root file system.
    Image,
    /// A kernel with its modules.
    Kernel,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Kernel => "kernel",
        })
    }
}

/// Failures that kernels and images share.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A program is not installed.
    #[error("the program `{tool}` was not found")]
    MissingTool {
        /// Its name.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program ended with a failure.
    #[error("`{tool}` failed ({status}){}", said_last(said))]
    ToolFailed {
        /// Its name.
        tool: &'static str,
        /// Exit code or signal.
        status: String,
        /// The last lines it said.
        said: Vec<String>,
    },
    /// The work was no longer wanted.
    #[error("cancelled")]
    Cancelled,
    /// The operating system refused something.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// A verb.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Its reason.
        #[source]
        source: io::Error,
    },
    /// The disk is full, or would be.
    #[error("not enough space for `{}`: {} MiB free, {} MiB needed", path.display(),
        free_bytes >> 20, need_bytes.div_ceil(1 << 20))]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes that are needed.
        need_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// Nothing has this name or id.
    #[error("{kind} `{wanted}` not found")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// The reference.
        wanted: String,
    },
    /// An id prefix fits more than one.
    #[error("{kind} `{wanted}` is ambiguous: {}", candidates.join(", "))]
    Ambiguous {
        /// What was looked for.
        kind: Kind,
        /// The reference.
        wanted: String,
        /// Ids that fit.
        candidates: Vec<String>,
    },
    /// A name that cannot be given.
    #[error(
        "`{name}` is no {kind} name: use a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit"
    )]
    BadName {
        /// For what.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// VMs need it.
    #[error("{kind} `{wanted}` is used by {}", vms.join(", "))]
    InUse {
        /// What was to be deleted.
        kind: Kind,
        /// The reference.
        wanted: String,
        /// Names of the VMs.
        vms: Vec<String>,
    },
    /// A stored object is not what it was when it was published.
    #[error("{kind} `{id}` is damaged: `{}` {why}", path.display())]
    Damaged {
        /// What it is.
        kind: Kind,
        /// Its id.
        id: String,
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

fn said_last(said: &[String]) -> String {
    said.last().map(|line| format!(": {line}")).unwrap_or_default()
}

impl FetchError {
    /// This error as one that a reader can return; [`Place::at`] turns it back.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// An error about a path. A full disk and an error of ours inside become what they are.
    pub fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        if source.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            let kind = source.kind();
            return match source.into_inner().and_then(|inner| inner.downcast::<Self>().ok()) {
                Some(ours) => *ours,
                None => Self::Io { what, path: path.to_owned(), source: kind.into() },
            };
        }
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let free_bytes = super::free_bytes(path.parent().unwrap_or(path)).unwrap_or_default();
            let need_bytes = free_bytes + 1;
            return Self::NoSpace { path: path.to_owned(), need_bytes, free_bytes };
        }
        Self::Io { what, path: path.to_owned(), source }
    }
}

/// Says where an operating-system error happened.
pub trait Place<T> {
    /// Names the deed and the path.
    ///
    /// # Errors
    /// The same one, placed.
    fn at(self, what: &'static str, path: &Path) -> Result<T, FetchError>;
}

impl<T> Place<T> for io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, FetchError> {
        self.map_err(|source| FetchError::io(what, path, source))
    }
}

impl<T> Place<T> for rustix::io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, FetchError> {
        self.map_err(|source| FetchError::io(what, path, source.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_ours_comes_back_out_of_a_reader() {
        let through = FetchError::Cancelled.into_io();
        assert!(matches!(FetchError::io("read", Path::new("/x"), through), FetchError::Cancelled));
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = FetchError::io("write", Path::new("/tmp/x"), full);
        assert!(error.to_string().starts_with("not enough space for `/tmp/x`: "), "{error}");
    }

    #[test]
    fn a_failed_program_is_quoted_once() {
        let error = FetchError::ToolFailed {
            tool: "tar",
            status: "exit code 2".into(),
            said: vec!["a".into(), "no such file".into()],
        };
        assert_eq!(error.to_string(), "`tar` failed (exit code 2): no such file");
    }
}
