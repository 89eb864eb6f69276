//! One error type for the guest: our words, and the system's answer as source.

use std::fmt::Write as _;
use std::io;

/// Something that failed in the guest, named so that a reader on the host understands it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    what: String,
    #[source]
    source: Option<io::Error>,
}

impl Fault {
    /// A fault without an underlying system error.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    /// The whole chain on one line, for the console and the boot messages.
    pub fn chain(&self) -> String {
        let mut line = self.what.clone();
        if let Some(source) = &self.source {
            // Writing to a String cannot fail.
            let _ = write!(line, ": {source}");
        }
        line
    }

    /// The underlying system error, if there is one.
    pub fn io(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }
}

/// Adds what was being done to a system error.
pub trait Context<T> {
    /// Wraps the error; `what` reads ``cannot open `/path` ``.
    ///
    /// # Errors
    /// The original error, as source of a [`Fault`].
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|error| Fault { what: what(), source: Some(error.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_does_not_repeat_its_source() {
        let denied: Result<(), _> = Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let fault = denied.context(|| "cannot open `/x`".to_owned()).unwrap_err();
        assert_eq!(fault.to_string(), "cannot open `/x`");
        assert_eq!(fault.chain(), "cannot open `/x`: permission denied");
    }
}
