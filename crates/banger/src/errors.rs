//! Failures: how they are shown, and the exit code each has.

use std::io;

use banger_api::{ApiError, ErrorCode, exit};
use banger_client::follow::NotDone;

use crate::cli::ExitCodeOf;
use crate::context::{Context, Format};
use crate::render;

/// Exit code of a program that SIGINT ended, as a shell reports it.
pub const INTERRUPTED: u8 = 128 + 2;
/// Exit code of a program that SIGPIPE ended, as a shell reports it.
pub const PIPE_CLOSED: u8 = 128 + 13;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// Something failed.
    Api(Box<ApiError>),
    /// Ctrl-C, and everything was undone.
    Cancelled(Box<ApiError>),
    /// Ctrl-C ended the wait; the operation goes on in the daemon.
    Left,
    /// Nobody reads what we print.
    Pipe,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

impl From<NotDone> for Failure {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::Failed(error) => Self::Api(error),
            NotDone::Cancelled(error) => Self::Cancelled(error),
            NotDone::Left(_) => Self::Left,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Pipe;
        }
        ApiError::new(ErrorCode::Internal, "the output cannot be written").caused_by(&error).into()
    }
}

/// A usage error that only shows after the command line was read.
pub fn usage(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, text)
}

/// Shows a failure and gives its exit code.
pub fn report(context: &Context, failure: Failure, exit_code_of: ExitCodeOf) -> u8 {
    match failure {
        Failure::Api(error) => {
            show(context, &error);
            match exit_code_of {
                ExitCodeOf::Banger => error.code.exit_code(),
                ExitCodeOf::Guest => exit::RUN_FAILED,
            }
        }
        Failure::Cancelled(error) => {
            show(context, &error);
            match exit_code_of {
                ExitCodeOf::Banger => error.code.exit_code(),
                ExitCodeOf::Guest => INTERRUPTED,
            }
        }
        Failure::Left => INTERRUPTED,
        Failure::Pipe => PIPE_CLOSED,
    }
}

/// Shows an error on stderr.
pub fn show(context: &Context, error: &ApiError) {
    match context.format {
        Format::Text => render::error(error),
        Format::Json => render::error_as_json(error),
    }
}

/// Shows a panic, which is a bug of ours, as an error; never as a backtrace.
pub fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let error = ApiError::new(ErrorCode::Internal, format!("banger failed at {place}: {text}"));
    render::error(&error.with_hint("this is a bug of banger: please report it"));
}
