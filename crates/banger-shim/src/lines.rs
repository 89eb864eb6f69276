//! Splits a stream of bytes into lines of limited length.

/// Maximum length of the kept part of a line in bytes.
pub const MAX_LINE: usize = 512;

/// The incomplete line.
#[derive(Debug, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Adds bytes; calls `line_ended` for each completed line, without its newline.
    pub fn push(&mut self, bytes: &[u8], mut line_ended: impl FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let room = MAX_LINE.saturating_sub(self.0.len()).min(text.len());
            self.0.extend_from_slice(text.get(..room).unwrap_or_default());
            if ended {
                line_ended(&String::from_utf8_lossy(&self.0));
                self.0.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_at_any_split() {
        let text = b"one\n\ntwo\r\nrest";
        for size in 1..text.len() {
            let (mut lines, mut lines_seen) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                lines.push(piece, |line| lines_seen.push(line.to_owned()));
            }
            assert_eq!(lines_seen, ["one", "", "two\r"]);
        }
    }

    #[test]
    fn an_endless_line_is_limited() {
        let (mut lines, mut lines_seen) = (Lines::default(), Vec::new());
        for _ in 0..100 {
            lines.push(&[b'x'; 1000], |line| lines_seen.push(line.len()));
        }
        assert!(lines.0.capacity() <= 2 * MAX_LINE);
        lines.push(b"\nok\n", |line| lines_seen.push(line.len()));
        assert_eq!(lines_seen, [MAX_LINE, 2]);
    }
}
