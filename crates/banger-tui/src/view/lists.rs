//! Tables of images, kernels and operations.

use banger_api::operation::{OpState, OperationView, Subject};
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::canvas::Canvas;
use super::vms::scroll_bar;
use crate::model::cursor::{Cursor, Entry};
use crate::model::{Hit, Model};
use crate::text;

/// A column: title, width (0: what is left), and whether the text is at the right.
type Column = (&'static str, u16, bool);
/// A cell.
type Cell = (String, Style);

/// Draws the images.
pub fn images(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = model.theme;
    let wide = area.width >= 110;
    let used_by = if wide { 30 } else { 14 };
    let columns: Vec<Column> = vec![
        ("NAME", 0, false),
        ("SYSTEM", if wide { 32 } else { 16 }, false),
        ("SIZE", 5, true),
        ("USED", 5, true),
        ("USED BY", used_by, false),
        ("AGE", 4, true),
    ];
    let hint = "u pulls one, such as debian or alpine:3.22";
    table(model, canvas, area, (&columns, "There is no image yet", hint), &model.images, |image| {
        vec![
            (image.names.join(", "), theme.strong),
            (image.system.clone().unwrap_or_default(), theme.text),
            (text::size(image.virtual_bytes), theme.text),
            (text::size(image.used_bytes), theme.text),
            (image.used_by.join(", "), theme.info),
            (age(model, &image.created_at), theme.faint),
        ]
    });
}

/// Draws the kernels.
pub fn kernels(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = model.theme;
    let wide = area.width >= 110;
    let columns: Vec<Column> = vec![
        ("NAME", 0, false),
        ("RELEASE", if wide { 34 } else { 24 }, false),
        ("USED", 5, true),
        ("USED BY", if wide { 30 } else { 16 }, false),
        ("AGE", 4, true),
    ];
    let texts = (&columns[..], "There is no kernel yet", "u pulls one, such as debian-cloud");
    table(model, canvas, area, texts, &model.kernels, |kernel| {
        vec![
            (kernel.names.join(", "), theme.strong),
            (kernel.release.clone(), theme.text),
            (text::size(kernel.used_bytes), theme.text),
            (kernel.used_by.join(", "), theme.info),
            (age(model, &kernel.created_at), theme.faint),
        ]
    });
}

/// Draws the operations, with the error of the selected one.
pub fn operations(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = model.theme;
    let columns: Vec<Column> = vec![
        ("ID", 9, false),
        ("OPERATION", 14, false),
        ("OF", 18, false),
        ("STATE", 12, false),
        ("", 0, false),
        ("AGE", 4, true),
    ];
    let texts = (&columns[..], "There was no operation yet", "");
    table(model, canvas, area, texts, &model.operations, |one| {
        let (style, state) = match one.state {
            OpState::Running => (theme.busy, "◐ running"),
            OpState::Succeeded => (theme.good, "● succeeded"),
            OpState::Failed => (theme.bad, "✗ failed"),
        };
        let subject = match &one.subject {
            Subject::Vm(vm) => vm.name.to_string(),
            Subject::Image { name, .. } | Subject::Kernel { name, .. } => name.clone(),
            Subject::Host => "host".into(),
        };
        let (note, note_style) = note(model, one);
        vec![
            (one.id.to_string(), theme.faint),
            (one.kind.replace('_', " "), theme.strong),
            (subject, theme.text),
            (state.to_owned(), style),
            (note, note_style),
            (age(model, &one.started_at), theme.faint),
        ]
    });
}

/// The stage and its progress, the duration, or the error.
fn note(model: &Model, one: &OperationView) -> Cell {
    let theme = model.theme;
    if let Some(error) = &one.error {
        return (error.message.clone(), theme.bad);
    }
    let Some(progress) = model.progress.get(&one.id) else { return (String::new(), theme.faint) };
    match progress.current() {
        Some(stage) => {
            let name = stage.name.replace('_', " ");
            let transfer = super::detail::transfer(progress).unwrap_or_default();
            (format!("{name}  {transfer}"), theme.busy)
        }
        None => (text::duration(progress.elapsed_ms(model.now_ms)), theme.faint),
    }
}

fn age(model: &Model, rfc3339: &str) -> String {
    let then = text::unix_ms(rfc3339);
    let age = then.map(|then| text::span(model.now_ms.saturating_sub(then) / 1000));
    age.unwrap_or_else(|| "–".into())
}

/// Draws a table. `texts`: columns, and what is shown without entries.
fn table<T: Entry>(
    model: &Model,
    canvas: &mut Canvas<'_>,
    area: Rect,
    (columns, none, hint): (&[Column], &str, &str),
    list: &Cursor<T>,
    cells: impl Fn(&T) -> Vec<Cell>,
) {
    let theme = model.theme;
    let fixed: u16 = columns.iter().map(|(_, width, _)| width + 2).sum();
    let left = area.width.saturating_sub(fixed + 2);
    let mut places = Vec::new();
    let mut x = area.x + 2;
    for (title, width, right) in columns {
        let width = if *width == 0 { left } else { *width };
        if *right {
            canvas.put_right(x, area.y, width, title, theme.faint);
        } else {
            canvas.put(x, area.y, width, title, theme.faint);
        }
        places.push((x, width, *right));
        x += width + 2;
    }
    if list.is_empty() {
        let lines = match (list.known, list.filter().is_empty()) {
            (_, false) => ["Nothing matches the filter", "Esc removes it"],
            (true, true) => [none, hint],
            (false, true) => ["Reading …", ""],
        };
        for (row, line) in lines.into_iter().enumerate() {
            let columns = u16::try_from(line.chars().count()).unwrap_or_default();
            let x = area.x + area.width.saturating_sub(columns) / 2;
            let y = area.y + area.height / 3 + u16::try_from(row).unwrap_or_default();
            let style = if row == 0 { theme.strong } else { theme.faint };
            canvas.put(x, y, columns, line, style);
        }
        return;
    }
    let visible = usize::from(area.height.saturating_sub(1));
    let place = list.place();
    for (number, entry) in list.entries().skip(place.top).take(visible).enumerate() {
        let y = area.y + 1 + u16::try_from(number).unwrap_or_default();
        for ((x, width, right), (text, style)) in places.iter().zip(cells(entry)) {
            if *right {
                canvas.put_right(*x, y, *width, &text, style);
            } else {
                canvas.put(*x, y, *width, &text, style);
            }
        }
        let line = Rect::new(area.x, y, area.width, 1);
        if place.top + number == place.row {
            canvas.style(line, theme.selected);
            canvas.put(area.x, y, 1, "▌", theme.accent.patch(theme.selected));
        }
        canvas.hit(line, Hit::Row(place.top + number));
    }
    scroll_bar(canvas, area, (place.top, visible, list.len()));
}
