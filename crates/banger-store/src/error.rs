//! Errors of the database as [`ApiError`].

use std::fmt;

use banger_api::hint::{HostHint, SetupAdvice};
use banger_api::{ApiError, ErrorCode, Hint};
use rusqlite::ffi;
use rustix::io::Errno;

use crate::backup::BackupError;

/// Path of the database, for messages.
#[derive(Debug, Clone)]
pub struct Place(pub String);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the database `{}`", self.0)
    }
}

impl Place {
    /// An error of SQLite, with advice.
    pub fn explain(&self, error: &rusqlite::Error) -> ApiError {
        let code = match error {
            rusqlite::Error::SqliteFailure(failure, _) => code_of(failure),
            _ => ErrorCode::Internal,
        };
        self.error(code).caused_by(error)
    }

    /// An error of the operating system while creating the file.
    pub fn explain_os(&self, error: rustix::io::Errno) -> ApiError {
        let code = match error {
            rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => ErrorCode::NoSpace,
            _ => ErrorCode::ReadOnly,
        };
        self.error(code).caused_by(&std::io::Error::from(error))
    }

    /// An error of the standard library.
    pub fn error_of(&self, error: &std::io::Error) -> ApiError {
        self.error(ErrorCode::Internal).caused_by(error)
    }

    fn error(&self, code: ErrorCode) -> ApiError {
        let path = &self.0;
        let here = || Some(path.clone());
        let (what, hints) = match code {
            ErrorCode::ReadOnly => {
                let elsewhere = Hint::UseFolder { variable: "BANGER_STATE_DIR".into() };
                ("cannot be written", vec![Hint::MakeWritable { path: here() }, elsewhere])
            }
            ErrorCode::NoSpace => ("cannot grow", vec![Hint::FreeSpace { path: here() }]),
            ErrorCode::Corrupt => ("is damaged", vec![damaged_hint(path)]),
            ErrorCode::Busy => {
                let find = HostHint::FindHolder { path: path.clone() };
                ("is locked by another program", vec![find.into()])
            }
            _ => return ApiError::new(ErrorCode::Internal, format!("{self} failed")),
        };
        ApiError { hints, ..ApiError::new(code, format!("{self} {what}")) }
    }

    /// The file must be migrated, and cannot be copied before.
    pub fn not_copied(&self, error: BackupError) -> ApiError {
        let mut error = match error {
            BackupError::Sqlite(error) => self.explain(&error),
            BackupError::Io(error) => match Errno::from_io_error(&error) {
                Some(error) => self.explain_os(error),
                None => self.error_of(&error),
            },
        };
        let text = "it is of an earlier banger, and is copied before its tables are changed";
        error.causes.insert(0, text.into());
        error
    }

    /// The file belongs to another program.
    pub fn foreign(&self) -> ApiError {
        let text = format!("{self} was not made by banger");
        ApiError::new(ErrorCode::Corrupt, text).with_hint(damaged_hint(&self.0))
    }

    /// The file belongs to a newer banger.
    pub fn newer(&self, found: i64, known: i64) -> ApiError {
        let text = format!(
            "{self} was written by a newer banger (schema {found}, this one knows {known})"
        );
        ApiError::new(ErrorCode::DaemonUnavailable, text)
            .with_hint(Hint::UseOtherBuild)
            .with_hint(Hint::UseFolder { variable: "BANGER_STATE_DIR".into() })
    }

    /// A row that cannot be parsed.
    pub fn unreadable(&self, what: &str, why: &str) -> ApiError {
        let mut error = ApiError::new(ErrorCode::Corrupt, format!("{what} cannot be understood"));
        error.causes = vec![why.to_owned(), format!("it is kept as it is in {self}")];
        error
    }
}

fn damaged_hint(path: &str) -> Hint {
    SetupAdvice::MoveAside { path: path.to_owned() }.into()
}

fn code_of(failure: &ffi::Error) -> ErrorCode {
    match (failure.code, failure.extended_code) {
        // The shared-memory file beside the database cannot be extended.
        (_, ffi::SQLITE_IOERR_SHMSIZE) => ErrorCode::NoSpace,
        (ffi::ErrorCode::DiskFull, _) => ErrorCode::NoSpace,
        (
            ffi::ErrorCode::ReadOnly
            | ffi::ErrorCode::CannotOpen
            | ffi::ErrorCode::PermissionDenied,
            _,
        ) => ErrorCode::ReadOnly,
        (ffi::ErrorCode::DatabaseCorrupt | ffi::ErrorCode::NotADatabase, _) => ErrorCode::Corrupt,
        (ffi::ErrorCode::DatabaseBusy | ffi::ErrorCode::DatabaseLocked, _) => ErrorCode::Busy,
        _ => ErrorCode::Internal,
    }
}

/// Whether a uniqueness constraint was violated.
pub fn is_duplicate(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|failure| failure.extended_code);
    matches!(extended, Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(code: i32) -> ApiError {
        let place = Place("/s/banger.db".into());
        place.explain(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn errors_have_a_code_and_name_the_path() {
        for (sqlite, code) in [
            (ffi::SQLITE_READONLY, ErrorCode::ReadOnly),
            (ffi::SQLITE_READONLY_DIRECTORY, ErrorCode::ReadOnly),
            (ffi::SQLITE_CANTOPEN, ErrorCode::ReadOnly),
            (ffi::SQLITE_PERM, ErrorCode::ReadOnly),
            (ffi::SQLITE_FULL, ErrorCode::NoSpace),
            (ffi::SQLITE_IOERR_SHMSIZE, ErrorCode::NoSpace),
            (ffi::SQLITE_CORRUPT, ErrorCode::Corrupt),
            (ffi::SQLITE_NOTADB, ErrorCode::Corrupt),
            (ffi::SQLITE_BUSY, ErrorCode::Busy),
            (ffi::SQLITE_IOERR_READ, ErrorCode::Internal),
        ] {
            let error = explain(sqlite);
            assert_eq!(error.code, code, "{sqlite}");
            assert!(error.message.contains("/s/banger.db"), "{}", error.message);
            assert!(!error.causes.is_empty(), "{sqlite}");
            let advised = error.hint().is_some_and(|hint| hint.contains("/s/banger.db"));
            assert!(advised || code == ErrorCode::Internal, "{sqlite}: {:?}", error.hints);
        }
    }
}
