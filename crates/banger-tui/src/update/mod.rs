//! Changes of the model: a pure function of a message, which returns the effects to carry out.

mod data;
mod form;
mod keys;
mod mouse;

use banger_api::daemon::DaemonStatus;
use banger_api::events::EventKind;
use banger_api::host::HostView;
use banger_api::images::{ImageView, KernelView};
use banger_api::operation::{Accepted, OperationView, VmTag};
use banger_api::stats::VmStats;
use banger_api::vm::{CreateVm, VmAction, VmDetails, VmSummary};
use banger_api::{ApiError, OpId, VmId};
use banger_client::batch::ActionEffect;
use crossterm::event::Event;

use crate::model::detail::Zoom;
use crate::model::{Model, PullKind, Tab};
use crate::view::layout;

pub use keys::places;

/// What has happened.
#[derive(Debug)]
pub enum Msg {
    /// A key, the mouse, a paste or another size of the terminal.
    Input(Event),
    /// Time has passed; milliseconds since 1970.
    Tick(u64),
    /// Something from the daemon.
    Data(Data),
}

/// Something from the daemon.
#[derive(Debug)]
pub enum Data {
    /// The daemon answers, with its status if that was asked for.
    Up(Option<Box<DaemonStatus>>),
    /// The daemon does not answer.
    Lost(ApiError),
    /// All VMs.
    Vms(Vec<VmSummary>),
    /// A change of VMs or operations.
    Event(EventKind),
    /// Samples of usage.
    Stats(Vec<VmStats>),
    /// The host's resources.
    Host(HostView),
    /// All images.
    Images(Vec<ImageView>),
    /// All kernels.
    Kernels(Vec<KernelView>),
    /// The newest operations.
    Operations(Vec<OperationView>),
    /// Details of a VM.
    Details(Box<VmDetails>),
    /// Bytes of the console log of a VM.
    Console(VmId, Vec<u8>),
    /// An action on VMs has ended.
    Acted(&'static str, Vec<Outcome>),
    /// The answer to a create.
    Created(Result<Accepted, ApiError>),
    /// The create has ended.
    CreateEnded(VmTag, CreateEnd),
    /// The answer to a pull; its end has a message.
    Pulled(PullKind, Result<(), ApiError>),
    /// Another request has ended, with what it did.
    Did(Result<String, ApiError>),
}

/// How a create has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateEnd {
    /// The VM is there, and was started if that was asked for.
    Ready,
    /// It was not created.
    Undone(ApiError),
    /// It was created, and its start failed.
    Kept(ApiError),
}

/// The result of an action for one VM.
pub type Outcome = (VmTag, Result<ActionEffect, ApiError>);

/// What is to be done outside of the model.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Requests an action on VMs.
    Act(Vec<VmTag>, VmAction),
    /// Creates a VM.
    Create(Box<CreateVm>),
    /// Deletes an image.
    DeleteImage(String),
    /// Deletes a kernel.
    DeleteKernel(String),
    /// Pulls an image or a kernel.
    Pull(PullKind, String),
    /// Cancels an operation.
    Cancel(OpId),
    /// Opens a shell in place of the screen.
    Shell(VmTag),
    /// Reads details and console of this VM.
    Watch(Option<VmId>),
    /// Reads this list at once.
    Show(Tab),
    /// Reads the list of VMs again.
    ReadVms,
    /// Reads operations, images and kernels again.
    Refresh,
    /// Starts the daemon.
    StartDaemon,
    /// Suspends the program.
    Suspend,
    /// Ends the program.
    Quit,
}

/// Applies a message.
pub fn update(model: &mut Model, msg: Msg) -> Vec<Effect> {
    let mut effects = match msg {
        Msg::Input(Event::Key(key)) => keys::key(model, &key),
        Msg::Input(Event::Mouse(event)) => mouse::mouse(model, event),
        Msg::Input(Event::Paste(text)) => {
            form::paste(model, &text);
            Vec::new()
        }
        Msg::Input(Event::Resize(columns, rows)) => {
            model.size = (columns, rows);
            Vec::new()
        }
        Msg::Input(Event::FocusGained | Event::FocusLost) => Vec::new(),
        Msg::Tick(now_ms) => {
            model.now_ms = now_ms;
            model.messages.retain(|message| message.until_ms > now_ms);
            Vec::new()
        }
        Msg::Data(data) => data::apply(model, data),
    };
    settle(model, &mut effects);
    effects
}

/// Keeps the selected rows visible, and the details those of the selected VM.
fn settle(model: &mut Model, effects: &mut Vec<Effect>) {
    let rows = layout::rows(model.size, 0);
    model.images.scroll(rows);
    model.kernels.scroll(rows);
    model.operations.scroll(rows);
    model.vms.scroll(rows);
    let beside = layout::has_detail_beside(model.size);
    let shown = model.detail.zoom != Zoom::Beside || beside;
    let wanted =
        if shown && model.tab == Tab::Vms { model.vms.selected_id().cloned() } else { None };
    // A VM that was just created is not in the list yet.
    let waits = model.vms.wanted.is_some() || !model.vms.known;
    if wanted.is_none() && model.tab == Tab::Vms && !waits {
        model.detail.zoom = Zoom::Beside;
    }
    // Another tab keeps what is open, so that the way back leads there.
    if (model.tab == Tab::Vms || wanted.is_some()) && model.detail.watch(wanted.clone()) {
        effects.push(Effect::Watch(wanted));
    }
}
