//! Texts that faces share: untrusted text without characters that control a terminal, durations,
//! and why a VM is stopped.

use banger_api::vm::{StopKind, StoppedBecause};

/// One line: control characters are escaped.
pub fn line(text: &str) -> String {
    escape(text, &['\t'])
}

/// Several lines, the second and later ones after `indent`.
pub fn block(text: &str, indent: &str) -> String {
    escape(text.trim_end_matches('\n'), &['\t', '\n']).replace('\n', &format!("\n{indent}"))
}

fn escape(text: &str, allowed: &[char]) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if controls_terminal(character) && !allowed.contains(&character) {
            plain.extend(character.escape_debug());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Whether a character controls a terminal or the direction of text (Unicode annex 9), which can
/// make a name look like another one.
pub fn controls_terminal(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Escapes characters that control a terminal in a JSON document (RFC 8259, section 7), which does
/// not change its values. Line breaks between values are kept.
pub fn json(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if controls_terminal(character) && character != '\n' {
            // All of them are in the basic plane.
            plain.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            plain.push(character);
        }
    }
    plain
}

/// A measured duration: `0.42 s`, `12.3 s`, `1 min 5 s`.
pub fn duration(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 60.. => format!("{} min {} s", seconds / 60, seconds % 60),
        10..60 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => format!("{:.2} s", ms as f64 / 1000.0),
    }
}

/// Why a VM is stopped, as a fragment: `the guest powered itself off`. It may contain text of the
/// guest, with its control characters.
pub fn stopped_because(because: &StoppedBecause) -> String {
    match because {
        StoppedBecause::NeverStarted => "it was never started".into(),
        StoppedBecause::Requested { how: StopKind::Graceful } => "a stop was requested".into(),
        StoppedBecause::Requested { how: StopKind::KilledAfterGrace } => {
            "a stop was requested; it was killed after the grace period".into()
        }
        StoppedBecause::Requested { how: StopKind::Killed } => "a kill was requested".into(),
        StoppedBecause::GuestPoweredOff => "the guest powered itself off".into(),
        StoppedBecause::ProgramEnded { code } => format!("its program ended with code {code}"),
        StoppedBecause::VmmDied { story } => format!("the VMM died: {story}"),
        StoppedBecause::StartFailed { operation, error } => {
            format!("its start failed: {error} ({operation})")
        }
        StoppedBecause::HostRestarted => "the host was restarted".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(line("a\tb\nc\u{9b}2J\r"), "a\tb\\nc\\u{9b}2J\\r");
        assert_eq!(block("a\nb\x07\n", "  "), "a\n  b\\u{7}");
        assert_eq!(line("web\u{202e}bew"), "web\\u{202e}bew");
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({ "a": "x\u{9b}2J\u{7f}\u{202e}\u{1b}[8m\n" });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let escaped = json(&text);
            assert!(escaped.chars().all(|c| c == '\n' || !controls_terminal(c)), "{escaped}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        }
    }
}
