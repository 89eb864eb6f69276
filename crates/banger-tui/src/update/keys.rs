//! Effects of keys.

use banger_api::operation::{OpState, VmTag};
use banger_api::vm::{DEFAULT_GRACE_MS, VmAction, VmState};
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{Effect, form};
use crate::keys::{self, Command, Place};
use crate::model::detail::Zoom;
use crate::model::edit::Edit;
use crate::model::form::Form;
use crate::model::ports::PortsPrompt;
use crate::model::vms::Vm;
use crate::model::{Link, Model, Overlay, PullKind, PullPrompt, Question, Request, Tab, Tone};
use crate::view::layout;
use crate::words;

/// Names of VMs in a question.
const MAX_NAMES: usize = 6;

/// A key was pressed.
pub fn key(model: &mut Model, key: &KeyEvent) -> Vec<Effect> {
    if key.kind == KeyEventKind::Release {
        return Vec::new();
    }
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    if control_c {
        return vec![Effect::Quit];
    }
    match model.overlay.take() {
        Some(Overlay::Form(open)) => form::key(model, *open, key),
        Some(Overlay::Pull(prompt)) => form::pull_key(model, prompt, key),
        Some(Overlay::Ports(prompt)) => form::ports_key(model, prompt, key),
        Some(Overlay::Question(question)) => answer(model, question, key),
        Some(Overlay::Help(line)) => {
            model.overlay = match key.code {
                KeyCode::Down | KeyCode::Char('j') => Some(Overlay::Help(line.saturating_add(1))),
                KeyCode::PageDown => Some(Overlay::Help(line.saturating_add(10))),
                KeyCode::Up | KeyCode::Char('k') => Some(Overlay::Help(line.saturating_sub(1))),
                KeyCode::PageUp => Some(Overlay::Help(line.saturating_sub(10))),
                _ => None,
            };
            Vec::new()
        }
        None => match model.filtering.take() {
            Some(edit) => filter_key(model, edit, key),
            None => match keys::command(key, &places(model)) {
                Some(command) => run(model, command),
                None => Vec::new(),
            },
        },
    }
}

/// Where the keys have their effects now.
pub fn places(model: &Model) -> Vec<Place> {
    let of_tab = match model.tab {
        Tab::Vms => Place::Vms,
        Tab::Images | Tab::Kernels => Place::Stored,
        Tab::Operations => Place::Operations,
    };
    let mut places = vec![of_tab, Place::Everywhere];
    if matches!(model.link, Link::Lost { .. }) {
        places.push(Place::Offline);
    }
    places
}

fn filter_key(model: &mut Model, mut edit: Edit, key: &KeyEvent) -> Vec<Effect> {
    match key.code {
        KeyCode::Enter | KeyCode::Tab | KeyCode::Down | KeyCode::Up => return Vec::new(),
        KeyCode::Esc => {
            set_filter(model, String::new());
            return Vec::new();
        }
        _ => edit.key(key),
    };
    set_filter(model, edit.text().to_owned());
    model.filtering = Some(edit);
    Vec::new()
}

/// Filters the selected list.
pub fn set_filter(model: &mut Model, filter: String) {
    match model.tab {
        Tab::Vms => model.vms.set_filter(filter),
        Tab::Images => model.images.set_filter(filter),
        Tab::Kernels => model.kernels.set_filter(filter),
        Tab::Operations => model.operations.set_filter(filter),
    }
}

fn answer(model: &mut Model, question: Question, key: &KeyEvent) -> Vec<Effect> {
    match key.code {
        // Not Enter, which is pressed by habit.
        KeyCode::Char('y' | 'Y') => confirmed(model, question.request),
        KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => Vec::new(),
        _ => {
            model.overlay = Some(Overlay::Question(question));
            Vec::new()
        }
    }
}

/// Carries out what a question was about.
pub fn confirmed(model: &mut Model, request: Request) -> Vec<Effect> {
    match request {
        Request::Act { targets, action: VmAction::Delete { .. } } => {
            model.vms.unmark();
            let (forced, plain): (Vec<_>, Vec<_>) =
                targets.into_iter().partition(|(_, state)| words::needs_force(*state));
            [(plain, false), (forced, true)]
                .into_iter()
                .filter(|(targets, _)| !targets.is_empty())
                .map(|(targets, force)| Effect::Act(tags(targets), VmAction::Delete { force }))
                .collect()
        }
        Request::Act { targets, action } => {
            model.vms.unmark();
            vec![Effect::Act(tags(targets), action)]
        }
        Request::DeleteImage(image) => vec![Effect::DeleteImage(image)],
        Request::DeleteKernel(kernel) => vec![Effect::DeleteKernel(kernel)],
        Request::Cancel(operation) => vec![Effect::Cancel(operation)],
    }
}

fn tags(targets: Vec<(VmTag, VmState)>) -> Vec<VmTag> {
    targets.into_iter().map(|(tag, _)| tag).collect()
}

/// Carries out a command.
pub fn run(model: &mut Model, command: Command) -> Vec<Effect> {
    match command {
        Command::Down => step(model, 1),
        Command::Up => step(model, -1),
        Command::PageDown => step(model, page(model)),
        Command::PageUp => step(model, -page(model)),
        Command::First => step(model, isize::MIN + 1),
        Command::Last => step(model, isize::MAX),
        Command::NextTab => return tab(model, (model.tab.number() + 1) % Tab::ALL.len()),
        Command::PreviousTab => {
            return tab(model, (model.tab.number() + Tab::ALL.len() - 1) % Tab::ALL.len());
        }
        Command::Tab(number) => return tab(model, number),
        Command::Open if model.tab == Tab::Operations => show_error(model),
        Command::Open => zoom(model, Zoom::Whole),
        Command::Console => zoom(model, Zoom::Console),
        Command::Back => back(model),
        Command::Mark => model.vms.mark(),
        Command::MarkAll => model.vms.mark_all(),
        Command::Filter => model.filtering = Some(Edit::new(model.filter())),
        Command::Sort => model.vms.sort_by(model.vms.sort.next()),
        Command::Reverse => model.vms.turn(),
        Command::New => new_form(model),
        Command::Start => return start(model),
        Command::Stop => ask(model, VmAction::STOP),
        Command::Restart => ask(model, VmAction::Restart { grace_ms: DEFAULT_GRACE_MS }),
        Command::Kill => ask(model, VmAction::Kill {}),
        Command::Pause => return pause(model),
        Command::Delete => delete(model),
        Command::Shell => return shell(model),
        Command::Cancel => cancel(model),
        Command::Pull => {
            let kind = if model.tab == Tab::Images { PullKind::Image } else { PullKind::Kernel };
            let (edit, error) = (Edit::default(), None);
            model.overlay = Some(Overlay::Pull(PullPrompt { kind, edit, error }));
        }
        Command::Ports => {
            let prompt = model.vms.selected().map(PortsPrompt::new);
            model.overlay = prompt.map(Overlay::Ports);
        }
        Command::StartDaemon => return vec![Effect::StartDaemon],
        Command::Help => model.overlay = Some(Overlay::Help(0)),
        Command::Suspend => return vec![Effect::Suspend],
        Command::Quit => return vec![Effect::Quit],
    }
    Vec::new()
}

fn page(model: &Model) -> isize {
    isize::try_from(layout::rows(model.size, 0).saturating_sub(1).max(1)).unwrap_or(1)
}

/// Moves the selection, or scrolls the console where that is shown alone.
pub fn step(model: &mut Model, by: isize) {
    match model.tab {
        Tab::Vms if model.detail.zoom != Zoom::Beside => {
            let height = layout::console_rows(model.size, model.detail.zoom);
            model.detail.scroll(by.saturating_neg(), height);
        }
        Tab::Vms => model.vms.go(by),
        Tab::Images => model.images.go(by),
        Tab::Kernels => model.kernels.go(by),
        Tab::Operations => model.operations.go(by),
    }
}

/// Shows a list.
pub fn tab(model: &mut Model, number: usize) -> Vec<Effect> {
    let Some(tab) = Tab::ALL.get(number) else { return Vec::new() };
    model.tab = *tab;
    vec![Effect::Show(*tab)]
}

/// Shows the error of the selected operation with its causes.
fn show_error(model: &mut Model) {
    let error = model.operations.selected().and_then(|one| one.error.as_ref());
    if let Some(error) = error.map(words::error) {
        model.say(Tone::Bad, error);
    }
}

fn zoom(model: &mut Model, zoom: Zoom) {
    if model.vms.selected().is_some() {
        model.detail.zoom = if model.detail.zoom == zoom { Zoom::Beside } else { zoom };
        model.detail.scrolled = 0;
    }
}

/// Closes one thing after the other.
fn back(model: &mut Model) {
    if !model.messages.is_empty() {
        model.messages.clear();
    } else if model.tab == Tab::Vms && model.detail.zoom != Zoom::Beside {
        model.detail.zoom = Zoom::Beside;
        model.detail.scrolled = 0;
    } else if model.tab != Tab::Vms || !model.vms.unmark() {
        set_filter(model, String::new());
    }
}

fn new_form(model: &mut Model) {
    let images = model.images.all().iter().filter_map(|image| image.names.first().cloned());
    let kernels = model.kernels.all().iter().filter_map(|kernel| kernel.names.first().cloned());
    let form = Form::new(model.defaults(), images.collect(), kernels.collect());
    model.overlay = Some(Overlay::Form(Box::new(form)));
}

fn start(model: &mut Model) -> Vec<Effect> {
    let targets: Vec<VmTag> = model.vms.targets().into_iter().map(Vm::tag).collect();
    if targets.is_empty() {
        return Vec::new();
    }
    model.vms.unmark();
    vec![Effect::Act(targets, VmAction::Start {})]
}

/// Resumes paused VMs if there are some among those that are meant, and pauses them otherwise.
fn pause(model: &mut Model) -> Vec<Effect> {
    let of_state = |state| {
        let targets = model.vms.targets().into_iter();
        targets.filter(|vm| vm.summary.state == state).map(Vm::tag).collect::<Vec<_>>()
    };
    let (paused, running) = (of_state(VmState::Paused), of_state(VmState::Running));
    let (targets, action) = match (paused.is_empty(), running.is_empty()) {
        (false, _) => (paused, VmAction::Resume {}),
        (true, false) => (running, VmAction::Pause {}),
        (true, true) => {
            if !model.vms.is_empty() {
                model.say(Tone::Warning, "only a running VM can be paused");
            }
            return Vec::new();
        }
    };
    model.vms.unmark();
    vec![Effect::Act(targets, action)]
}

/// `web`, or `3 VMs`.
fn subject(targets: &[(VmTag, VmState)]) -> String {
    match targets {
        [(one, _)] => format!("`{}`", one.name),
        many => format!("{} VMs", many.len()),
    }
}

fn ask(model: &mut Model, action: VmAction) {
    let targets = model.vms.targets().into_iter();
    let targets: Vec<(VmTag, VmState)> = targets.map(|vm| (vm.tag(), vm.summary.state)).collect();
    if targets.is_empty() {
        return;
    }
    let mut lines = Vec::new();
    if targets.len() > 1 {
        let names = targets.iter().take(MAX_NAMES).map(|(tag, _)| tag.name.as_str());
        let mut names = names.collect::<Vec<_>>().join(", ");
        if targets.len() > MAX_NAMES {
            names.push_str(&format!(" and {} more", targets.len() - MAX_NAMES));
        }
        lines.push(names);
    }
    let (verb, text) = match &action {
        VmAction::Stop { .. } => ("stop", "The guest shuts down; after 90 s it is killed."),
        VmAction::Restart { .. } => ("restart", "The guest shuts down and starts again."),
        VmAction::Kill {} => ("kill", "The guest ends at once, as if its power were cut."),
        _ => ("delete", "The disks are deleted, too. This cannot be undone."),
    };
    lines.push(text.to_owned());
    let running = targets.iter().filter(|(_, state)| words::needs_force(*state)).count();
    if verb == "delete" && running > 0 {
        lines.push(match (targets.len(), running) {
            (1, _) => format!("It is {} now.", targets[0].1.as_str()),
            (_, 1) => "One of them is not stopped.".to_owned(),
            (_, many) => format!("{many} of them are not stopped."),
        });
    }
    let first = verb.chars().next().map(|c| c.to_ascii_uppercase()).unwrap_or_default();
    let title = format!("{first}{} {}?", verb.get(1..).unwrap_or_default(), subject(&targets));
    let request = Request::Act { targets, action };
    model.overlay = Some(Overlay::Question(Question { title, lines, verb, request }));
}

fn delete(model: &mut Model) {
    let (title, users, request) = match model.tab {
        Tab::Vms => return ask(model, VmAction::Delete { force: false }),
        Tab::Images => {
            let Some(image) = model.images.selected() else { return };
            let name = image.names.first().cloned().unwrap_or_else(|| image.id.to_string());
            let title = format!("Delete image `{name}`?");
            (title, &image.used_by, Request::DeleteImage(image.id.to_string()))
        }
        Tab::Kernels => {
            let Some(kernel) = model.kernels.selected() else { return };
            let name = kernel.names.first().cloned().unwrap_or_else(|| kernel.id.to_string());
            let title = format!("Delete kernel `{name}`?");
            (title, &kernel.used_by, Request::DeleteKernel(kernel.id.to_string()))
        }
        Tab::Operations => return,
    };
    let lines = match users.as_slice() {
        [] => vec!["No VM uses it.".to_owned()],
        users => vec![format!("Used by {}.", users.join(", "))],
    };
    model.overlay = Some(Overlay::Question(Question { title, lines, verb: "delete", request }));
}

fn shell(model: &mut Model) -> Vec<Effect> {
    let Some(vm) = model.vms.selected() else { return Vec::new() };
    match vm.summary.state {
        VmState::Running | VmState::Starting => vec![Effect::Shell(vm.tag())],
        state => {
            let text =
                format!("`{}` is {}: a shell needs a running VM", vm.summary.name, state.as_str());
            model.say(Tone::Warning, text);
            Vec::new()
        }
    }
}

fn cancel(model: &mut Model) {
    let (operation, kind, of) = match model.tab {
        Tab::Operations => {
            let Some(one) = model.operations.selected() else { return };
            if one.state != OpState::Running {
                return model.say(Tone::Warning, format!("`{}` has ended already", one.id));
            }
            (one.id.clone(), one.kind.clone(), one.subject.to_string())
        }
        _ => {
            let Some(vm) = model.vms.selected() else { return };
            let name = &vm.summary.name;
            let Some(operation) = vm.summary.operation.clone() else {
                return model
                    .say(Tone::Warning, format!("no operation on `{name}` is in progress"));
            };
            let known = model.operations.all().iter().find(|one| one.id == operation);
            let kind = known.map_or_else(|| "operation".into(), |one| one.kind.clone());
            (operation, kind, format!("`{name}`"))
        }
    };
    let title = format!("Cancel {} of {of}?", kind.replace('_', " "));
    let lines = vec!["What it has done so far is undone.".to_owned()];
    let request = Request::Cancel(operation);
    model.overlay = Some(Overlay::Question(Question { title, lines, verb: "cancel", request }));
}
