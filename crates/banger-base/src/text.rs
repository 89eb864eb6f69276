//! Text from guests and VMMs, made safe to show.

/// At most `max_chars` characters of a text, each control character replaced by a space, so that no
/// escape sequence reaches a terminal.
pub fn printable(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_spaces_and_the_length_is_bounded() {
        assert_eq!(printable("a\u{1b}[31mb\u{9b}c\r\n", 100), "a [31mb c  ");
        assert_eq!(printable(&"é".repeat(900), 500).chars().count(), 500);
    }
}
