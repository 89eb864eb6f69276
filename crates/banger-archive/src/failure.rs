//! Why a tree was not packed or unpacked.

use std::io;

use rustix::io::Errno;

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The archive is malformed, or contains what is not allowed.
    Archive,
    /// The stream of the archive failed or ended early.
    Stream,
    /// A file is in the way: of another type, or a symlink.
    Conflict,
    /// Not found.
    Missing,
    /// No permission, or a read-only file system.
    Denied,
    /// The disk is full.
    NoSpace,
    /// The disk failed otherwise.
    Disk,
}

impl Cause {
    /// The HTTP status with which an agent reports it. 410 is a path that does not exist: an agent
    /// without archives answers 404.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Archive | Self::Stream => 400,
            Self::Denied => 403,
            Self::Conflict => 409,
            Self::Missing => 410,
            Self::Disk => 500,
            Self::NoSpace => 507,
        }
    }
}

/// A failure, naming the entry.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Kind.
    pub cause: Cause,
    /// What failed, with the path.
    pub message: String,
    /// The system's answer.
    #[source]
    pub source: Option<io::Error>,
}

impl Failure {
    /// A malformed archive.
    pub fn archive(message: impl Into<String>) -> Self {
        Self { cause: Cause::Archive, message: message.into(), source: None }
    }

    /// A failure of the stream.
    pub fn stream(message: impl Into<String>, error: io::Error) -> Self {
        Self { cause: Cause::Stream, message: message.into(), source: Some(error) }
    }

    /// A system call on a file that failed; `message` reads ``cannot read `path` ``.
    pub fn file(message: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        let cause = match errno {
            Some(Errno::LOOP | Errno::EXIST | Errno::NOTDIR | Errno::ISDIR | Errno::NOTEMPTY) => {
                Cause::Conflict
            }
            Some(Errno::NOENT) => Cause::Missing,
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Cause::Denied,
            Some(Errno::NOSPC | Errno::DQUOT) => Cause::NoSpace,
            Some(_) => Cause::Disk,
            // An error of ours about the path itself.
            None => Cause::Archive,
        };
        Self { cause, message: message.into(), source: Some(error) }
    }

    /// Message and causes on one line.
    pub fn chain(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source}", self.message),
            None => self.message.clone(),
        }
    }
}

/// A path for a message: at most 200 bytes of it.
pub(crate) fn shown(path: &[u8]) -> String {
    let short = path.get(..200).unwrap_or(path);
    let more = if short.len() < path.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(short))
}
