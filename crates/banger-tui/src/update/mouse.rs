//! Effects of the mouse: on what the last frame shows at that place.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::{Effect, keys};
use crate::model::detail::Zoom;
use crate::model::form::Phase;
use crate::model::{Hit, Model, Overlay, Tab};

/// Rows by which the wheel scrolls.
const WHEEL: isize = 3;

/// The mouse was used.
pub fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Effect> {
    match event.kind {
        MouseEventKind::ScrollDown => wheel(model, WHEEL),
        MouseEventKind::ScrollUp => wheel(model, -WHEEL),
        MouseEventKind::Down(MouseButton::Left) => {
            let at = Position::new(event.column, event.row);
            // The last drawn is above the others.
            let hit = model.hits.iter().rev().find(|(area, _)| area.contains(at));
            match hit.map(|(_, hit)| *hit) {
                Some(hit) => click(model, hit),
                None => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn wheel(model: &mut Model, by: isize) -> Vec<Effect> {
    match &mut model.overlay {
        None => keys::step(model, by),
        Some(Overlay::Help(line)) => {
            *line = line.saturating_add_signed(i16::try_from(by).unwrap_or_default());
        }
        Some(_) => {}
    }
    Vec::new()
}

fn press(model: &mut Model, code: KeyCode) -> Vec<Effect> {
    keys::key(model, &KeyEvent::new(code, KeyModifiers::NONE))
}

fn click(model: &mut Model, hit: Hit) -> Vec<Effect> {
    match hit {
        Hit::Tab(tab) => return keys::tab(model, tab.number()),
        Hit::Column(column) => model.vms.sort_by(column),
        Hit::Row(row) => return click_row(model, row),
        Hit::Command(command) => return keys::run(model, command),
        Hit::Confirm => {
            let is_question = matches!(model.overlay, Some(Overlay::Question(_)));
            return press(model, if is_question { KeyCode::Char('y') } else { KeyCode::Enter });
        }
        Hit::Dismiss => return press(model, KeyCode::Esc),
        Hit::Field(field) => {
            if let Some(Overlay::Form(form)) = &mut model.overlay
                && form.phase == Phase::Editing
            {
                // A second click changes a switch.
                let again = form.focus == field;
                form.focus = field;
                if again {
                    form.toggle();
                }
            }
        }
        Hit::Nothing => {}
    }
    Vec::new()
}

/// Selects a row; a click on the selected one opens it.
fn click_row(model: &mut Model, row: usize) -> Vec<Effect> {
    let by = |from: usize| {
        isize::try_from(row).unwrap_or_default() - isize::try_from(from).unwrap_or_default()
    };
    match model.tab {
        Tab::Vms if model.vms.place().row == row => model.detail.zoom = Zoom::Whole,
        Tab::Vms => model.vms.go(by(model.vms.place().row)),
        Tab::Images => model.images.go(by(model.images.place().row)),
        Tab::Kernels => model.kernels.go(by(model.kernels.place().row)),
        Tab::Operations => model.operations.go(by(model.operations.place().row)),
    }
    Vec::new()
}
