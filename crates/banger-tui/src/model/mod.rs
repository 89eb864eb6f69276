//! The state of the program: everything that is shown, and nothing else.
//!
//! Only [`crate::update`] changes it, and [`crate::view`] draws it. Neither has effects, so that
//! both can be tested without a terminal and without a daemon.

pub mod console;
pub mod cursor;
pub mod detail;
pub mod edit;
pub mod form;
pub mod order;
pub mod ports;
pub mod progress;
pub mod vms;

use std::collections::BTreeMap;

use banger_api::daemon::DaemonStatus;
use banger_api::host::HostView;
use banger_api::images::{ImageView, KernelView};
use banger_api::limits::VmDefaults;
use banger_api::operation::{OperationView, VmTag};
use banger_api::vm::{VmAction, VmState};
use banger_api::{OpId, VmId};

use ratatui::layout::Rect;

use crate::keys::Command;
use crate::theme::Theme;
use cursor::Cursor;
use detail::Detail;
use edit::Edit;
use form::Form;
use ports::PortsPrompt;
use progress::Progress;
use vms::{SortBy, Vms};

/// Time that a message is shown, in milliseconds.
const MESSAGE_MS: u64 = 6_000;
/// Time that an error is shown, in milliseconds.
const ERROR_MS: u64 = 15_000;
/// Maximum number of messages.
const MAX_MESSAGES: usize = 4;
/// Maximum number of operations whose stages are kept.
const MAX_PROGRESS: usize = 512;

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    /// VMs.
    Vms,
    /// Images.
    Images,
    /// Kernels.
    Kernels,
    /// Operations.
    Operations,
}

impl Tab {
    /// All lists, in order.
    pub const ALL: [Self; 4] = [Self::Vms, Self::Images, Self::Kernels, Self::Operations];

    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Vms => "VMs",
            Self::Images => "Images",
            Self::Kernels => "Kernels",
            Self::Operations => "Operations",
        }
    }

    /// Its position in [`Self::ALL`].
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|tab| *tab == self).unwrap_or_default()
    }
}

/// The connection to the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Nothing is known yet.
    Connecting,
    /// The daemon answers.
    Up,
    /// The daemon does not answer; since when, in milliseconds since 1970, and why.
    Lost {
        /// Since when.
        since_ms: u64,
        /// Why.
        reason: String,
    },
}

/// A request that is made after a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An action on VMs; `Delete` with force where needed is decided for each.
    Act {
        /// The VMs with their states.
        targets: Vec<(VmTag, VmState)>,
        /// The action.
        action: VmAction,
    },
    /// Deletes an image by its name or id.
    DeleteImage(String),
    /// Deletes a kernel by its name or id.
    DeleteKernel(String),
    /// Cancels an operation.
    Cancel(OpId),
}

/// A question before a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The title.
    pub title: String,
    /// What happens.
    pub lines: Vec<String>,
    /// The word of the key that confirms, such as `delete`.
    pub verb: &'static str,
    /// The request.
    pub request: Request,
}

/// What is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullKind {
    /// An image.
    Image,
    /// A kernel.
    Kernel,
}

/// The line for the name of what is pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullPrompt {
    /// What is pulled.
    pub kind: PullKind,
    /// The name.
    pub edit: Edit,
    /// Why the daemon refused it.
    pub error: Option<String>,
}

/// What is open above the lists.
#[derive(Debug, Clone, PartialEq)]
pub enum Overlay {
    /// The keys, scrolled by this many lines.
    Help(u16),
    /// A question.
    Question(Question),
    /// The form for a new VM.
    Form(Box<Form>),
    /// The name of what to pull.
    Pull(PullPrompt),
    /// The published ports of a VM.
    Ports(PortsPrompt),
}

/// Kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Something was done.
    Good,
    /// A warning.
    Warning,
    /// Something failed.
    Bad,
}

/// A message that disappears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Kind.
    pub tone: Tone,
    /// The text, several lines for an error with causes and hint.
    pub text: String,
    /// When it disappears, in milliseconds since 1970.
    pub until_ms: u64,
}

/// What a part of the screen stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    /// A list.
    Tab(Tab),
    /// A column to sort by.
    Column(SortBy),
    /// A row of the list.
    Row(usize),
    /// A key.
    Command(Command),
    /// The yes to a question, or the form's request.
    Confirm,
    /// What closes a question or a form.
    Dismiss,
    /// A field of the form.
    Field(usize),
    /// A part of something that is open above the lists.
    Nothing,
}

/// The state of the program.
#[derive(Debug)]
pub struct Model {
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// Styles.
    pub theme: Theme,
    /// Present time in milliseconds since 1970.
    pub now_ms: u64,
    /// Connection to the daemon.
    pub link: Link,
    /// The daemon's status at the last connection.
    pub daemon: Option<DaemonStatus>,
    /// The host's resources.
    pub host: Option<HostView>,
    /// The selected list.
    pub tab: Tab,
    /// VMs.
    pub vms: Vms,
    /// Images.
    pub images: Cursor<ImageView>,
    /// Kernels.
    pub kernels: Cursor<KernelView>,
    /// Operations, newest first.
    pub operations: Cursor<OperationView>,
    /// Stages of operations that this program follows, or followed.
    pub progress: BTreeMap<OpId, Progress>,
    /// Details of the selected VM, where they are shown.
    pub detail: Detail,
    /// What is open above.
    pub overlay: Option<Overlay>,
    /// The filter while it is being edited.
    pub filtering: Option<Edit>,
    /// Messages, oldest first.
    pub messages: Vec<Message>,
    /// What the last frame shows where, for the mouse.
    pub hits: Vec<(Rect, Hit)>,
}

impl Model {
    /// The state before the first answer of the daemon.
    pub fn new(size: (u16, u16), theme: Theme, now_ms: u64) -> Self {
        Self {
            size,
            theme,
            now_ms,
            link: Link::Connecting,
            daemon: None,
            host: None,
            tab: Tab::Vms,
            vms: Vms::default(),
            images: Cursor::default(),
            kernels: Cursor::default(),
            operations: Cursor::default(),
            progress: BTreeMap::new(),
            detail: Detail::default(),
            overlay: None,
            filtering: None,
            messages: Vec::new(),
            hits: Vec::new(),
        }
    }

    /// Adds a message.
    pub fn say(&mut self, tone: Tone, text: impl Into<String>) {
        let shown_ms = if tone == Tone::Good { MESSAGE_MS } else { ERROR_MS };
        let text = text.into();
        // The same again is shown longer, not twice.
        self.messages.retain(|message| message.text != text);
        self.messages.push(Message { tone, text, until_ms: self.now_ms.saturating_add(shown_ms) });
        let excess = self.messages.len().saturating_sub(MAX_MESSAGES);
        self.messages.drain(..excess);
    }

    /// The filter of the selected list.
    pub fn filter(&self) -> &str {
        match self.tab {
            Tab::Vms => self.vms.filter(),
            Tab::Images => self.images.filter(),
            Tab::Kernels => self.kernels.filter(),
            Tab::Operations => self.operations.filter(),
        }
    }

    /// The defaults of a new VM, if the daemon is known.
    pub fn defaults(&self) -> Option<&VmDefaults> {
        self.daemon.as_ref().map(|daemon| &daemon.defaults)
    }

    /// The operation in progress on a VM, with the stages that are known of it.
    pub fn progress_of(&self, vm: &VmId) -> Option<&Progress> {
        let operation = self.vms.get(vm)?.summary.operation.as_ref()?;
        self.progress.get(operation)
    }

    /// Keeps the number of operations whose stages are known within bounds.
    pub(crate) fn trim_progress(&mut self) {
        while self.progress.len() > MAX_PROGRESS {
            let ended = self.progress.iter().find(|(_, one)| one.ended.is_some());
            let Some(id) = ended.or(self.progress.iter().next()).map(|(id, _)| id.clone()) else {
                return;
            };
            self.progress.remove(&id);
        }
    }
}
