//! Text from guests in results: without characters that control a terminal, since clients print
//! results as they are.

use banger_client::text::controls_terminal;

/// Several lines: line feeds and tabs stay, CR LF becomes LF, every other control character is
/// shown as an escape such as `\u{1b}`.
pub fn lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\r' if rest.peek() == Some(&'\n') => {}
            '\n' | '\t' => plain.push(character),
            _ if controls_terminal(character) => plain.extend(character.escape_debug()),
            _ => plain.push(character),
        }
    }
    plain
}

/// Whether text can be passed on unchanged: valid, and without characters that control a terminal
/// other than the ends of lines and tabs.
pub fn unchanged(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut before_line_feed = false;
    // From the end, so that a carriage return sees what follows it.
    let harmless = text.chars().rev().all(|character| {
        let allowed = match character {
            '\n' | '\t' => true,
            '\r' => before_line_feed,
            _ => !controls_terminal(character),
        };
        before_line_feed = character == '\n';
        allowed
    });
    harmless.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(lines(b"a\tb\r\nc\rd\x1b[31m\xc2\x9b\n"), "a\tb\nc\\rd\\u{1b}[31m\\u{9b}\n");
        assert_eq!(lines(b"\xff"), "\u{fffd}");
        assert_eq!(lines("\u{202e}".as_bytes()), "\\u{202e}");
    }

    #[test]
    fn harmless_text_is_unchanged() {
        assert_eq!(unchanged("a\tü\r\n".as_bytes()), Some("a\tü\r\n"));
        for bytes in [&b"\x1b[2J"[..], b"a\rb", b"\xff", b"\r", "\u{9b}".as_bytes()] {
            assert_eq!(unchanged(bytes), None, "{bytes:?}");
        }
    }
}
