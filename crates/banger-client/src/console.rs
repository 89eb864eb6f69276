//! Filters a guest's console log for a terminal: passes text and a few colours.
//!
//! The states are those of ECMA-48, as video terminals implement them: control sequences (5.4),
//! control strings (5.6), escape sequences (ECMA-35). Two things differ on purpose. A
//! newline ends any open sequence, so that a sequence cannot hide the rest of the log. Of the
//! renditions (SGR, 8.3.117) only those pass that cannot hide text, and each line ends with a
//! reset.

use crate::text::controls_terminal;

/// Maximum length of the parameters of a sequence, in bytes; a longer sequence is dropped.
const MAX_PARAMETERS: usize = 32;
/// Resets all renditions.
const RESET: &str = "\x1b[0m";

/// Filters a console log.
#[derive(Debug, Default)]
pub struct ConsoleFilter {
    state: State,
    /// Parameters of the current control sequence.
    parameters: Vec<u8>,
    /// Bytes of an incomplete character.
    character: Vec<u8>,
    /// Number of bytes that complete it.
    missing: usize,
    /// Whether a rendition is in force.
    coloured: bool,
    /// Whether something was printed on this line.
    printed: bool,
    /// Whether there was a carriage return, which becomes a newline unless a newline follows.
    returned: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// Behind ESC.
    Escape,
    /// Behind ESC and intermediate bytes.
    EscapeIntermediate,
    /// Behind CSI, in parameters.
    Parameters,
    /// In a control sequence that is dropped.
    Ignored,
    /// In a control string: OSC, DCS, SOS, PM, APC.
    String,
    /// Behind ESC in a control string.
    StringEscape,
}

impl ConsoleFilter {
    /// Filters the next bytes of the log.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = String::with_capacity(bytes.len());
        for byte in bytes {
            self.decode(*byte, &mut shown);
        }
        shown.into_bytes()
    }

    /// Ends the log: resets renditions.
    pub fn end(&mut self) -> Vec<u8> {
        let mut shown = String::new();
        self.incomplete(&mut shown);
        self.reset(&mut shown);
        shown.into_bytes()
    }

    /// Decodes UTF-8 (RFC 3629); invalid bytes become U+FFFD.
    fn decode(&mut self, byte: u8, shown: &mut String) {
        if self.missing > 0 {
            if byte & 0xc0 == 0x80 {
                self.character.push(byte);
                self.missing -= 1;
                if self.missing == 0 {
                    let character = std::str::from_utf8(&self.character).ok();
                    let character = character.and_then(|text| text.chars().next());
                    self.character.clear();
                    self.take(character.unwrap_or(char::REPLACEMENT_CHARACTER), shown);
                }
                return;
            }
            self.incomplete(shown);
        }
        self.missing = match byte {
            0..=0x7f => return self.take(char::from(byte), shown),
            0xc2..=0xdf => 1,
            0xe0..=0xef => 2,
            0xf0..=0xf4 => 3,
            _ => return self.take(char::REPLACEMENT_CHARACTER, shown),
        };
        self.character.push(byte);
    }

    fn incomplete(&mut self, shown: &mut String) {
        if self.missing > 0 {
            self.missing = 0;
            self.character.clear();
            self.take(char::REPLACEMENT_CHARACTER, shown);
        }
    }

    fn take(&mut self, character: char, shown: &mut String) {
        match (self.state, character) {
            (_, '\n') => self.new_line(shown),
            // CAN and SUB end any sequence.
            (_, '\u{18}' | '\u{1a}') => self.state = State::Ground,
            (State::String, '\u{1b}') => self.state = State::StringEscape,
            (State::String, '\u{7}' | '\u{9c}') => self.state = State::Ground,
            (State::String, _) => {}
            (State::StringEscape, '\\') => self.state = State::Ground,
            (_, '\u{1b}') => self.state = State::Escape,
            (State::StringEscape | State::Escape, _) => self.escape(character),
            (_, '\u{80}'..='\u{9f}') => self.c1(character),
            (State::EscapeIntermediate, '\u{30}'..='\u{7e}') => self.state = State::Ground,
            (State::Parameters, '0'..=';') if self.parameters.len() < MAX_PARAMETERS => {
                self.parameters.push(u8::try_from(character).unwrap_or_default());
            }
            (State::Parameters, 'm') => {
                self.state = State::Ground;
                self.rendition(shown);
            }
            (State::Parameters | State::Ignored, '\u{40}'..='\u{7e}') => {
                self.state = State::Ground;
            }
            (State::Parameters, '\u{20}'..) => self.state = State::Ignored,
            (State::Ground | State::Parameters | State::Ignored | State::EscapeIntermediate, _) => {
                self.text(character, shown);
            }
        }
    }

    fn escape(&mut self, character: char) {
        self.state = match character {
            '[' => self.parameters(),
            ']' | 'P' | 'X' | '^' | '_' => State::String,
            '\u{20}'..='\u{2f}' => State::EscapeIntermediate,
            _ => State::Ground,
        };
    }

    /// The eight-bit forms of escape sequences.
    fn c1(&mut self, character: char) {
        self.state = match character {
            '\u{9b}' => self.parameters(),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => State::String,
            _ => State::Ground,
        };
    }

    fn parameters(&mut self) -> State {
        self.parameters.clear();
        State::Parameters
    }

    fn text(&mut self, character: char, shown: &mut String) {
        if character == '\r' {
            // Within a sequence too: terminals execute control characters before the sequence.
            self.returned = true;
            return;
        }
        if self.state != State::Ground || (controls_terminal(character) && character != '\t') {
            return;
        }
        if self.returned && self.printed {
            self.new_line(shown);
        }
        self.returned = false;
        self.printed = true;
        shown.push(character);
    }

    fn new_line(&mut self, shown: &mut String) {
        self.state = State::Ground;
        self.reset(shown);
        shown.push('\n');
        (self.printed, self.returned) = (false, false);
    }

    fn reset(&mut self, shown: &mut String) {
        if self.coloured {
            shown.push_str(RESET);
            self.coloured = false;
        }
    }

    /// Passes renditions that keep text legible on any background: bold, underlined, and the six
    /// colours other than black and white.
    fn rendition(&mut self, shown: &mut String) {
        let parameters = std::mem::take(&mut self.parameters);
        let text = String::from_utf8_lossy(&parameters);
        let mut numbers = text.split(';').map(|number| match number {
            "" => Some(0),
            // Those with subparameters are dropped.
            number => number.parse::<u16>().ok(),
        });
        while let Some(number) = numbers.next() {
            match number {
                Some(0) => self.reset(shown),
                Some(number @ (1 | 4 | 31..=36 | 91..=96)) => {
                    self.coloured = true;
                    shown.push_str(&format!("\x1b[{number}m"));
                }
                Some(number @ (22 | 24 | 39)) if self.coloured => {
                    shown.push_str(&format!("\x1b[{number}m"));
                }
                // A colour of a palette, or by its components: three or five numbers in all.
                Some(38 | 48 | 58) => {
                    let rest = match numbers.next() {
                        Some(Some(5)) => 1,
                        Some(Some(2)) => 3,
                        _ => 0,
                    };
                    for _ in 0..rest {
                        numbers.next();
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        let mut filter = ConsoleFilter::default();
        let mut shown = filter.pass(bytes);
        shown.extend(filter.end());
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn text_and_safe_colours_pass() {
        for (input, clean) in [
            ("\x1b[2J\x1b[1;1H\x1b[0;32m OK \x1b[0m\r\n", "\x1b[32m OK \x1b[0m\n"),
            ("\x1b]0;title\x07x\x1bcy\x1b(Bz", "xyz"),
            ("\u{9b}31mred\u{9c}", "\x1b[31mred\x1b[0m"),
            ("a\x1bP1$q\x1b\\b\x08", "ab"),
            ("°ä€🦀", "°ä€🦀"),
            // Neither hidden, nor black, nor on a colour, nor blinking, nor reverse.
            ("\x1b[8mhidden\x1b[28m", "hidden"),
            ("\x1b[30;40mx\x1b[0m \x1b[37;107my", "x y"),
            ("\x1b[38;5;0mx\x1b[38;2;1;2;31my\x1b[48;5;31mz", "xyz"),
            ("\x1b[38:2::0:0:0mx\x1b[1:31my\x1b[>4;31mz\x1b[?31mz", "xyzz"),
            ("\x1b[5;7;2;1;31mx\x1b[22;39my", "\x1b[1m\x1b[31mx\x1b[22m\x1b[39my\x1b[0m"),
            // A colour does not outlive its line.
            ("\x1b[31ma\nb", "\x1b[31ma\x1b[0m\nb"),
            // A sequence does not outlive its line either, whatever it is.
            ("a\x1b]0;\nb", "a\nb"),
            ("a\x1bPq\nb\x1b[31\nc\x1b\nd", "a\nb\nc\nd"),
            ("a\x1b]0;x\x18b\x1b[3\x1ac", "abc"),
            // A new string within a string, and one that only looks as if it ended.
            ("a\x1b]x\x1b]y\x07b", "ab"),
            ("a\x1b]x\x1b[31mb", "a\x1b[31mb\x1b[0m"),
            // Lines that are overwritten follow each other.
            ("10%\r20%\r\r\n\rx\r\x1b[Ky", "10%\n20%\nx\ny"),
            ("web\u{202e}bew\u{2066}", "webbew"),
            ("a\tb\x00\x7f\x0b\x0c", "a\tb"),
        ] {
            assert_eq!(shown(input.as_bytes()), clean, "{input:?}");
            for cut in 1..input.len() {
                let mut filter = ConsoleFilter::default();
                let mut pieces: Vec<u8> =
                    input.as_bytes().chunks(cut).flat_map(|piece| filter.pass(piece)).collect();
                pieces.extend(filter.end());
                assert_eq!(String::from_utf8(pieces).unwrap(), clean, "{input:?} in {cut}");
            }
        }
        assert_eq!(
            shown(b"a\xff\xc3(\xe2\x82b\xc0\x80\xed\xa0\x80\xf0"),
            "a\u{fffd}\u{fffd}(\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\u{fffd}"
        );
        assert_eq!(shown(format!("\x1b[{}mx", "1;".repeat(40)).as_bytes()), "x");
    }

    /// Checks the control sequences in filtered text.
    fn check(clean: &str) {
        for line in clean.split('\n') {
            let mut pieces = line.split('\x1b');
            let first = pieces.next().unwrap();
            assert!(!first.chars().any(|c| controls_terminal(c) && c != '\t'), "{line:?}");
            let mut coloured = false;
            for piece in pieces {
                let (sequence, text) = piece.split_once('m').unwrap();
                let number: u16 = sequence.strip_prefix('[').unwrap().parse().unwrap();
                coloured = match number {
                    0 => false,
                    22 | 24 | 39 => coloured,
                    1 | 4 | 31..=36 | 91..=96 => true,
                    other => panic!("{other}"),
                };
                assert!(!text.chars().any(|c| controls_terminal(c) && c != '\t'), "{line:?}");
            }
            assert!(!coloured, "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn guest_output_is_sanitised(
            pieces in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::collection::vec(proptest::num::u8::ANY, 0..8),
                    proptest::sample::select(vec![
                        b"\x1b".to_vec(), b"\x1b[".to_vec(), b"\x1b]0;".to_vec(), b"m".to_vec(),
                        b"8;31".to_vec(), b"\n".to_vec(), b"\r".to_vec(), b"\x1b\\".to_vec(),
                        b"\xc2\x9b31m".to_vec(), b"\x1bP".to_vec(), b"\x07".to_vec(),
                        b"\xe2\x80\xae".to_vec(), b"text".to_vec(), b"\x1b[32m".to_vec(),
                    ]),
                ],
                0..40,
            )
        ) {
            let bytes = pieces.concat();
            let whole = shown(&bytes);
            check(&whole);
            // No sequence swallows the end of a line.
            let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
            assert!(whole.matches('\n').count() >= ends);
            // What was filtered once passes unchanged.
            assert_eq!(shown(whole.as_bytes()), whole);
            // However the bytes are cut.
            let mut filter = ConsoleFilter::default();
            let mut cut: Vec<u8> = pieces.iter().flat_map(|piece| filter.pass(piece)).collect();
            cut.extend(filter.end());
            assert_eq!(String::from_utf8(cut).unwrap(), whole);
        }
    }
}
