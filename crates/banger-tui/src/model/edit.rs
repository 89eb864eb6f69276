//! One line of text that is being edited.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use unicode_width::UnicodeWidthStr;

/// Maximum length in bytes.
const MAX_BYTES: usize = 512;

/// A line and the place of the cursor in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    text: String,
    /// Byte position, at a character's beginning.
    at: usize,
}

impl Edit {
    /// A line with the cursor at its end.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { at: text.len(), text }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Columns before the cursor.
    pub fn column(&self) -> usize {
        self.text.get(..self.at).unwrap_or_default().width()
    }

    /// Applies a key; returns whether it edits text.
    pub fn key(&mut self, key: &KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('u') if control => {
                self.text.drain(..self.at);
                self.at = 0;
            }
            KeyCode::Char('w') if control => self.remove_word(),
            KeyCode::Char('a') if control => self.at = 0,
            KeyCode::Char('e') if control => self.at = self.text.len(),
            KeyCode::Char(_) if control || key.modifiers.contains(KeyModifiers::ALT) => {
                return false;
            }
            KeyCode::Char(character) => self.insert(character),
            KeyCode::Backspace if self.at > 0 => {
                self.at = self.before();
                self.text.remove(self.at);
            }
            KeyCode::Delete if self.at < self.text.len() => {
                self.text.remove(self.at);
            }
            KeyCode::Left => self.at = self.before(),
            KeyCode::Right => self.at = self.after(),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = self.text.len(),
            KeyCode::Backspace | KeyCode::Delete => {}
            _ => return false,
        }
        true
    }

    /// Inserts what was pasted; line breaks become spaces.
    pub fn paste(&mut self, text: &str) {
        for character in text.trim().chars() {
            self.insert(if character.is_whitespace() { ' ' } else { character });
        }
    }

    fn insert(&mut self, character: char) {
        let harmful = banger_client::text::controls_terminal(character);
        if !harmful && self.text.len() + character.len_utf8() <= MAX_BYTES {
            self.text.insert(self.at, character);
            self.at += character.len_utf8();
        }
    }

    fn before(&self) -> usize {
        let before = self.text.get(..self.at).and_then(|text| text.char_indices().next_back());
        before.map_or(0, |(at, _)| at)
    }

    fn after(&self) -> usize {
        let next = self.text.get(self.at..).and_then(|text| text.chars().next());
        self.at + next.map_or(0, char::len_utf8)
    }

    fn remove_word(&mut self) {
        let head = self.text.get(..self.at).unwrap_or_default().trim_end();
        let from = head.rfind(' ').map_or(0, |at| at + 1);
        self.text.drain(from..self.at);
        self.at = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(edit: &mut Edit, keys: &[KeyCode]) {
        for key in keys {
            edit.key(&KeyEvent::new(*key, KeyModifiers::NONE));
        }
    }

    #[test]
    fn keys_edit_at_the_cursor() {
        use KeyCode::{Backspace, Char, Delete, End, Home, Left, Right};
        let mut edit = Edit::new("wéb");
        typed(
            &mut edit,
            &[Left, Backspace, Char('e'), Home, Char('x'), Right, Delete, End, Delete],
        );
        assert_eq!((edit.text(), edit.column()), ("xwb", 3));
        edit.paste(" a\nb\x1b ");
        assert_eq!(edit.text(), "xwba b");
        edit.key(&KeyEvent::new(Char('w'), KeyModifiers::CONTROL));
        assert_eq!(edit.text(), "xwba ");
        edit.key(&KeyEvent::new(Char('u'), KeyModifiers::CONTROL));
        assert_eq!(edit.text(), "");
        typed(&mut edit, &[Backspace, Left, Delete, Char('\u{202e}'), Char('機')]);
        assert_eq!((edit.text(), edit.column()), ("機", 2));
        assert!(!edit.key(&KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE)));
    }

    #[test]
    fn the_length_is_bounded() {
        let mut edit = Edit::default();
        edit.paste(&"x".repeat(10_000));
        assert_eq!(edit.text().len(), MAX_BYTES);
    }
}
