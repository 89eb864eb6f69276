//! Lines in a stream of bytes, each up to a limit.

/// Longest part of a line that is kept.
pub const MAX_LINE: usize = 512;

/// What has come of the line that is not at its end.
#[derive(Debug, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Takes in bytes, and passes on each line that ends in them without its newline.
    pub fn hear(&mut self, bytes: &[u8], mut line_ended: impl FnMut(&str)) {
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
    fn lines_are_found_however_the_bytes_are_cut() {
        let text = b"one\n\ntwo\r\nrest";
        for size in 1..text.len() {
            let (mut lines, mut heard) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                lines.hear(piece, |line| heard.push(line.to_owned()));
            }
            assert_eq!(heard, ["one", "", "two\r"]);
        }
    }

    #[test]
    fn a_line_without_end_takes_no_room() {
        let (mut lines, mut heard) = (Lines::default(), Vec::new());
        for _ in 0..100 {
            lines.hear(&[b'x'; 1000], |line| heard.push(line.len()));
        }
        assert!(lines.0.capacity() <= 2 * MAX_LINE);
        lines.hear(b"\nok\n", |line| heard.push(line.len()));
        assert_eq!(heard, [MAX_LINE, 2]);
    }
}
