//! Presentation: errors, tables, progress, sizes and times.

pub mod daemon_log;
pub mod details;
pub mod frames;
pub mod live;
pub mod log;
pub mod patch;
pub mod plain;
pub mod progress;
pub mod rate;
pub mod since;
pub mod table;
pub mod time;
pub mod wrap;

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use banger_api::ApiError;
pub use banger_client::console;
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
    let text = labelled(YELLOW, "warning:", &plain::line(text), wrap::stderr_width());
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// Shows an error: message, causes, hints and operation.
pub fn error(error: &ApiError) {
    let text = error_text(error, wrap::stderr_width());
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// `width` in columns; `None`: lines are not broken.
fn error_text(error: &ApiError, width: Option<usize>) -> String {
    let mut text = labelled(RED, "error:", &plain::line(&error.message), width);
    for cause in &error.causes {
        let cause = format!("  because {}", plain::block(cause, "  "));
        text.push_str(&wrap::wrap(&cause, width, "    "));
        text.push('\n');
    }
    if let Some(hint) = error.hint() {
        text.push_str(&labelled(CYAN, "hint:", &plain::block(&hint, "  "), width));
    }
    if let Some(operation) = &error.operation {
        text.push_str(&format!("({operation})\n"));
    }
    text
}

/// A coloured label and a text, with a line break at the end.
fn labelled(style: Style, label: &str, text: &str, width: Option<usize>) -> String {
    let lines = wrap::wrap(&format!("{label} {text}"), width, "  ");
    let text = lines.strip_prefix(label).unwrap_or(&lines);
    format!("{style}{label}{style:#}{text}\n")
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
        let text = anstream::adapter::strip_str(&error_text(&error, None)).to_string();
        assert_eq!(
            text,
            "error: `web` did not start\\u{1b}[2J\n  because exit code 1\n  last line\n\
             hint: look at the log\n(op-abc123)\n"
        );
        let narrow = error_text(&error, Some(30));
        let narrow = anstream::adapter::strip_str(&narrow).to_string();
        assert!(narrow.starts_with("error: `web` did not\n  start"), "{narrow}");
    }
}
