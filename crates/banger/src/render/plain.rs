//! Text that may come from a guest, made harmless for a terminal.

/// One line: control characters are shown, not obeyed.
pub fn line(text: &str) -> String {
    escape(text, &['\t'])
}

/// Several lines, the second and later ones behind `indent`.
pub fn block(text: &str, indent: &str) -> String {
    escape(text.trim_end_matches('\n'), &['\t', '\n']).replace('\n', &format!("\n{indent}"))
}

fn escape(text: &str, allowed: &[char]) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !allowed.contains(&character) {
            plain.extend(character.escape_debug());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Lets text and colours of a console log through, and nothing else that a terminal would obey.
#[derive(Debug, Default)]
pub struct ConsoleFilter {
    state: State,
    sequence: Vec<u8>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Behind an escape character.
    Escape,
    /// Within `ESC [ …`, until its final byte (ECMA-48, 5.4).
    Control,
    /// Within a string such as a window title, until BEL or `ESC \`.
    Hidden,
    /// Behind the first byte of U+0080 to U+00BF: the lower half are control characters.
    Lead,
}

/// Longest colour sequence that is let through.
const MAX_SEQUENCE: usize = 32;

impl ConsoleFilter {
    /// Takes the next bytes of the log and gives what may be shown of them.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.byte(*byte, &mut shown);
        }
        shown
    }

    fn byte(&mut self, byte: u8, shown: &mut Vec<u8>) {
        match (&self.state, byte) {
            (_, 0x1b) => {
                self.state = State::Escape;
                self.sequence.clear();
            }
            (State::Text, 0xc2) => self.state = State::Lead,
            (State::Text, b'\n' | b'\t' | 0x20..=0x7e | 0x80..=0xff) => shown.push(byte),
            // Carriage returns end lines on a serial console; alone they would overwrite.
            (State::Text, _) => {}
            (State::Escape, b'[') => self.state = State::Control,
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => self.state = State::Hidden,
            // `ESC (` and its kin have one more byte, which is a letter and does no harm.
            (State::Escape, _) => self.state = State::Text,
            (State::Control, 0x20..=0x3f) => self.sequence.push(byte),
            (State::Control, b'm') if self.sequence.len() <= MAX_SEQUENCE => {
                shown.extend_from_slice(b"\x1b[");
                shown.append(&mut self.sequence);
                shown.push(b'm');
                self.state = State::Text;
            }
            (State::Control, _) => self.state = State::Text,
            (State::Lead, 0x80..=0x9f) => self.state = State::Text,
            (State::Lead, _) => {
                shown.push(0xc2);
                self.state = State::Text;
                self.byte(byte, shown);
            }
            (State::Hidden, 0x07) => self.state = State::Text,
            (State::Hidden, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_obeyed() {
        assert_eq!(line("a\tb\nc\u{9b}2J\r"), "a\tb\\nc\\u{9b}2J\\r");
        assert_eq!(block("a\nb\x07\n", "  "), "a\n  b\\u{7}");
    }

    #[test]
    fn a_console_keeps_its_colours_only() {
        let said = b"\x1b[2J\x1b[1;1H\x1b[0;32m OK \x1b[0m\r\n\x1b]0;title\x07x\x1bcy\
            \xc2\x9b\xc2\xb0\x1bP1$q\x1b\\z\x08";
        let clean = b"\x1b[0;32m OK \x1b[0m\nxy\xc2\xb0z";
        for cut in 1..said.len() {
            let mut filter = ConsoleFilter::default();
            let shown: Vec<u8> = said.chunks(cut).flat_map(|piece| filter.pass(piece)).collect();
            assert_eq!(shown, clean, "cut {cut}");
        }
    }
}
