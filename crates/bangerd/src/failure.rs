//! Errors of the operating system as [`ApiError`].

use std::io;
use std::path::Path;

use banger_api::{ApiError, ErrorCode, Hint};

/// `cannot <doing> <path>`, with the system's error as cause.
pub fn io_failure(doing: &str, path: &Path, error: &io::Error) -> ApiError {
    let code = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => ErrorCode::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
        _ => ErrorCode::Internal,
    };
    let failure =
        ApiError::new(code, format!("cannot {doing} `{}`", path.display())).caused_by(error);
    match code {
        ErrorCode::ReadOnly => failure
            .with_hint(Hint::MakeWritable { path: None })
            .with_hint(Hint::UseFolder { variable: "BANGER_HOME".into() }),
        ErrorCode::NoSpace => failure.with_hint(Hint::FreeSpace { path: None }),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_derive_from_errno() {
        let path = Path::new("/x/y");
        let code = |errno| io_failure("write", path, &io::Error::from_raw_os_error(errno)).code;
        assert_eq!(code(30), ErrorCode::ReadOnly, "EROFS");
        assert_eq!(code(13), ErrorCode::ReadOnly, "EACCES");
        assert_eq!(code(28), ErrorCode::NoSpace, "ENOSPC");
        assert_eq!(code(20), ErrorCode::Internal, "ENOTDIR");
    }
}
