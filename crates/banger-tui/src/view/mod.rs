//! Frames: a pure function of the model.

mod canvas;
mod chrome;
mod detail;
mod form;
pub mod layout;
mod lists;
mod overlay;
mod timeline;
mod vms;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::model::detail::Zoom;
use crate::model::{Hit, Model, Tab};
use canvas::Canvas;

/// What a frame shows where, and the place of the cursor.
pub struct Drawn {
    /// What is shown where, the topmost last.
    pub hits: Vec<(Rect, Hit)>,
    /// Place of the cursor, if it is shown.
    pub cursor: Option<(u16, u16)>,
}

/// Draws a frame of the terminal.
pub fn draw(model: &Model, frame: &mut Frame<'_>) -> Vec<(Rect, Hit)> {
    let drawn = draw_on(model, frame.buffer_mut());
    if let Some(cursor) = drawn.cursor {
        frame.set_cursor_position(cursor);
    }
    drawn.hits
}

/// Draws on cells.
pub fn draw_on(model: &Model, buffer: &mut Buffer) -> Drawn {
    let mut canvas = Canvas::new(buffer, model.theme);
    let area = canvas.area();
    let size = (area.width, area.height);
    if layout::is_large_enough(size) {
        whole(model, size, &mut canvas);
    } else {
        let (columns, rows) = layout::SMALLEST;
        let text = format!("The terminal has {}×{}", area.width, area.height);
        canvas.put(0, 0, area.width, &text, model.theme.bad);
        let text = format!("banger needs {columns}×{rows}");
        canvas.put(0, 1, area.width, &text, model.theme.text);
    }
    Drawn { hits: canvas.hits, cursor: canvas.cursor }
}

fn whole(model: &Model, size: (u16, u16), canvas: &mut Canvas<'_>) {
    chrome::header(model, canvas);
    chrome::rule(model, canvas);
    let body = layout::body(size);
    match (model.tab, model.detail.zoom) {
        (Tab::Vms, Zoom::Beside) => {
            let (list, beside) = layout::columns(size);
            vms::table(model, canvas, list);
            if let Some(beside) = beside {
                canvas.bar(list.right(), body.y, body.height);
                detail::details(model, canvas, inset(beside));
            }
        }
        (Tab::Vms, Zoom::Whole) => detail::details(model, canvas, inset(body)),
        (Tab::Vms, Zoom::Console) => detail::console_alone(model, canvas, inset(body)),
        (Tab::Images, _) => lists::images(model, canvas, body),
        (Tab::Kernels, _) => lists::kernels(model, canvas, body),
        (Tab::Operations, _) => lists::operations(model, canvas, body),
    }
    canvas.rule(0, body.bottom(), body.width);
    chrome::gauges(model, canvas, body.bottom() + 1);
    chrome::keys(model, canvas, body.bottom() + 2);
    overlay::messages(model, canvas, body);
    overlay::overlay(model, canvas);
}

/// With a free column at both sides.
fn inset(area: Rect) -> Rect {
    Rect::new(area.x + 1, area.y, area.width.saturating_sub(2), area.height)
}
