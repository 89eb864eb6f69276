//! Effects of what comes from the daemon.

use banger_api::ApiError;
use banger_api::events::{EventKind, OperationNow};
use banger_api::vm::VmDetails;
use banger_client::batch::ActionEffect;

use super::{CreateEnd, Data, Effect, Outcome};
use crate::model::detail::Zoom;
use crate::model::form::Phase;
use crate::model::progress::Progress;
use crate::model::{Link, Model, Overlay, PullKind, Tone};
use crate::words;

/// Errors of single VMs in the message about an action on many.
const MAX_ERRORS: usize = 3;

/// Applies what the daemon has sent.
pub fn apply(model: &mut Model, data: Data) -> Vec<Effect> {
    match data {
        Data::Up(status) => up(model, status),
        Data::Lost(error) => lost(model, &error),
        Data::Vms(list) => model.vms.replace(list),
        Data::Event(event) => return changed(model, event),
        Data::Stats(samples) => model.vms.sample(samples),
        Data::Host(host) => model.host = Some(host),
        Data::Images(list) => model.images.replace(list),
        Data::Kernels(list) => model.kernels.replace(list),
        Data::Operations(list) => model.operations.replace(list),
        Data::Details(details) => show_details(model, details),
        Data::Console(vm, bytes) => {
            if model.detail.vm.as_ref() == Some(&vm) {
                model.detail.console.push(&bytes);
            }
        }
        Data::Acted(action, outcomes) => acted(model, action, outcomes),
        Data::Created(answer) => created(model, answer),
        Data::CreateEnded(vm, end) => return create_ended(model, &vm, end),
        Data::Pulled(kind, result) => pulled(model, kind, result),
        Data::Did(Ok(text)) => model.say(Tone::Good, text),
        Data::Did(Err(error)) => model.say(Tone::Bad, words::error(&error)),
    }
    Vec::new()
}

/// A change of VMs or operations.
fn changed(model: &mut Model, event: EventKind) -> Vec<Effect> {
    match event {
        EventKind::All { operations, .. } => {
            operations.into_iter().for_each(|one| continued(model, one));
            return vec![Effect::ReadVms, Effect::Refresh];
        }
        EventKind::Changed { vm } => {
            model.vms.change(&vm);
            // An event has only a part of the values.
            return vec![Effect::ReadVms];
        }
        EventKind::Gone { vm } => model.vms.remove(&vm),
        EventKind::Operation { operation } => {
            let is_first = !model.progress.contains_key(&operation.id);
            let is_last = operation.latest.what.is_last();
            continued(model, operation);
            if is_first || is_last {
                return vec![Effect::Refresh];
            }
        }
    }
    Vec::new()
}

/// An operation has continued.
fn continued(model: &mut Model, operation: OperationNow) {
    let OperationNow { id, kind, subject, latest } = operation;
    let now_ms = model.now_ms;
    let new = || Progress::new(words::operation(&kind, &subject), now_ms);
    model.progress.entry(id).or_insert_with(new).add(&latest, now_ms);
    model.trim_progress();
}

fn up(model: &mut Model, status: Option<Box<banger_api::daemon::DaemonStatus>>) {
    if matches!(model.link, Link::Lost { .. }) {
        model.say(Tone::Good, "the daemon answers again");
    }
    model.link = Link::Up;
    if let Some(status) = status {
        model.daemon = Some(*status);
    }
}

fn lost(model: &mut Model, error: &ApiError) {
    if !matches!(model.link, Link::Lost { .. }) {
        model.link = Link::Lost { since_ms: model.now_ms, reason: error.message.clone() };
    }
}

fn show_details(model: &mut Model, details: Box<VmDetails>) {
    if model.detail.vm.as_ref() == Some(&details.summary.id) {
        model.detail.details = Some(details);
    }
}

/// One message about all VMs, with the first errors.
fn acted(model: &mut Model, action: &'static str, outcomes: Vec<Outcome>) {
    let total = outcomes.len();
    let mut failed = Vec::new();
    let mut done = Vec::new();
    for (vm, result) in outcomes {
        match result {
            Ok(effect) => done.push((vm, effect)),
            Err(error) => failed.push((vm, error)),
        }
    }
    match (done.as_slice(), failed.is_empty()) {
        ([], _) => {}
        ([(vm, effect)], _) => {
            let time = match effect {
                ActionEffect::Done(Some(ms)) => format!(" in {}", crate::text::duration(*ms)),
                ActionEffect::Done(None) | ActionEffect::Unchanged => String::new(),
            };
            let text = format!("`{}` {}{time}", vm.name, words::done(action, *effect));
            model.say(Tone::Good, text);
        }
        (many, true) => {
            let done = words::done(action, ActionEffect::Done(None));
            model.say(Tone::Good, format!("{} VMs {done}", many.len()));
        }
        (many, false) => {
            let done = words::done(action, ActionEffect::Done(None));
            model.say(Tone::Good, format!("{} of {total} VMs {done}", many.len()));
        }
    }
    for (vm, error) in failed.iter().take(MAX_ERRORS) {
        let text = words::error(error);
        let name = vm.name.as_str();
        let named = if text.contains(name) { text } else { format!("`{name}`: {text}") };
        model.say(Tone::Bad, named);
    }
    if failed.len() > MAX_ERRORS {
        let more = failed.len() - MAX_ERRORS;
        model.say(Tone::Bad, format!("{action} failed for {more} more VMs"));
    }
}

/// The daemon has accepted or refused the form's request.
fn created(model: &mut Model, answer: Result<banger_api::operation::Accepted, ApiError>) {
    let mut warnings = Vec::new();
    match (&mut model.overlay, answer) {
        (Some(Overlay::Form(form)), Ok(accepted)) => {
            warnings = accepted.warnings;
            if let Some(vm) = accepted.vm {
                form.phase = Phase::Creating { operation: accepted.operation, vm };
            }
        }
        (Some(Overlay::Form(form)), Err(error)) if form.phase == Phase::Sending => {
            form.refuse(&error);
        }
        (_, Ok(_)) => {}
        (_, Err(error)) => model.say(Tone::Bad, words::error(&error)),
    }
    for warning in warnings {
        model.say(Tone::Warning, warning);
    }
}

/// The VM is there, or could not be created.
fn create_ended(
    model: &mut Model,
    vm: &banger_api::operation::VmTag,
    end: CreateEnd,
) -> Vec<Effect> {
    let waiting = match &model.overlay {
        Some(Overlay::Form(form)) => {
            matches!(&form.phase, Phase::Creating { vm: ours, .. } if ours.id == vm.id)
        }
        _ => false,
    };
    let open = match (&end, &mut model.overlay) {
        (CreateEnd::Undone(error), Some(Overlay::Form(form))) if waiting => {
            form.refuse(error);
            return vec![Effect::ReadVms];
        }
        (CreateEnd::Ready | CreateEnd::Kept(_), _) => waiting,
        (CreateEnd::Undone(_), _) => false,
    };
    match end {
        CreateEnd::Ready => model.say(Tone::Good, format!("`{}` is ready", vm.name)),
        CreateEnd::Undone(error) => model.say(Tone::Bad, words::error(&error)),
        CreateEnd::Kept(error) => {
            let text = format!("`{}` was kept\n{}", vm.name, words::error(&error));
            model.say(Tone::Bad, text);
        }
    }
    if open {
        model.overlay = None;
        model.vms.select(&vm.id);
        model.detail.zoom = Zoom::Whole;
    }
    vec![Effect::ReadVms]
}

fn pulled(model: &mut Model, kind: PullKind, result: Result<(), ApiError>) {
    match (&mut model.overlay, result) {
        (Some(Overlay::Pull(prompt)), Ok(())) if prompt.kind == kind => model.overlay = None,
        (Some(Overlay::Pull(prompt)), Err(error)) if prompt.kind == kind => {
            prompt.error = Some(words::error(&error));
        }
        (_, Ok(())) => {}
        (_, Err(error)) => model.say(Tone::Bad, words::error(&error)),
    }
}
