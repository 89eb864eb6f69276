//! Words for values of the API.

use banger_api::ApiError;
use banger_api::operation::Subject;
use banger_api::vm::VmState;
use banger_client::batch::ActionEffect;

/// An error in one text: message, causes and hint, a line each.
pub fn error(error: &ApiError) -> String {
    let mut text = error.message.clone();
    for cause in &error.causes {
        text.push_str(&format!("\nbecause {cause}"));
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\n{hint}"));
    }
    text
}

/// What an operation is about: `start web`.
pub fn operation(kind: &str, subject: &Subject) -> String {
    let kind = kind.replace('_', " ");
    match subject {
        Subject::Vm(vm) => format!("{kind} {}", vm.name),
        Subject::Image { name, .. } | Subject::Kernel { name, .. } => format!("{kind} {name}"),
        Subject::Host => kind,
    }
}

/// Whether a delete must be forced: the VM has processes, or a cleanup failed.
pub fn needs_force(state: VmState) -> bool {
    !matches!(state, VmState::Stopped | VmState::Deleting)
}

/// What an action has done: `started`, or what was so before.
pub fn done(action: &str, effect: ActionEffect) -> &'static str {
    let (done, unchanged) = match action {
        "start" => ("started", "runs already"),
        "stop" => ("stopped", "was stopped already"),
        "restart" => ("restarted", "restarted"),
        "kill" => ("killed", "was stopped already"),
        "pause" => ("paused", "was paused already"),
        "resume" => ("resumed", "runs already"),
        "delete" => ("deleted", "deleted"),
        _ => ("changed", "unchanged"),
    };
    if effect == ActionEffect::Unchanged { unchanged } else { done }
}
