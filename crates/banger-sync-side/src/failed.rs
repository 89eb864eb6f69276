//! Why a request failed, in the answer's form.

use std::io;

use rustix::io::Errno;

use crate::Cause;

/// A failed request.
#[derive(Debug)]
pub(crate) struct Failed {
    pub cause: Cause,
    pub message: String,
}

impl Failed {
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }

    pub fn changed() -> Self {
        Self::new(Cause::Changed, "it changed meanwhile")
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        let cause = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Cause::Missing,
            Some(Errno::EXIST) => Cause::Changed,
            Some(Errno::NOTEMPTY) => Cause::NotEmpty,
            _ => Cause::Failed,
        };
        Self::new(cause, error.to_string())
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}
