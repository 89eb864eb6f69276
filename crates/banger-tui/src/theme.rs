//! Colours of the terminal, or their substitutes without colour.
//!
//! Only the sixteen colours of the terminal's own palette, its default foreground and background
//! and a few greys are used, so that the screen follows the user's colours. States differ in their
//! symbols and words, too.

use banger_api::vm::VmState;
use ratatui::style::{Color, Modifier, Style};

/// Background of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// Dark.
    Dark,
    /// Light.
    Light,
    /// Unknown: colours that can be read on both.
    Unknown,
}

/// Styles by what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Whether text of guests may have colours.
    pub has_colours: bool,
    /// Text.
    pub text: Style,
    /// Titles and values that matter.
    pub strong: Style,
    /// Labels and what matters less.
    pub faint: Style,
    /// Lines between parts.
    pub line: Style,
    /// The selected row.
    pub selected: Style,
    /// The selected tab, and keys.
    pub accent: Style,
    /// What works.
    pub good: Style,
    /// What is in progress, and warnings.
    pub busy: Style,
    /// What failed.
    pub bad: Style,
    /// What is paused, and information.
    pub info: Style,
    /// The part of a gauge that is used.
    pub gauge: Style,
    /// The part of a gauge that is free.
    pub track: Style,
}

impl Theme {
    /// Colours for a background.
    pub fn colours(background: Background) -> Self {
        let plain = Style::new();
        let colour = |dark, light, both| {
            plain.fg(match background {
                Background::Dark => dark,
                Background::Light => light,
                Background::Unknown => both,
            })
        };
        let selected = match background {
            Background::Dark => plain.bg(Color::Indexed(237)),
            Background::Light => plain.bg(Color::Indexed(254)),
            Background::Unknown => plain.add_modifier(Modifier::REVERSED),
        };
        let grey = colour(Color::Indexed(245), Color::Indexed(243), Color::Indexed(244));
        Self {
            has_colours: true,
            text: plain,
            strong: plain.add_modifier(Modifier::BOLD),
            faint: grey,
            line: colour(Color::Indexed(239), Color::Indexed(250), Color::Indexed(244)),
            selected,
            accent: colour(Color::LightCyan, Color::Blue, Color::Cyan).bold(),
            good: colour(Color::LightGreen, Color::Indexed(28), Color::Green),
            busy: colour(Color::LightYellow, Color::Indexed(130), Color::Indexed(172)),
            bad: colour(Color::LightRed, Color::Red, Color::Red).bold(),
            info: colour(Color::LightBlue, Color::Blue, Color::Indexed(33)),
            gauge: colour(Color::Cyan, Color::Blue, Color::Indexed(37)),
            track: colour(Color::Indexed(238), Color::Indexed(252), Color::Indexed(244)),
        }
    }

    /// Without colours: bold, dim, underlined and reversed text.
    pub fn monochrome() -> Self {
        let plain = Style::new();
        let dim = plain.add_modifier(Modifier::DIM);
        let bold = plain.add_modifier(Modifier::BOLD);
        Self {
            has_colours: false,
            text: plain,
            strong: bold,
            faint: dim,
            line: dim,
            selected: plain.add_modifier(Modifier::REVERSED),
            accent: bold.add_modifier(Modifier::UNDERLINED),
            good: plain,
            busy: bold,
            bad: bold,
            info: plain,
            gauge: plain,
            track: dim,
        }
    }

    /// Style and symbol of a state.
    pub fn of_state(&self, state: VmState) -> (Style, &'static str) {
        match state {
            VmState::Running => (self.good, "●"),
            VmState::Starting => (self.busy, "◐"),
            VmState::Stopping => (self.busy, "◑"),
            VmState::Paused => (self.info, "‖"),
            VmState::Stopped => (self.faint, "○"),
            VmState::Broken => (self.bad, "✗"),
            VmState::Deleting => (self.busy, "◌"),
        }
    }
}
