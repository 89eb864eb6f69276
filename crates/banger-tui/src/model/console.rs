//! The end of a guest's console log, as lines with a few colours.

use banger_client::console::ConsoleFilter;
use ratatui::style::{Color, Modifier, Style};

/// Maximum number of lines.
const MAX_LINES: usize = 2_000;
/// Maximum length of a line in bytes; the rest of it is dropped.
const MAX_LINE: usize = 2_000;

/// A line: texts with their styles.
pub type Line = Vec<(String, Style)>;

/// The log. The guest's control characters are dropped ([`ConsoleFilter`]).
#[derive(Debug, Default)]
pub struct Console {
    filter: ConsoleFilter,
    lines: Vec<Line>,
    /// Whether the last line is complete.
    complete: bool,
    style: Style,
}

impl Console {
    /// Adds bytes of the log.
    pub fn push(&mut self, bytes: &[u8]) {
        let shown = self.filter.pass(bytes);
        let text = String::from_utf8_lossy(&shown);
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                self.complete = true;
            }
            self.add(line);
        }
        if self.lines.len() > MAX_LINES {
            self.lines.drain(..self.lines.len() - MAX_LINES);
        }
    }

    /// Adds text without line breaks: passages that begin with a rendition, `ESC [ number m`.
    fn add(&mut self, text: &str) {
        for (number, passage) in text.split('\x1b').enumerate() {
            let mut plain = passage;
            if number > 0
                && let Some((code, rest)) =
                    passage.strip_prefix('[').and_then(|rest| rest.split_once('m'))
            {
                self.style = rendition(self.style, code);
                plain = rest;
            }
            self.append(plain);
        }
    }

    fn append(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.complete || self.lines.is_empty() {
            self.lines.push(Line::new());
            self.complete = false;
        }
        let Some(line) = self.lines.last_mut() else { return };
        let length: usize = line.iter().map(|(text, _)| text.len()).sum();
        let room = MAX_LINE.saturating_sub(length);
        let room = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        let text = text.get(..room.unwrap_or_default()).unwrap_or_default().replace('\t', "    ");
        if !text.is_empty() {
            line.push((text, self.style));
        }
    }

    /// The lines; empty ones are left out.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
}

/// The renditions that the filter passes.
fn rendition(style: Style, code: &str) -> Style {
    const COLOURS: [Color; 6] =
        [Color::Red, Color::Green, Color::Yellow, Color::Blue, Color::Magenta, Color::Cyan];
    match code.parse::<usize>() {
        Ok(0) => Style::new(),
        Ok(1) => style.add_modifier(Modifier::BOLD),
        Ok(4) => style.add_modifier(Modifier::UNDERLINED),
        Ok(22) => style.remove_modifier(Modifier::BOLD),
        Ok(24) => style.remove_modifier(Modifier::UNDERLINED),
        Ok(39) => Style { fg: None, ..style },
        Ok(number @ 31..=36) => style.fg(COLOURS[number - 31]),
        Ok(number @ 91..=96) => style.fg(COLOURS[number - 91]),
        _ => style,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(console: &Console) -> Vec<String> {
        let text = |line: &Line| line.iter().map(|(text, _)| text.as_str()).collect();
        console.lines().iter().map(text).collect()
    }

    #[test]
    fn a_log_becomes_lines_however_it_is_cut() {
        let log =
            "\x1b[32m[  OK  ]\x1b[0m Started x\r\n\r\nlogin: \x1b[2J\x1b]0;title\x07root\n\tend";
        for size in 1..log.len() {
            let mut console = Console::default();
            log.as_bytes().chunks(size).for_each(|piece| console.push(piece));
            assert_eq!(plain(&console), ["[  OK  ] Started x", "login: root", "    end"], "{size}");
            assert_eq!(console.lines()[0][0].1.fg, Some(Color::Green));
            assert!(console.lines()[0].last().unwrap().1.fg.is_none());
        }
    }

    #[test]
    fn lines_and_their_lengths_are_bounded() {
        let mut console = Console::default();
        console.push("ü".repeat(5_000).as_bytes());
        (0..5_000).for_each(|number| console.push(format!("\nline {number}").as_bytes()));
        let lines = plain(&console);
        assert_eq!((lines.len(), lines.last().unwrap().as_str()), (MAX_LINES, "line 4999"));
        let mut console = Console::default();
        console.push("ü".repeat(5_000).as_bytes());
        assert!(plain(&console)[0].len() <= MAX_LINE);
    }

    proptest::proptest! {
        #[test]
        fn no_control_character_reaches_a_line(bytes in proptest::collection::vec(0u8.., 0..400)) {
            let mut console = Console::default();
            console.push(&bytes);
            for line in plain(&console) {
                assert!(!line.contains(banger_client::text::controls_terminal));
            }
        }
    }
}
