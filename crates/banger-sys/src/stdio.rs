//! Writes to standard error without a panic.
//!
//! `eprintln!` panics when the write fails, and standard error is a log file on a disk that may be
//! full, or a pipe whose reader is gone.

use std::fmt::Arguments;
use std::io::Write;

/// Writes a line to standard error; ignores errors.
pub fn error_line(text: Arguments<'_>) {
    write_line(std::io::stderr().lock(), text);
}

fn write_line(mut to: impl Write, text: Arguments<'_>) {
    // One write(2), so that lines of several processes in one log stay whole.
    let _ = to.write_all(format!("{text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_panic() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        write_line(full, format_args!("lost"));
        let mut text = Vec::new();
        write_line(&mut text, format_args!("kept {}", 1));
        assert_eq!(text, b"kept 1\n");
    }
}
