//! What is open above the lists: help, questions, the form, and messages.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use super::{form, layout};
use crate::keys::{BINDINGS, Place};
use crate::model::{Hit, Model, Overlay, Question, Tone};
use crate::text;

/// Columns of a message at most.
const MESSAGE: u16 = 64;
/// Rows of a message at most.
const MESSAGE_ROWS: usize = 6;

/// Draws what is open.
pub fn overlay(model: &Model, canvas: &mut Canvas<'_>) {
    match &model.overlay {
        None => {}
        Some(Overlay::Help(line)) => help(model, canvas, *line),
        Some(Overlay::Question(one)) => question(model, canvas, one),
        Some(Overlay::Form(open)) => form::form(model, canvas, open),
        Some(Overlay::Pull(prompt)) => form::pull(model, canvas, prompt),
        Some(Overlay::Ports(prompt)) => form::ports(model, canvas, prompt),
    }
}

/// Draws messages at the bottom right of the lists, the newest at the bottom.
pub fn messages(model: &Model, canvas: &mut Canvas<'_>, body: Rect) {
    let theme = model.theme;
    let mut bottom = body.bottom();
    for message in model.messages.iter().rev() {
        let (style, symbol) = match message.tone {
            Tone::Good => (theme.good, "●"),
            Tone::Warning => (theme.busy, "!"),
            Tone::Bad => (theme.bad, "✗"),
        };
        let most = MESSAGE.min(body.width.saturating_sub(8));
        let lines = text::wrap(&text::harmless_lines(&message.text), usize::from(most));
        let lines: Vec<&String> = lines.iter().take(MESSAGE_ROWS).collect();
        let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
        let width = u16::try_from(longest).unwrap_or(most).min(most) + 6;
        let height = u16::try_from(lines.len()).unwrap_or_default() + 2;
        if bottom < body.y + height {
            return;
        }
        let area = Rect::new(body.right() - width, bottom - height, width, height);
        let inner = canvas.boxed(area, "", style);
        canvas.put(inner.x, inner.y, 2, symbol, style);
        for (row, line) in lines.into_iter().enumerate() {
            let y = inner.y + u16::try_from(row).unwrap_or_default();
            canvas.put(inner.x + 2, y, inner.width.saturating_sub(2), line, theme.text);
        }
        bottom -= height;
    }
}

fn question(model: &Model, canvas: &mut Canvas<'_>, question: &Question) {
    let theme = model.theme;
    let size = (canvas.area().width, canvas.area().height);
    let width = 60.min(size.0);
    let lines: Vec<String> = question
        .lines
        .iter()
        .flat_map(|line| text::wrap(&text::harmless(line), usize::from(width - 4)))
        .collect();
    let rows = u16::try_from(lines.len()).unwrap_or_default() + 5;
    let area = layout::centred(size, width, rows);
    let inner = canvas.boxed(area, &question.title, theme.bad);
    for (y, line) in (inner.y + 1..).zip(&lines) {
        canvas.put(inner.x, y, inner.width, line, theme.text);
    }
    let last = inner.bottom().saturating_sub(1);
    let from = inner.x;
    let x = canvas.put(from, last, 2, "y", theme.bad) + 1;
    let x = canvas.put(x, last, 20, question.verb, theme.text);
    canvas.hit(Rect::new(from, last, x - from, 1), Hit::Confirm);
    let from = x + 3;
    let x = canvas.put(from, last, 4, "Esc", theme.accent) + 1;
    let x = canvas.put(x, last, 20, "do nothing", theme.text);
    canvas.hit(Rect::new(from, last, x - from, 1), Hit::Dismiss);
}

/// The keys in one column, or in two if there is room.
fn help(model: &Model, canvas: &mut Canvas<'_>, line: u16) {
    let theme = model.theme;
    let size = (canvas.area().width, canvas.area().height);
    let parts = [
        ("VMs and their details", Place::Vms),
        ("Images and kernels", Place::Stored),
        ("Operations", Place::Operations),
        ("Without a daemon", Place::Offline),
        ("Everywhere", Place::Everywhere),
    ];
    let mut rows: Vec<(Option<&str>, &str)> = Vec::new();
    for (title, place) in parts {
        if !rows.is_empty() {
            rows.push((None, ""));
        }
        rows.push((None, title));
        let of_place = BINDINGS.iter().filter(|binding| binding.place == place);
        rows.extend(of_place.map(|binding| (Some(binding.shown), binding.help)));
    }
    rows.push((Some("Ctrl-Z"), "suspend the program"));
    rows.push((Some("mouse"), "a click selects, on a title sorts; a second one opens"));
    let two = size.0 >= 120;
    let per_column = if two { rows.len().div_ceil(2) } else { rows.len() };
    let width = if two { 116 } else { 62 };
    let height = u16::try_from(per_column).unwrap_or_default() + 3;
    let area = layout::centred(size, width, height.min(size.1));
    let inner = canvas.boxed(area, "Keys", theme.accent);
    let visible = usize::from(inner.height.saturating_sub(1));
    let most = per_column.saturating_sub(visible);
    let first = usize::from(line).min(most);
    let columns = if two { 2 } else { 1 };
    let column_width = inner.width / columns;
    for column in 0..columns {
        let x = inner.x + column * column_width;
        let from = usize::from(column) * per_column;
        let shown = rows.iter().skip(from + first).take(visible.min(per_column));
        for (row, (key, text)) in shown.enumerate() {
            let y = inner.y + u16::try_from(row).unwrap_or_default();
            match key {
                Some(key) => {
                    canvas.put(x, y, 8, key, theme.accent);
                    canvas.put(x + 9, y, column_width.saturating_sub(10), text, theme.text);
                }
                None => {
                    canvas.put(x, y, column_width, text, theme.strong);
                }
            }
        }
    }
    let last = inner.bottom().saturating_sub(1);
    let text =
        if most > first { "↓ shows more, any other key closes" } else { "any other key closes" };
    canvas.put_right(inner.x, last, inner.width, text, theme.faint);
    canvas.hit(area, Hit::Dismiss);
}
