//! The lines that banger's agent wrote to the console of its guest. Each begins with `banger: `.
//!
//! The guest can write such lines too: they are as trustworthy as the rest of the console.

/// What each line of the agent begins with.
const MARK: &[u8] = b"banger: ";
/// Longest line that is passed on whole, in bytes; of a longer one the beginning is.
const MAX_LINE: usize = 16 * 1024;

/// Picks the agent's lines out of a console.
#[derive(Debug, Default)]
pub struct AgentLines {
    line: Vec<u8>,
}

impl AgentLines {
    /// Takes the next bytes of a console; gives the agent's lines that they complete, each ending
    /// with a newline.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    lines.extend(line.starts_with(MARK).then(|| text(&line)));
                }
                // A terminal's end of line is `\r\n`, and a status that is redrawn ends with `\r`.
                b'\r' if !self.line.starts_with(MARK) => self.line.clear(),
                byte if self.line.len() < MAX_LINE => self.line.push(*byte),
                _ => {}
            }
        }
        lines
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_however_they_are_cut() {
        let console = b"[    0.1] Linux\r\nbanger: no clock\r\n[ *** ] job\rbanger: cannot x\n\
            not banger: y\nbanger: \xff\n\nbanger: begun";
        for cut in 1..console.len() {
            let mut lines = AgentLines::default();
            let found: Vec<String> =
                console.chunks(cut).flat_map(|piece| lines.push(piece)).collect();
            let expected = ["banger: no clock\n", "banger: cannot x\n", "banger: \u{fffd}\n"];
            assert_eq!(found, expected, "cut {cut}");
        }
    }

    #[test]
    fn an_endless_line_is_dropped() {
        let mut lines = AgentLines::default();
        assert!(lines.push(&[b'x'; 4 * MAX_LINE]).is_empty());
        assert!(lines.line.len() <= MAX_LINE);
    }
}
