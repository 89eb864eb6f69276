//! A patch of a guest on a terminal: coloured, and with control characters escaped, so that a
//! file's content cannot control the terminal or look like another one.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::plain;

const HEADER: Style = Style::new().bold();
const PLACE: Style = AnsiColor::Cyan.on_default();
const ADDED: Style = AnsiColor::Green.on_default();
const REMOVED: Style = AnsiColor::Red.on_default();

/// Longest line that is shown, in bytes; the rest of it is left out.
const MAX_LINE: usize = 64 << 10;

/// Passes a patch on, line by line.
pub struct Patch<W: Write> {
    to: W,
    line: Vec<u8>,
    /// Within the lines of a file, where `--- x` is a removed line.
    in_content: bool,
}

impl<W: Write> Patch<W> {
    /// Writes to `to`.
    pub fn new(to: W) -> Self {
        Self { to, line: Vec::new(), in_content: false }
    }

    fn end_line(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        let style = self.style(&text);
        writeln!(self.to, "{style}{}{style:#}", plain::line(&text))
    }

    fn style(&mut self, text: &str) -> Style {
        if text.starts_with("diff --git ") {
            self.in_content = false;
            return HEADER;
        }
        if text.starts_with("@@ ") {
            self.in_content = true;
            return PLACE;
        }
        match text.bytes().next() {
            Some(b'+') if self.in_content => ADDED,
            Some(b'-') if self.in_content => REMOVED,
            Some(b' ' | b'\\') | None if self.in_content => Style::new(),
            _ if self.in_content => Style::new(),
            _ => HEADER,
        }
    }
}

impl<W: Write> Write for Patch<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line()?;
            } else if self.line.len() < MAX_LINE {
                self.line.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.line.is_empty() {
            self.end_line()?;
        }
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_coloured_and_nothing_controls_the_terminal() {
        let patch = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1,2 @@\n--- old\n\
                     +new\x1b]0;t\x07\n kept\r\n+\u{202e}txt";
        let mut shown = Vec::new();
        let mut to = Patch::new(&mut shown);
        to.write_all(patch.as_bytes()).unwrap();
        to.flush().unwrap();
        drop(to);
        let shown = String::from_utf8(shown).unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        let (bold, end) = (HEADER, format!("{HEADER:#}"));
        assert_eq!(lines[1], format!("{bold}--- a/x{end}"));
        assert_eq!(lines[4], format!("{REMOVED}--- old{end}"));
        assert_eq!(lines[5], format!("{ADDED}+new\\u{{1b}}]0;t\\u{{7}}{end}"));
        assert_eq!(lines[6], " kept\\r");
        assert_eq!(lines[7], format!("{ADDED}+\\u{{202e}}txt{end}"));
    }
}
