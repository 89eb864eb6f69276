//! Presentation: errors, tables, progress, sizes and times.

pub mod console;
pub mod daemon_log;
pub mod details;
pub mod frames;
pub mod live;
pub mod log;
pub mod plain;
pub mod progress;
pub mod rate;
pub mod since;
pub mod table;
pub mod time;

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use banger_api::ApiError;
use serde::Serialize;

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default().bold();

/// Whether stderr is a terminal that can redraw a line.
pub fn stderr_is_live() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Writes a line to stderr, ignoring a closed stderr.
pub fn to_stderr(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{}", plain::line(text));
}

/// Writes a warning to stderr.
pub fn warning(text: &str) {
    let mut stderr = anstream::stderr().lock();
    let _ = writeln!(stderr, "{YELLOW}warning:{YELLOW:#} {}", plain::line(text));
}

/// Shows an error: message, causes, hints and operation.
pub fn error(error: &ApiError) {
    let mut stderr = anstream::stderr().lock();
    let _ = stderr.write_all(error_text(error).as_bytes());
}

fn error_text(error: &ApiError) -> String {
    let mut text = format!("{RED}error:{RED:#} {}\n", plain::line(&error.message));
    for cause in &error.causes {
        text.push_str(&format!("  because {}\n", plain::block(cause, "  ")));
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("{CYAN}hint:{CYAN:#} {}\n", plain::block(&hint, "  ")));
    }
    if let Some(operation) = &error.operation {
        text.push_str(&format!("({operation})\n"));
    }
    text
}

/// Shows an error as one line of JSON on stderr.
pub fn error_as_json(error: &ApiError) {
    let json = serde_json::json!({ "error": with_hint_text(error, error.hint()) });
    let _ = writeln!(io::stderr().lock(), "{}", plain::json(&json.to_string()));
}

/// JSON of a value with hints, with the text of the hints added.
pub fn with_hint_text(value: &impl Serialize, hint: Option<String>) -> serde_json::Value {
    let mut json = serde_json::json!(value);
    if let (Some(object), Some(hint)) = (json.as_object_mut(), hint) {
        object.insert("hint".into(), hint.into());
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::{ErrorCode, Hint};

    #[test]
    fn an_error_has_message_cause_and_hint() {
        let error = ApiError::new(ErrorCode::VmmDied, "`web` did not start\x1b[2J")
            .caused_by(&io::Error::other("exit code 1\nlast line"))
            .with_hint(Hint::text("look at the log"))
            .in_operation(&"op-abc123".parse().unwrap());
        let text = anstream::adapter::strip_str(&error_text(&error)).to_string();
        assert_eq!(
            text,
            "error: `web` did not start\\u{1b}[2J\n  because exit code 1\n  last line\n\
             hint: look at the log\n(op-abc123)\n"
        );
    }
}
