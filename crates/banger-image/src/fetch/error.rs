//! Errors of stored objects, and of the programs that create them.

use std::io;
use std::path::{Path, PathBuf};

use banger_api::size::human_size;

/// Kind of an object, for messages.
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

/// Errors that kernels and images share.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A program is not installed.
    #[error("the program `{tool}` was not found")]
    MissingTool {
        /// Its name.
        tool: &'static str,
        /// Its Debian package.
        package: &'static str,
    },
    /// A program failed.
    #[error("`{tool}` failed ({status}){}", last_output(output))]
    ToolFailed {
        /// Its name.
        tool: &'static str,
        /// Exit code or signal.
        status: String,
        /// The last lines of its output.
        output: Vec<String>,
    },
    /// A file of `[ca]` cannot be used.
    #[error(transparent)]
    Certificates(#[from] crate::ca::CaError),
    /// The operation was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// An error of the operating system.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// The failed operation, a verb.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The disk would be full.
    #[error("not enough space for `{}`: {} free, {} needed", path.display(),
        human_size(*free_bytes), human_size(*need_bytes))]
    NoSpace {
        /// The path.
        path: PathBuf,
        /// Needed bytes, with those that stay free.
        need_bytes: u64,
        /// Free bytes.
        free_bytes: u64,
    },
    /// The disk became full.
    #[error("the disk is full: cannot {doing} `{}`", path.display())]
    DiskFull {
        /// The failed operation, a verb.
        doing: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// No object has this name or id.
    #[error("{kind} `{wanted}` not found")]
    NotFound {
        /// Kind of the object.
        kind: Kind,
        /// The reference.
        wanted: String,
        /// All names of objects of this kind.
        names: Vec<String>,
    },
    /// An id prefix matches several objects.
    #[error("{kind} `{wanted}` is ambiguous: {}", candidates.join(", "))]
    Ambiguous {
        /// Kind of the object.
        kind: Kind,
        /// The reference.
        wanted: String,
        /// Matching ids.
        candidates: Vec<String>,
    },
    /// An invalid name.
    #[error(
        "`{name}` is no {kind} name: use a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit"
    )]
    BadName {
        /// Kind of the object.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// VMs use the object.
    #[error("{kind} `{wanted}` is used by {}", vms.join(", "))]
    InUse {
        /// Kind of the object.
        kind: Kind,
        /// The reference.
        wanted: String,
        /// Names of the VMs.
        vms: Vec<String>,
    },
    /// A stored object has changed since it was published.
    #[error("{kind} `{id}` is damaged: `{}` {why}", path.display())]
    Damaged {
        /// Kind of the object.
        kind: Kind,
        /// Its id.
        id: String,
        /// The damaged file.
        path: PathBuf,
        /// The defect.
        why: String,
    },
}

fn last_output(output: &[String]) -> String {
    output.last().map(|line| format!(": {line}")).unwrap_or_default()
}

impl FetchError {
    /// This error as an [`std::io::Error`] for a reader; [`PathContext::at`] converts it back.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// An error on a path. Detects a full disk, and restores an error converted by
    /// [`Self::into_io`].
    pub fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        if source.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            let kind = source.kind();
            return match source.into_inner().and_then(|inner| inner.downcast::<Self>().ok()) {
                Some(ours) => *ours,
                None => Self::Io { doing, path: path.to_owned(), source: kind.into() },
            };
        }
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::DiskFull { doing, path: path.to_owned() };
        }
        Self::Io { doing, path: path.to_owned(), source }
    }
}

/// Adds the operation and the path to an error of the operating system.
pub trait PathContext<T> {
    /// Adds them.
    ///
    /// # Errors
    /// The error with its context.
    fn at(self, doing: &'static str, path: &Path) -> Result<T, FetchError>;
}

impl<T> PathContext<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, FetchError> {
        self.map_err(|source| FetchError::io(doing, path, source))
    }
}

impl<T> PathContext<T> for rustix::io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, FetchError> {
        self.map_err(|source| FetchError::io(doing, path, source.into()))
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
    fn a_full_disk_has_its_own_error() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = FetchError::io("write", Path::new("/tmp/x"), full);
        assert_eq!(error.to_string(), "the disk is full: cannot write `/tmp/x`");
    }

    #[test]
    fn a_failed_program_is_quoted_once() {
        let error = FetchError::ToolFailed {
            tool: "tar",
            status: "exit code 2".into(),
            output: vec!["a".into(), "no such file".into()],
        };
        assert_eq!(error.to_string(), "`tar` failed (exit code 2): no such file");
    }
}
