//! Text for cells of the screen: harmless, of a known width, short.

pub use banger_client::text::duration;
use std::borrow::Cow;

use banger_api::size::{GIB, MIB};
use banger_client::text as untrusted;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The text without characters that control a terminal or the direction of text: they are shown
/// escaped.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if text.contains(untrusted::controls_terminal) {
        Cow::Owned(untrusted::line(text).replace('\t', " "))
    } else {
        Cow::Borrowed(text)
    }
}

/// The same, with line breaks kept.
pub fn harmless_lines(text: &str) -> String {
    let lines: Vec<Cow<'_, str>> = text.trim_end_matches('\n').split('\n').map(harmless).collect();
    lines.join("\n")
}

/// The beginning of a text that fits into `width` columns; `…` stands for the rest.
pub fn fit(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let mut fitting = String::new();
    let mut columns = 0;
    for character in text.chars() {
        let next = columns + character.width().unwrap_or_default();
        if next + 1 > width {
            break;
        }
        columns = next;
        fitting.push(character);
    }
    if width > 0 {
        fitting.push('…');
    }
    Cow::Owned(fitting)
}

/// A number of bytes in at most five columns: `512M`, `1.5G`, `0`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["", "K", "M", "G", "T"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95 && (value.fract() * 10.0).round() > 0.0);
    format!("{value:.digits$}{}", UNITS[unit])
}

/// Memory in MiB in the same form.
pub fn mib(mib: u64) -> String {
    size(mib.saturating_mul(MIB))
}

/// A number of bytes in GiB with one digit, without unit.
pub fn gib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / GIB as f64)
}

/// A number of seconds in the largest unit: `5s`, `3m`, `2h`, `12d`.
pub fn span(seconds: u64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Milliseconds since 1970 of a time of the API (RFC 3339); none if it is not one.
pub fn unix_ms(rfc3339: &str) -> Option<u64> {
    u64::try_from(rfc3339.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
}

/// Divides a text into lines of at most `width` columns, between words where possible.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.width() + 1 + word.width() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
            while line.width() > width {
                let rest = split_off(&mut line, width);
                // A character can be wider than the line.
                if rest.is_empty() {
                    break;
                }
                lines.push(std::mem::replace(&mut line, rest));
            }
        }
        lines.push(line);
    }
    lines
}

/// Splits a line after `width` columns.
fn split_off(line: &mut String, width: usize) -> String {
    let mut columns = 0;
    let at = line.char_indices().find_map(|(at, character)| {
        columns += character.width().unwrap_or_default();
        (columns > width && at > 0).then_some(at)
    });
    at.map(|at| line.split_off(at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(harmless("web"), "web");
        assert_eq!(harmless("a\tb\x1b[2J\u{202e}\r\n"), "a b\\u{1b}[2J\\u{202e}\\r\\n");
    }

    #[test]
    fn texts_fit_their_columns() {
        assert_eq!(fit("machine", 7), "machine");
        assert_eq!(fit("machine", 5), "mach…");
        assert_eq!(fit("機械機械", 5), "機械…");
        assert_eq!(fit("機械機械", 4), "機…");
        assert_eq!(fit("web", 0), "");
    }

    #[test]
    fn sizes_have_at_most_five_columns() {
        for (bytes, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0K"),
            (512 * MIB, "512M"),
            (1023 * MIB, "1.0G"),
            (GIB, "1G"),
            (3 * GIB / 2, "1.5G"),
            (100 * GIB, "100G"),
            (16 * 1024 * GIB, "16T"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert!((0..64).all(|shift| size(1 << shift).len() <= 9));
    }

    #[test]
    fn words_are_not_divided_unless_they_are_too_long() {
        assert_eq!(wrap("the guest powered off", 10), ["the guest", "powered", "off"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("機械機械", 3), ["機", "械", "機", "械"]);
        assert_eq!(wrap("a\n\nb", 9), ["a", "", "b"]);
        assert_eq!(wrap("機械", 1), ["機", "械"]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_harmful_passes(text in "\\PC*|[\\x00-\\x20\\x7f-\\x9f]*", width in 1usize..40) {
            let shown = harmless(&text);
            assert!(!shown.contains(untrusted::controls_terminal));
            assert!(fit(&shown, width).width() <= width);
            for line in wrap(&shown, width.max(2)) {
                assert!(line.width() <= width.max(2), "{line:?}");
            }
        }
    }
}
