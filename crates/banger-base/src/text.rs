//! Text from guests, VMMs, requests and files, made safe to show.

/// Maximum length of an excerpt in characters of the text.
const EXCERPT: usize = 80;

/// The beginning of a text, for a message that quotes it: at most 80 characters, control characters
/// and quotation marks escaped as in Rust.
pub fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT).flat_map(char::escape_debug).collect()
}

/// At most `max_chars` characters of a text, each control character replaced by a space, so that no
/// escape sequence reaches a terminal.
pub fn printable(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_short_and_on_one_line() {
        assert_eq!(excerpt("a\n\u{1b}é"), "a\\n\\u{1b}é");
        assert_eq!(excerpt(&"é".repeat(900)).chars().count(), 80);
    }

    #[test]
    fn control_characters_become_spaces_and_the_length_is_bounded() {
        assert_eq!(printable("a\u{1b}[31mb\u{9b}c\r\n", 100), "a [31mb c  ");
        assert_eq!(printable(&"é".repeat(900), 500).chars().count(), 500);
    }
}
