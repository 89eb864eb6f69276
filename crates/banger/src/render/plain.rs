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
        if steers(character) && !allowed.contains(&character) {
            plain.extend(character.escape_debug());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Whether a character changes how a terminal shows others: control characters, and those that turn
/// the direction of text around (Unicode annex 9), which can make a name look like another one.
pub fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// A JSON document without characters that steer a terminal: they are escaped (RFC 8259, 7), which
/// changes nothing for a reader of JSON. Line breaks between values stay.
pub fn json(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if steers(character) && character != '\n' {
            // All of them are in the basic plane.
            plain.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_obeyed() {
        assert_eq!(line("a\tb\nc\u{9b}2J\r"), "a\tb\\nc\\u{9b}2J\\r");
        assert_eq!(block("a\nb\x07\n", "  "), "a\n  b\\u{7}");
        assert_eq!(line("web\u{202e}bew"), "web\\u{202e}bew");
    }

    #[test]
    fn json_means_the_same_and_is_harmless() {
        let value = serde_json::json!({ "a": "x\u{9b}2J\u{7f}\u{202e}\u{1b}[8m\n" });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let harmless = json(&text);
            assert!(harmless.chars().all(|c| c == '\n' || !steers(c)), "{harmless}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&harmless).unwrap(), value);
        }
    }
}
