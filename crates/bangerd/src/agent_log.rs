//! Selects the lines of banger's agent, which begin with `banger: `, from a guest's console.
//!
//! Any process of the guest can write such lines: trust them no more than the rest of the console.

/// Prefix of each line of the agent.
const PREFIX: &[u8] = b"banger: ";
/// Maximum length of a line in bytes; longer lines are truncated.
const MAX_LINE: usize = 16 * 1024;

/// Selects the agent's lines from a console log.
#[derive(Debug, Default)]
pub struct AgentLines {
    line: Vec<u8>,
}

impl AgentLines {
    /// Adds the next bytes of a console; returns the completed lines of the agent, each with its
    /// newline.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    lines.extend(line.starts_with(PREFIX).then(|| text(&line)));
                }
                // Terminals end a line with `\r\n`; a redrawn status line ends with `\r`.
                b'\r' if !self.line.starts_with(PREFIX) => self.line.clear(),
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
    fn lines_are_found_at_any_split_of_the_input() {
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
