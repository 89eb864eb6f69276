//! Keys of the form for a new VM, and of the line for what to pull.

use banger_api::vm::VmAction;
use crossterm::event::{KeyCode, KeyEvent};

use super::Effect;
use crate::model::detail::Zoom;
use crate::model::form::{Form, Phase};
use crate::model::ports::PortsPrompt;
use crate::model::{Model, Overlay, PullPrompt};

/// Something was pasted.
pub fn paste(model: &mut Model, text: &str) {
    match (&mut model.overlay, &mut model.filtering) {
        (Some(Overlay::Form(form)), _) if form.phase == Phase::Editing => form.paste(text),
        (Some(Overlay::Pull(prompt)), _) => prompt.edit.paste(text),
        (Some(Overlay::Ports(prompt)), _) => prompt.edit.paste(text),
        (None, Some(edit)) => {
            edit.paste(text);
            let filter = edit.text().to_owned();
            super::keys::set_filter(model, filter);
        }
        _ => {}
    }
}

/// A key in the form, which stays open unless it is closed here.
pub fn key(model: &mut Model, mut form: Form, key: &KeyEvent) -> Vec<Effect> {
    let mut effects = Vec::new();
    match (&form.phase, key.code) {
        (_, KeyCode::Esc) => {
            // The operation continues; its VM is in the list.
            if let Phase::Creating { vm, .. } = &form.phase {
                model.vms.select(&vm.id);
            }
            return effects;
        }
        (Phase::Editing, KeyCode::Enter) => effects = send(&mut form),
        (Phase::Editing, KeyCode::Tab | KeyCode::Down) => form.go(1),
        (Phase::Editing, KeyCode::BackTab | KeyCode::Up) => form.go(-1),
        (Phase::Editing, _) => {
            form.key(key);
        }
        (Phase::Creating { vm, .. }, KeyCode::Enter) => {
            model.vms.select(&vm.id);
            model.detail.zoom = Zoom::Whole;
            return effects;
        }
        (Phase::Creating { operation: Some(operation), .. }, KeyCode::Char('c')) => {
            effects = vec![Effect::Cancel(operation.clone())];
        }
        (Phase::Sending | Phase::Creating { .. }, _) => {}
    }
    model.overlay = Some(Overlay::Form(Box::new(form)));
    effects
}

/// Sends the request, if its values are valid.
pub fn send(form: &mut Form) -> Vec<Effect> {
    match form.request() {
        Ok(request) => {
            form.refusal = None;
            form.phase = Phase::Sending;
            vec![Effect::Create(Box::new(request))]
        }
        Err(refusal) => {
            let at = form.fields.iter().position(|field| Some(field.id) == refusal.field);
            form.focus = at.unwrap_or(form.focus);
            form.refusal = Some(refusal);
            Vec::new()
        }
    }
}

/// A key in the line for what to pull.
pub fn pull_key(model: &mut Model, mut prompt: PullPrompt, key: &KeyEvent) -> Vec<Effect> {
    let mut effects = Vec::new();
    match key.code {
        KeyCode::Esc => return effects,
        KeyCode::Enter => {
            let name = prompt.edit.text().trim();
            if !name.is_empty() {
                prompt.error = None;
                effects = vec![Effect::Pull(prompt.kind, name.to_owned())];
            }
        }
        _ => {
            if prompt.edit.key(key) {
                prompt.error = None;
            }
        }
    }
    model.overlay = Some(Overlay::Pull(prompt));
    effects
}

/// A key in the line with the published ports.
pub fn ports_key(model: &mut Model, mut prompt: PortsPrompt, key: &KeyEvent) -> Vec<Effect> {
    match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Enter => match prompt.change() {
            Ok(None) => return Vec::new(),
            Ok(Some(set)) => {
                let action = VmAction::Set(Box::new(set));
                return vec![Effect::Act(vec![prompt.vm], action)];
            }
            Err(error) => prompt.error = Some(error),
        },
        _ => {
            if prompt.edit.key(key) {
                prompt.error = None;
            }
        }
    }
    model.overlay = Some(Overlay::Ports(prompt));
    Vec::new()
}
