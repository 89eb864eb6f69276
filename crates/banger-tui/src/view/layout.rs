//! Places on the screen, from the size of the terminal.

use ratatui::layout::Rect;

use crate::model::detail::Zoom;

/// The smallest terminal that is drawn on.
pub const SMALLEST: (u16, u16) = (60, 15);
/// Columns from which the details stand beside the list.
const WIDE: u16 = 130;
/// Rows above and below the lists: header and rule, rule, gauges and keys.
const ABOVE: u16 = 2;
const BELOW: u16 = 3;

/// Whether the terminal is large enough.
pub fn is_large_enough((columns, rows): (u16, u16)) -> bool {
    columns >= SMALLEST.0 && rows >= SMALLEST.1
}

/// Whether the details stand beside the list.
pub fn has_detail_beside((columns, _): (u16, u16)) -> bool {
    columns >= WIDE
}

/// The place of lists and details.
pub fn body((columns, rows): (u16, u16)) -> Rect {
    Rect::new(0, ABOVE, columns, rows.saturating_sub(ABOVE + BELOW))
}

/// The list and the details beside it; no details if the terminal is not wide.
pub fn columns(size: (u16, u16)) -> (Rect, Option<Rect>) {
    let body = body(size);
    if !has_detail_beside(size) {
        return (body, None);
    }
    let list = (body.width * 11 / 20).clamp(72, 140);
    let beside = Rect::new(list + 1, body.y, body.width - list - 1, body.height);
    (Rect { width: list, ..body }, Some(beside))
}

/// Rows of a list below its titles, of which `taken` are used otherwise.
pub fn rows(size: (u16, u16), taken: u16) -> usize {
    usize::from(body(size).height.saturating_sub(1 + taken))
}

/// Rows by which the console can be scrolled at most before its first line is the last visible.
pub fn console_rows(size: (u16, u16), zoom: Zoom) -> usize {
    let body = usize::from(body(size).height);
    match zoom {
        Zoom::Console => body.saturating_sub(1),
        Zoom::Beside | Zoom::Whole => 1,
    }
}

/// A box of at most this size in the middle of the screen.
pub fn centred((columns, rows): (u16, u16), width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(columns), height.min(rows));
    Rect::new((columns - width) / 2, (rows - height) / 2, width, height)
}
