//! Turns failures of the operating system into errors with a code, words and advice.

use std::io;
use std::path::Path;

use banger_api::{ApiError, ErrorCode, Hint};

/// An error about a path: `cannot {what} `{path}``, caused by `error`.
pub fn on_path(what: &str, path: &Path, error: &io::Error) -> ApiError {
    let code = ErrorCode::of_io(error);
    let api = ApiError::new(code, format!("cannot {what} `{}`", path.display())).caused_by(error);
    match code {
        ErrorCode::NoSpace => api.with_hint(Hint::FreeSpace { path: None }),
        ErrorCode::ReadOnly => api.with_hint(Hint::MakeWritable { path: None }),
        _ => api,
    }
}

/// An error about something else, caused by `error`.
pub fn of(what: impl Into<String>, error: &io::Error) -> ApiError {
    ApiError::new(ErrorCode::of_io(error), what).caused_by(error)
}

/// Runs blocking work on a thread that may block.
///
/// # Errors
/// The work's own, or a panic in it.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(ApiError::new(ErrorCode::Internal, format!("internal failure: {panic}"))),
    }
}
