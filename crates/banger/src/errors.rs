//! Failures of commands: presentation and exit codes.

use std::io;

use banger_api::{ApiError, ErrorCode, Hint, exit};
use banger_client::follow::FollowError;

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
    /// An error of the daemon, of the connection to it, or of the client.
    Api(Box<ApiError>),
    /// Ctrl-C cancelled the operation, which was undone.
    Cancelled(Box<ApiError>),
    /// Ctrl-C ended the wait; an operation continues in the daemon.
    WaitEnded,
    /// The reader of stdout closed it.
    BrokenPipe,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

impl From<FollowError> for Failure {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Failed(error) => Self::Api(error),
            FollowError::Cancelled(error) => Self::Cancelled(error),
            FollowError::WaitEnded(_) => Self::WaitEnded,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        output_failed(&error).into()
    }
}

/// The error of a failed write to stdout.
pub fn output_failed(error: &io::Error) -> ApiError {
    ApiError::new(ErrorCode::Internal, "the output cannot be written").caused_by(error)
}

/// A usage error that is detected after the command line was parsed.
pub fn usage(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, text)
}

/// Shows a failure and returns its exit code.
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
        Failure::WaitEnded => INTERRUPTED,
        Failure::BrokenPipe => PIPE_CLOSED,
    }
}

/// Shows an error on stderr.
pub fn show(context: &Context, error: &ApiError) {
    match context.format {
        Format::Text => render::error(error),
        Format::Json => render::error_as_json(error),
    }
}

/// Shows a panic as an error without a backtrace.
pub fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let error = ApiError::new(ErrorCode::Internal, format!("banger failed at {place}: {text}"));
    render::error(&error.with_hint(Hint::text("this is a bug of banger: please report it")));
}
