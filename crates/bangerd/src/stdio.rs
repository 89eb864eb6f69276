//! Writes to standard output and standard error without a panic.
//!
//! `println!` and `eprintln!` panic when the write fails, and standard error is a log file on a
//! disk that may be full.

use std::io::Write;

/// Writes `text` to standard output; ignores errors.
pub fn output(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes `text` to standard error; ignores errors.
pub fn error(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
