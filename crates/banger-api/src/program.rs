//! The program of a machine whose image has no init: `ENTRYPOINT` and `CMD` of a container image.

use serde::{Deserialize, Serialize};

use crate::images::ImageConfig;
use crate::{ApiError, ByteString, ErrorCode};

/// The init of busybox, as images are described.
const BUSYBOX: &str = "busybox";

/// Maximum number of arguments and of variables.
const MAX_WORDS: usize = 4096;

/// Changes of the program that the image names. They do not count for an image with an init.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgramRequest {
    /// Program that replaces the entry point and the command of the image; empty for none. An error
    /// for an image with an init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<ByteString>,
    /// Whether `command` replaces the entry point as well. Not an error for an image with an init.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub replace_entrypoint: bool,
    /// Arguments that replace the command of the image; at most 4096.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 4096)]
    pub command: Vec<ByteString>,
    /// Variables beside those of the image, `NAME=VALUE`; at most 4096.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 4096)]
    pub env: Vec<ByteString>,
    /// Absolute path of the working folder, instead of that of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<ByteString>,
    /// `USER` or `USER:GROUP`, instead of that of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Start the program of the first run with the client that attaches to it, or after a minute
    /// without one.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub attach: bool,
}

impl ProgramRequest {
    /// Checks every value that can be checked without the image.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] naming the value.
    pub fn check(&self) -> Result<(), ApiError> {
        let bad = |text: String| Err(ApiError::new(ErrorCode::BadRequest, text));
        for (what, words) in [("arguments", &self.command), ("variables", &self.env)] {
            if words.len() > MAX_WORDS {
                return bad(format!("a program has at most {MAX_WORDS} {what}"));
            }
        }
        let words = self.entrypoint.iter().chain(&self.command).chain(&self.env);
        if let Some(word) = words.chain(&self.cwd).find(|word| word.as_bytes().contains(&0)) {
            return bad(format!("`{word}` contains a zero byte"));
        }
        let is_variable =
            |text: &ByteString| text.as_bytes().iter().position(|byte| *byte == b'=') > Some(0);
        if let Some(wrong) = self.env.iter().find(|variable| !is_variable(variable)) {
            return bad(format!("`{wrong}` is not NAME=VALUE"));
        }
        if let Some(cwd) = self.cwd.as_ref().filter(|cwd| !cwd.as_bytes().starts_with(b"/")) {
            return bad(format!("working folder `{cwd}` is not absolute"));
        }
        Ok(())
    }
}

/// The init that the machines of an image boot; none where they run a program, or the agent alone.
/// `init` is the name of the image's init, `entrypoint` whether one is requested.
///
/// A container image has no init for this purpose if its only one is busybox's: images based on
/// Alpine and busybox have that file and never use it.
pub fn booted_init<'a>(
    init: Option<&'a str>,
    config: Option<&ImageConfig>,
    entrypoint: bool,
) -> Option<&'a str> {
    let names_program =
        |config: &ImageConfig| !config.entrypoint.is_empty() || !config.cmd.is_empty();
    init.filter(|init| *init != BUSYBOX || !(entrypoint || config.is_some_and(names_program)))
}

/// The program of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProgramView {
    /// Program and arguments.
    pub argv: Vec<ByteString>,
    /// Working folder; `/` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<ByteString>,
    /// User, and group after a colon; root if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Number of the signal that stops it.
    pub stop_signal: u8,
    /// Exit code of its last end, if it was reported; 128+n for signal n. Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        let good = ProgramRequest {
            entrypoint: Some("".into()),
            command: vec!["a".into()],
            env: vec!["A=".into()],
            cwd: Some("/srv".into()),
            ..ProgramRequest::default()
        };
        assert!(good.check().is_ok());
        let wrong = |change: fn(&mut ProgramRequest)| {
            let mut request = good.clone();
            change(&mut request);
            request.check().unwrap_err().message
        };
        assert!(wrong(|r| r.command = vec!["a\0".into()]).contains("zero byte"));
        assert!(wrong(|r| r.command = vec!["a".into(); 4097]).contains("4096 arguments"));
        for env in ["A", "=b", ""] {
            let mut request = good.clone();
            request.env = vec![env.into()];
            assert!(request.check().is_err(), "{env}");
        }
        assert!(wrong(|r| r.cwd = Some("srv".into())).contains("`srv` is not absolute"));
    }
}
