//! The form for a new VM.
//!
//! Each value is checked by the parsers and checks of the API, which the daemon uses, too; an error
//! belongs to the field whose value is refused.

use banger_api::limits::VmDefaults;
use banger_api::operation::VmTag;
use banger_api::publish::PortForward;
use banger_api::size::{MIB, human_size, parse_size};
use banger_api::vm::CreateVm;
use banger_api::{ApiError, ErrorCode, OpId, labels};
use crossterm::event::{KeyCode, KeyEvent};

use super::edit::Edit;

/// A field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldId {
    /// Name.
    Name,
    /// Image.
    Image,
    /// Kernel.
    Kernel,
    /// vCPUs.
    Vcpus,
    /// Memory.
    Memory,
    /// Size of the root disk.
    RootDisk,
    /// Size of the work disk.
    WorkDisk,
    /// Published ports.
    Ports,
    /// Labels.
    Labels,
    /// Access to networks outside of the host.
    Nat,
    /// Whether it is started now.
    Start,
    /// Whether it starts with the daemon.
    Autostart,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text; the default is shown while it is empty.
    Text {
        /// The text.
        edit: Edit,
        /// The default.
        default: String,
        /// Values that the keys up and down offer.
        choices: Vec<String>,
    },
    /// Yes or no.
    Switch(bool),
}

/// A field with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Which one.
    pub id: FieldId,
    /// Its label.
    pub label: &'static str,
    /// Its value.
    pub value: Value,
}

/// What the form is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It is being filled in.
    Editing,
    /// The daemon has not answered the request yet.
    Sending,
    /// The VM is being created.
    Creating {
        /// The operation.
        operation: Option<OpId>,
        /// The VM.
        vm: VmTag,
    },
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field with the refused value; none if it is none of the fields.
    pub field: Option<FieldId>,
    /// The message.
    pub text: String,
}

/// The form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// The fields.
    pub fields: Vec<Field>,
    /// Position of the selected one.
    pub focus: usize,
    /// Why the values were refused.
    pub refusal: Option<Refusal>,
    /// What it is doing.
    pub phase: Phase,
}

impl Form {
    /// An empty form with the daemon's defaults and the names of images and kernels.
    pub fn new(defaults: Option<&VmDefaults>, images: Vec<String>, kernels: Vec<String>) -> Self {
        use FieldId as Id;
        let shown = |value: fn(&VmDefaults) -> String| defaults.map(value).unwrap_or_default();
        let with = |default: String, choices| {
            let edit = Edit::default();
            Value::Text { edit, default, choices }
        };
        let text = |default: String| with(default, Vec::new());
        let field = |id, label, value| Field { id, label, value };
        let fields = vec![
            field(Id::Name, "Name", text("two words".into())),
            field(Id::Image, "Image", with(shown(|d| d.image.clone()), images)),
            field(Id::Kernel, "Kernel", with(shown(|d| d.kernel.clone()), kernels)),
            field(Id::Vcpus, "vCPUs", text(shown(|d| d.vcpus.to_string()))),
            field(Id::Memory, "Memory", text(shown(|d| human_size(d.memory_mib * MIB)))),
            field(Id::RootDisk, "Root disk", text(shown(|d| human_size(d.root_bytes)))),
            field(Id::WorkDisk, "Work disk", text(shown(|d| human_size(d.work_bytes)))),
            field(Id::Ports, "Ports", text("HOST:GUEST such as 8080:80".into())),
            field(Id::Labels, "Labels", text("KEY=VALUE".into())),
            field(Id::Nat, "Network", Value::Switch(defaults.is_none_or(|d| d.nat))),
            field(Id::Start, "Start now", Value::Switch(true)),
            field(Id::Autostart, "Autostart", Value::Switch(false)),
        ];
        Self { fields, focus: 0, refusal: None, phase: Phase::Editing }
    }

    /// Text of a field, without spaces around it; none if it is empty.
    fn text(&self, id: FieldId) -> Option<&str> {
        let field = self.fields.iter().find(|field| field.id == id)?;
        match &field.value {
            Value::Text { edit, .. } => Some(edit.text().trim()).filter(|text| !text.is_empty()),
            Value::Switch(_) => None,
        }
    }

    fn is_on(&self, id: FieldId) -> bool {
        let field = self.fields.iter().find(|field| field.id == id);
        field.is_some_and(|field| field.value == Value::Switch(true))
    }

    /// Selects another field, `by` fields further.
    pub fn go(&mut self, by: isize) {
        let count = self.fields.len() as isize;
        let focus = (self.focus as isize + by).rem_euclid(count.max(1));
        self.focus = usize::try_from(focus).unwrap_or_default();
    }

    /// Applies a key to the selected field; returns whether it has an effect there.
    pub fn key(&mut self, key: &KeyEvent) -> bool {
        let Some(field) = self.fields.get_mut(self.focus) else { return false };
        let used = match &mut field.value {
            Value::Switch(on) => match key.code {
                KeyCode::Char(' ') | KeyCode::Left | KeyCode::Right => {
                    *on = !*on;
                    true
                }
                _ => false,
            },
            Value::Text { edit, choices, .. } => match key.code {
                KeyCode::Right if !choices.is_empty() && edit.text().is_empty() => {
                    offer(edit, choices)
                }
                KeyCode::Char(' ') if !choices.is_empty() => offer(edit, choices),
                _ => edit.key(key),
            },
        };
        let id = field.id;
        if used && self.refusal.as_ref().is_some_and(|one| one.field == Some(id)) {
            self.refusal = None;
        }
        used
    }

    /// Changes the selected field if it is a switch.
    pub fn toggle(&mut self) {
        if let Some(Field { value: Value::Switch(on), .. }) = self.fields.get_mut(self.focus) {
            *on = !*on;
        }
    }

    /// Inserts what was pasted.
    pub fn paste(&mut self, text: &str) {
        if let Some(Field { value: Value::Text { edit, .. }, .. }) = self.fields.get_mut(self.focus)
        {
            edit.paste(text);
        }
    }

    /// The request.
    ///
    /// # Errors
    /// A value that is not one, or out of bounds, with its field.
    pub fn request(&self) -> Result<CreateVm, Refusal> {
        use FieldId as Id;
        let mut request =
            CreateVm { name: self.text(Id::Name).map(Into::into), ..CreateVm::default() };
        checked(Id::Name, &CreateVm { name: request.name.clone(), ..CreateVm::default() })?;
        request.image = self.text(Id::Image).map(Into::into);
        request.kernel = self.text(Id::Kernel).map(Into::into);
        let vcpus = self.text(Id::Vcpus).map(|text| {
            let wrong = || refused(Id::Vcpus, format!("`{text}` is not a number of vCPUs"));
            text.parse::<u32>().map_err(|_| wrong())
        });
        request.vcpus = vcpus.transpose()?;
        checked(Id::Vcpus, &CreateVm { vcpus: request.vcpus, ..CreateVm::default() })?;
        let size = |id| match self.text(id).map(parse_size) {
            Some(Err(error)) => Err(refused(id, error.to_string())),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            None => Ok(None),
        };
        request.memory_mib = size(Id::Memory)?.map(|bytes| bytes / MIB);
        checked(Id::Memory, &CreateVm { memory_mib: request.memory_mib, ..CreateVm::default() })?;
        request.root_bytes = size(Id::RootDisk)?;
        checked(Id::RootDisk, &CreateVm { root_bytes: request.root_bytes, ..CreateVm::default() })?;
        request.work_bytes = size(Id::WorkDisk)?;
        checked(Id::WorkDisk, &CreateVm { work_bytes: request.work_bytes, ..CreateVm::default() })?;
        for word in words(self.text(Id::Ports)) {
            let port = word.parse::<PortForward>();
            request.publish.push(port.map_err(|error| refused(Id::Ports, error.to_string()))?);
        }
        checked(Id::Ports, &CreateVm { publish: request.publish.clone(), ..CreateVm::default() })?;
        let parsed = words(self.text(Id::Labels)).map(labels::parse).collect::<Result<Vec<_>, _>>();
        let all = parsed.and_then(labels::Labels::of);
        request.labels = all.map_err(|error| refused(Id::Labels, error.to_string()))?;
        request.nat = Some(self.is_on(Id::Nat));
        request.no_start = !self.is_on(Id::Start);
        request.autostart = self.is_on(Id::Autostart);
        request.check().map_err(|error| Refusal { field: None, text: error.message })?;
        Ok(request)
    }

    /// Shows why the daemon refused the request, or why the VM could not be created, at the field.
    pub fn refuse(&mut self, error: &ApiError) {
        let field = field_of(error);
        let position = self.fields.iter().position(|one| Some(one.id) == field);
        self.focus = position.unwrap_or(self.focus);
        self.refusal = Some(Refusal { field, text: crate::words::error(error) });
        self.phase = Phase::Editing;
    }
}

/// Replaces the text by the choice after it.
fn offer(edit: &mut Edit, choices: &[String]) -> bool {
    let at = choices.iter().position(|choice| choice == edit.text());
    let next = at.map_or(0, |at| at + 1);
    *edit = Edit::new(choices.get(next).cloned().unwrap_or_default());
    true
}

fn refused(field: FieldId, text: String) -> Refusal {
    Refusal { field: Some(field), text }
}

/// Checks a request with the value of one field only.
fn checked(field: FieldId, request: &CreateVm) -> Result<(), Refusal> {
    request.check().map_err(|error| refused(field, crate::words::error(&error)))
}

/// Words separated by spaces or commas.
fn words(text: Option<&str>) -> impl Iterator<Item = &str> {
    let separated = |c: char| c == ',' || c.is_whitespace();
    text.unwrap_or_default().split(separated).filter(|word| !word.is_empty())
}

/// The field whose value an error is about.
fn field_of(error: &ApiError) -> Option<FieldId> {
    let message = error.message.as_str();
    let about = |word: &str| message.contains(word);
    match error.code {
        ErrorCode::NameTaken => Some(FieldId::Name),
        _ if about("image") => Some(FieldId::Image),
        _ if about("kernel") => Some(FieldId::Kernel),
        _ if about("port") => Some(FieldId::Ports),
        _ if about("vCPU") => Some(FieldId::Vcpus),
        _ if about("work disk") => Some(FieldId::WorkDisk),
        _ if about("root disk") => Some(FieldId::RootDisk),
        _ if about("MiB of memory") => Some(FieldId::Memory),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::event::KeyModifiers;

    fn filled(values: &[(FieldId, &str)]) -> Form {
        let mut form = Form::new(None, vec!["alpine".into(), "debian".into()], Vec::new());
        for (id, text) in values {
            form.focus = form.fields.iter().position(|field| field.id == *id).unwrap();
            form.paste(text);
        }
        form
    }

    #[test]
    fn empty_fields_are_the_daemons_defaults() {
        let request = filled(&[]).request().unwrap();
        assert_eq!(request, CreateVm { nat: Some(true), ..CreateVm::default() });
    }

    #[test]
    fn values_are_parsed() {
        let form = filled(&[
            (FieldId::Name, "web"),
            (FieldId::Vcpus, "2"),
            (FieldId::Memory, "1G"),
            (FieldId::WorkDisk, "100M"),
            (FieldId::Ports, "8080:80, 9090:90"),
            (FieldId::Labels, "team=web x"),
        ]);
        let request = form.request().unwrap();
        assert_eq!((request.vcpus, request.memory_mib), (Some(2), Some(1024)));
        assert_eq!((request.publish.len(), request.labels.to_map().len()), (2, 2));
        assert_eq!((request.root_bytes, request.work_bytes), (None, Some(100 * MIB)));
    }

    #[test]
    fn a_refused_value_is_named_with_its_field() {
        for (id, text, part) in [
            (FieldId::Name, "Web", "not a VM name"),
            (FieldId::Vcpus, "0", "0 vCPUs"),
            (FieldId::Vcpus, "two", "`two` is not a number"),
            (FieldId::Memory, "1", "not a size"),
            (FieldId::Memory, "16M", "16 MiB of memory"),
            (FieldId::RootDisk, "1M", "a root disk of 1 MiB"),
            (FieldId::WorkDisk, "99999T", "a work disk of"),
            (FieldId::Ports, "80", "HOST:GUEST"),
            (FieldId::Ports, "80:1,80:2", "published twice"),
            (FieldId::Labels, "=x", "label"),
        ] {
            let refusal = filled(&[(id, text)]).request().unwrap_err();
            assert_eq!(refusal.field, Some(id), "{text}: {}", refusal.text);
            assert!(refusal.text.contains(part), "{text}: {}", refusal.text);
        }
    }

    #[test]
    fn errors_of_the_daemon_select_their_field() {
        for (code, message, field) in [
            (ErrorCode::NameTaken, "there is a VM `web` already", Some(FieldId::Name)),
            (ErrorCode::NotFound, "there is no image `x`", Some(FieldId::Image)),
            (ErrorCode::NotFound, "there is no kernel `x`", Some(FieldId::Kernel)),
            (ErrorCode::InUse, "port 8080 of the host is in use", Some(FieldId::Ports)),
            (ErrorCode::NoSpace, "a new VM needs 64 MiB on the disk", None),
        ] {
            let mut form = filled(&[]);
            form.phase = Phase::Sending;
            form.refuse(&ApiError::new(code, message));
            assert_eq!(form.refusal.clone().unwrap().field, field, "{message}");
            assert_eq!(form.phase, Phase::Editing);
            assert!(field.is_none_or(|field| form.fields[form.focus].id == field));
        }
    }

    #[test]
    fn keys_change_switches_and_offer_choices() {
        let mut form = filled(&[]);
        let press = |form: &mut Form, code| form.key(&KeyEvent::new(code, KeyModifiers::NONE));
        form.go(1);
        let image = |form: &Form| form.text(FieldId::Image).map(str::to_owned);
        for expected in [Some("alpine"), Some("debian"), None, Some("alpine")] {
            press(&mut form, KeyCode::Char(' '));
            assert_eq!(image(&form).as_deref(), expected);
        }
        form.go(-2);
        assert_eq!(form.fields[form.focus].id, FieldId::Autostart);
        assert!(press(&mut form, KeyCode::Char(' ')) && form.request().unwrap().autostart);
        assert!(!press(&mut form, KeyCode::Char('x')));
    }
}
