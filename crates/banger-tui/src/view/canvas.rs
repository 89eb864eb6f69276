//! Drawing on the cells of a frame. All text passes [`harmless`] here.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

use crate::model::Hit;
use crate::text::{fit, harmless};
use crate::theme::Theme;

/// A frame that is being drawn.
pub struct Canvas<'a> {
    buffer: &'a mut Buffer,
    /// Styles.
    pub theme: Theme,
    /// What is shown where.
    pub hits: Vec<(Rect, Hit)>,
    /// Place of the cursor, if it is shown.
    pub cursor: Option<(u16, u16)>,
}

impl<'a> Canvas<'a> {
    /// A frame on these cells.
    pub fn new(buffer: &'a mut Buffer, theme: Theme) -> Self {
        Self { buffer, theme, hits: Vec::new(), cursor: None }
    }

    /// All cells.
    pub fn area(&self) -> Rect {
        self.buffer.area
    }

    /// Writes the beginning of a text that fits into `width` columns; returns the column after it.
    pub fn put(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        let area = self.area();
        if y >= area.bottom() || x >= area.right() {
            return x;
        }
        let width = width.min(area.right() - x);
        let text = harmless(text);
        let text = fit(&text, usize::from(width));
        self.buffer.set_stringn(x, y, &text, usize::from(width), style).0
    }

    /// Writes a text that ends at the right edge of `width` columns.
    pub fn put_right(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) {
        let text = harmless(text);
        let text = fit(&text, usize::from(width));
        let before = width.saturating_sub(u16::try_from(text.width()).unwrap_or(width));
        self.put(x + before, y, width - before, &text, style);
    }

    /// Adds a style to cells.
    pub fn style(&mut self, area: Rect, style: Style) {
        let area = area.intersection(self.area());
        self.buffer.set_style(area, style);
    }

    /// Empties cells.
    pub fn clear(&mut self, area: Rect) {
        let area = area.intersection(self.area());
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                if let Some(cell) = self.buffer.cell_mut((x, y)) {
                    cell.reset();
                }
            }
        }
    }

    /// Draws a horizontal line.
    pub fn rule(&mut self, x: u16, y: u16, width: u16) {
        let line = "─".repeat(usize::from(width));
        self.put(x, y, width, &line, self.theme.line);
    }

    /// Draws a vertical line.
    pub fn bar(&mut self, x: u16, y: u16, height: u16) {
        for row in 0..height {
            self.put(x, y + row, 1, "│", self.theme.line);
        }
    }

    /// Draws an empty box with a title; returns its inside.
    pub fn boxed(&mut self, area: Rect, title: &str, style: Style) -> Rect {
        let area = area.intersection(self.area());
        self.clear(area);
        self.hit(area, Hit::Nothing);
        let inner = usize::from(area.width.saturating_sub(2));
        let (x, y) = (area.x, area.y);
        self.put(x, y, area.width, &format!("╭{}╮", "─".repeat(inner)), style);
        for row in 1..area.height.saturating_sub(1) {
            self.put(x, y + row, 1, "│", style);
            self.put(area.right().saturating_sub(1), y + row, 1, "│", style);
        }
        let last = area.bottom().saturating_sub(1);
        self.put(x, last, area.width, &format!("╰{}╯", "─".repeat(inner)), style);
        let title_style = style.patch(self.theme.strong);
        if !title.is_empty() {
            let room = area.width.saturating_sub(6);
            let end = self.put(x + 3, y, room, title, title_style);
            self.put(x + 2, y, 1, " ", style);
            self.put(end, y, 1, " ", style);
        }
        Rect::new(x + 2, y + 1, area.width.saturating_sub(4), area.height.saturating_sub(2))
    }

    /// Records what an area stands for.
    pub fn hit(&mut self, area: Rect, hit: Hit) {
        self.hits.push((area, hit));
    }

    /// A bar of `width` columns of which `part` of `whole` is full, in eighths of a column.
    pub fn gauge(&mut self, (x, y, width): (u16, u16, u16), part: f64, style: Style) {
        let eighths = (part.clamp(0.0, 1.0) * f64::from(width) * 8.0).round() as usize;
        let eighths = if part > 0.0 { eighths.max(1) } else { eighths };
        let full = "█".repeat(eighths / 8);
        let end = self.put(x, y, width, &full, style);
        let end = match eighths % 8 {
            0 => end,
            rest => self.put(end, y, 1, EIGHTHS[rest], style),
        };
        let rest = (x + width).saturating_sub(end);
        self.put(end, y, rest, &"·".repeat(usize::from(rest)), self.theme.track);
    }
}

/// Blocks that fill a part of a column from the left.
pub const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// Values as bars of eight heights, the newest at the right; `most` is the highest bar.
pub fn sparkline(values: &[f64], most: f64, width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let from = values.len().saturating_sub(width);
    let bar = |value: &f64| {
        let height = (value / most.max(1.0) * 7.0).round().clamp(0.0, 7.0);
        BARS[height as usize]
    };
    values.iter().skip(from).map(bar).collect()
}
