//! The form for a new VM, and the line for what to pull.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use super::detail::draw_progress;
use super::layout;
use crate::model::edit::Edit;
use crate::model::form::{Field, FieldId, Form, Phase, Value};
use crate::model::ports::PortsPrompt;
use crate::model::{Hit, Model, PullKind, PullPrompt};
use crate::text;

/// Columns of the box.
const WIDTH: u16 = 72;
/// Columns of a label.
const LABEL: u16 = 12;
/// Rows of an error at most.
const MAX_ERROR: usize = 4;

fn size(canvas: &Canvas<'_>) -> (u16, u16) {
    (canvas.area().width, canvas.area().height)
}

/// Draws the form.
pub fn form(model: &Model, canvas: &mut Canvas<'_>, form: &Form) {
    let theme = model.theme;
    if let Phase::Creating { operation, vm } = &form.phase {
        let area = layout::centred(size(canvas), WIDTH, 16);
        let title = format!("Creating {}", vm.name);
        let inner = canvas.boxed(area, &title, theme.accent);
        let progress = operation.as_ref().and_then(|id| model.progress.get(id));
        let body = Rect { height: inner.height.saturating_sub(2), y: inner.y + 1, ..inner };
        match progress {
            Some(progress) => {
                draw_progress(model, canvas, progress, body);
            }
            None => {
                canvas.put(body.x, body.y, body.width, "waiting for its first stage", theme.faint);
            }
        }
        let last = inner.bottom().saturating_sub(1);
        let keys =
            [("Enter", "details", Hit::Confirm), ("Esc", "continue in the list", Hit::Dismiss)];
        buttons(canvas, (inner.x, last), &keys);
        let x = inner.x + 42;
        let end = canvas.put(x, last, 2, "c", theme.accent) + 1;
        canvas.put(end, last, 20, "cancel", theme.faint);
        return;
    }
    let rows = rows(form);
    let height = u16::try_from(rows.len() + 5).unwrap_or(u16::MAX);
    let area = layout::centred(size(canvas), WIDTH, height);
    let inner = canvas.boxed(area, "New VM", theme.accent);
    let top = inner.y + u16::from(area.height == height);
    // On a low screen the selected field and its error are visible.
    let visible = usize::from(inner.bottom().saturating_sub(top + 1));
    let focus = rows.iter().rposition(|row| row.field == Some(form.focus));
    let first = (focus.unwrap_or(rows.len()) + 1).saturating_sub(visible);
    for (number, row) in rows.iter().skip(first).take(visible).enumerate() {
        let y = top + u16::try_from(number).unwrap_or_default();
        match (&row.error, row.field.and_then(|at| form.fields.get(at))) {
            (Some((line, style)), _) => {
                let style = if *style { theme.bad } else { theme.text };
                let width = inner.width.saturating_sub(LABEL);
                canvas.put(inner.x + LABEL, y, width, line, style);
            }
            (None, Some(field)) => {
                let focused = row.field == Some(form.focus) && form.phase == Phase::Editing;
                draw_field(canvas, field, (inner, y), focused);
                let hit = Hit::Field(row.field.unwrap_or_default());
                canvas.hit(Rect::new(inner.x, y, inner.width, 1), hit);
            }
            (None, None) => {}
        }
    }
    let last = inner.bottom().saturating_sub(1);
    if form.phase == Phase::Sending {
        canvas.put(inner.x, last, inner.width, "waiting for the daemon's answer …", theme.busy);
        return;
    }
    let keys = [("Enter", "create", Hit::Confirm), ("Esc", "close", Hit::Dismiss)];
    let x = buttons(canvas, (inner.x, last), &keys);
    let hint = match form.fields.get(form.focus).map(|field| &field.value) {
        Some(Value::Switch(_)) => "Space changes it",
        Some(Value::Text { choices, .. }) if !choices.is_empty() => "Space offers those at hand",
        _ => "empty: the default",
    };
    canvas.put_right(x, last, inner.right().saturating_sub(x), hint, theme.faint);
}

/// Keys with their effects; returns the column after them.
fn buttons(canvas: &mut Canvas<'_>, (x, y): (u16, u16), keys: &[(&str, &str, Hit)]) -> u16 {
    let theme = canvas.theme;
    let mut x = x;
    for (key, effect, hit) in keys {
        let from = x;
        x = canvas.put(x, y, 8, key, theme.accent) + 1;
        x = canvas.put(x, y, 24, effect, theme.text);
        canvas.hit(Rect::new(from, y, x - from, 1), *hit);
        x += 3;
    }
    x
}

fn draw_field(canvas: &mut Canvas<'_>, field: &Field, (inner, y): (Rect, u16), focused: bool) {
    let theme = canvas.theme;
    let style = if focused { theme.accent } else { theme.faint };
    canvas.put(inner.x, y, LABEL, field.label, style);
    let x = inner.x + LABEL;
    let width = inner.width.saturating_sub(LABEL);
    match &field.value {
        Value::Switch(on) => {
            let (style, text) = match (field.id, on) {
                (FieldId::Nat, true) => (theme.good, "● reaches other networks"),
                (FieldId::Nat, false) => (theme.faint, "○ reaches this host only"),
                (FieldId::Autostart, true) => (theme.good, "● with the daemon"),
                (_, true) => (theme.good, "● yes"),
                (_, false) => (theme.faint, "○ no"),
            };
            canvas.put(x, y, width, text, style);
        }
        Value::Text { edit, default, .. } => {
            if edit.text().is_empty() {
                canvas.put(x, y, width, default, theme.faint);
            } else {
                // The end of a long text is what is being typed.
                let first = edit.column().saturating_sub(usize::from(width).saturating_sub(1));
                let shown: String = edit.text().chars().skip(first).collect();
                canvas.put(x, y, width, &shown, theme.strong);
            }
            if focused {
                let column = u16::try_from(edit.column()).unwrap_or(width);
                canvas.cursor = Some((x + column.min(width.saturating_sub(1)), y));
            }
        }
    }
    if focused {
        canvas.style(Rect::new(x, y, width, 1), theme.selected);
    }
}

/// A row of the form: a field, or a line of the refusal below it.
struct Row {
    field: Option<usize>,
    /// The line, and whether it is the first one.
    error: Option<(String, bool)>,
}

/// The fields with the refusal below the field that it is about, or at the end.
fn rows(form: &Form) -> Vec<Row> {
    let width = usize::from(WIDTH - 4 - LABEL);
    let errors = |of: Option<FieldId>, field: Option<usize>| {
        let refusal = form.refusal.as_ref().filter(|one| one.field == of);
        let lines = refusal.map(|one| text::wrap(&text::harmless_lines(&one.text), width));
        let lines = lines.unwrap_or_default().into_iter().take(MAX_ERROR).enumerate();
        let row = move |(number, line)| Row { field, error: Some((line, number == 0)) };
        lines.map(row).collect::<Vec<_>>()
    };
    let mut rows = Vec::new();
    for (number, field) in form.fields.iter().enumerate() {
        rows.push(Row { field: Some(number), error: None });
        rows.extend(errors(Some(field.id), Some(number)));
    }
    rows.extend(errors(None, None));
    rows
}

/// Draws the line for what to pull.
pub fn pull(model: &Model, canvas: &mut Canvas<'_>, prompt: &PullPrompt) {
    let (title, example) = match prompt.kind {
        PullKind::Image => ("Pull an image", "debian, or an image of a registry: alpine:3.22"),
        PullKind::Kernel => ("Pull a kernel", "debian-cloud"),
    };
    let line = Line { title, example, edit: &prompt.edit, error: prompt.error.as_deref() };
    line.draw(model, canvas, "pull");
}

/// Draws the line with the published ports of a VM.
pub fn ports(model: &Model, canvas: &mut Canvas<'_>, prompt: &PortsPrompt) {
    let title = format!("Published ports of {}", prompt.vm.name);
    let example = "none; HOST:GUEST such as 8080:80, several separated by spaces";
    let error = prompt.error.as_deref();
    let line = Line { title: &title, example, edit: &prompt.edit, error };
    line.draw(model, canvas, "publish");
}

/// A box with one line to edit.
struct Line<'a> {
    title: &'a str,
    /// Shown while the line is empty.
    example: &'a str,
    edit: &'a Edit,
    error: Option<&'a str>,
}

impl Line<'_> {
    /// Draws it; `verb` is the effect of Enter.
    fn draw(&self, model: &Model, canvas: &mut Canvas<'_>, verb: &str) {
        let theme = model.theme;
        let width = usize::from(WIDTH - 4);
        let error = self.error.map(text::harmless_lines).unwrap_or_default();
        let lines = if error.is_empty() { Vec::new() } else { text::wrap(&error, width) };
        let lines: Vec<String> = lines.into_iter().take(MAX_ERROR + 2).collect();
        let rows = u16::try_from(lines.len()).unwrap_or_default() + 6;
        let area = layout::centred(size(canvas), WIDTH, rows);
        let inner = canvas.boxed(area, self.title, theme.accent);
        let y = inner.y + 1;
        canvas.style(Rect::new(inner.x, y, inner.width, 1), theme.selected);
        if self.edit.text().is_empty() {
            let style = theme.faint.patch(theme.selected);
            canvas.put(inner.x, y, inner.width, self.example, style);
        } else {
            let style = theme.strong.patch(theme.selected);
            canvas.put(inner.x, y, inner.width, self.edit.text(), style);
        }
        let column = u16::try_from(self.edit.column()).unwrap_or_default();
        canvas.cursor = Some((inner.x + column.min(inner.width.saturating_sub(1)), y));
        for (row, line) in (y + 1..).zip(&lines) {
            let style = if row == y + 1 { theme.bad } else { theme.text };
            canvas.put(inner.x, row, inner.width, line, style);
        }
        let last = inner.bottom().saturating_sub(1);
        let keys = [("Enter", verb, Hit::Confirm), ("Esc", "close", Hit::Dismiss)];
        buttons(canvas, (inner.x, last), &keys);
    }
}
