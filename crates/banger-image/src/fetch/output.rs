//! The end of a program's output, for errors.

use std::collections::VecDeque;

/// Number of output lines kept for errors.
const TAIL_LINES: usize = 20;
/// Maximum length of a line in bytes; the rest is dropped.
const LINE_BYTES: usize = 4096;

/// The last lines of output of a program.
#[derive(Debug, Default)]
pub struct OutputTail {
    /// The lines.
    pub lines: VecDeque<String>,
    partial: Vec<u8>,
}

impl OutputTail {
    /// Adds text; returns the completed lines. No bytes mean the end.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut complete = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => complete.extend(self.line()),
                _ if self.partial.len() < LINE_BYTES => self.partial.push(*byte),
                _ => {}
            }
        }
        if bytes.is_empty() {
            complete.extend(self.line());
        }
        for line in &complete {
            if self.lines.len() == TAIL_LINES {
                self.lines.pop_front();
            }
            self.lines.push_back(line.clone());
        }
        complete
    }

    fn line(&mut self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.partial);
        // Control characters in a program's output must not reach a terminal.
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.partial.clear();
        Some(line.trim().to_owned()).filter(|line| !line.is_empty())
    }
}
