//! Plain text of the bytes of a console.

/// Maximum length of the text of one event: a page keeps no more.
const MAX_TEXT: usize = 1 << 17;

/// Makes text of the bytes of a console: without escape sequences and control characters, and with
/// characters whole that two pieces divide.
#[derive(Debug, Default)]
pub struct Plain {
    escape: Escape,
    rest: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Begun,
    /// In a control sequence: ends with `@` to `~`.
    Control,
    /// In a string (title, device control): ends with BEL, or ESC and a backslash.
    Text,
}

impl Plain {
    /// The text of further bytes; of a long one its end.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.rest);
        let whole = match std::str::from_utf8(&bytes) {
            // The beginning of a character.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => bytes.len(),
        };
        self.rest = bytes[whole..].to_vec();
        let text = String::from_utf8_lossy(&bytes[..whole]);
        let text: String = text.chars().filter(|c| self.is_shown(*c)).collect();
        let surplus = text.len().saturating_sub(MAX_TEXT);
        text[text.ceil_char_boundary(surplus)..].to_owned()
    }

    fn is_shown(&mut self, c: char) -> bool {
        let (next, shown) = match (self.escape, c) {
            (_, '\u{1b}') => (Escape::Begun, false),
            (Escape::Begun, '[') => (Escape::Control, false),
            (Escape::Begun, ']' | 'P' | '^' | '_' | 'X') => (Escape::Text, false),
            // Designations of character sets have one more character.
            (Escape::Begun, ' '..='/') => (Escape::Begun, false),
            (Escape::Begun, _) => (Escape::None, false),
            (Escape::Control, '@'..='~') => (Escape::None, false),
            (Escape::Text, '\u{7}' | '\u{9c}') => (Escape::None, false),
            // A sequence does not go on in another line.
            (Escape::Control | Escape::Text, '\n') => (Escape::None, true),
            (Escape::Control | Escape::Text, _) => (self.escape, false),
            (Escape::None, '\n' | '\t') => (Escape::None, true),
            (Escape::None, c) => (Escape::None, !c.is_control() && !is_invisible(c)),
        };
        self.escape = next;
        shown
    }
}

/// Characters that change the direction or the order of the text around them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_is_plain_text() {
        for (bytes, text) in [
            (&b"a\r\nb\tc\n"[..], "a\nb\tc\n"),
            (b"\x1b[1;31mred\x1b[0m", "red"),
            (b"\x1b]0;title\x07x\x1b]8;;http://e\x1b\\link", "xlink"),
            (b"\x1b(B\x1b=x\x1b[?2004hy", "xy"),
            (b"\x1bPq#0;2;0;0;0\x1b\\z", "z"),
            (b"\x00\x08\x7f\x9b31m", "\u{fffd}31m"),
            ("\u{202e}gpj.exe\u{2066}".as_bytes(), "gpj.exe"),
            (b"\x1b]unfinished\nnext", "\nnext"),
            (b"<b>&", "<b>&"),
        ] {
            assert_eq!(Plain::default().push(bytes), text, "{bytes:?}");
        }
    }

    #[test]
    fn pieces_may_divide_characters_and_sequences() {
        let whole = "ä\u{1b}[31mö\u{1b}]0;x\u{7}ü\n".as_bytes();
        for at in 0..whole.len() {
            let mut plain = Plain::default();
            let text = plain.push(&whole[..at]) + &plain.push(&whole[at..]);
            assert_eq!(text, "äöü\n", "{at}");
        }
    }

    #[test]
    fn long_text_is_cut_at_the_beginning() {
        let text = Plain::default().push("ä".repeat(MAX_TEXT).as_bytes());
        assert!(text.len() <= MAX_TEXT && text.len() > MAX_TEXT - 4);
    }
}
