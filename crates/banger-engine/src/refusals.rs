//! Errors of refused requests.

use banger_api::vm::{StoppedBecause, VmAction, VmState};
use banger_api::{ApiError, ErrorCode, Hint, VmName};

use crate::queue::Refusal;

/// The error of a refused request, with hints.
pub fn explain(name: &VmName, action: &VmAction, refusal: &Refusal) -> ApiError {
    let verb = action.as_str();
    match refusal {
        Refusal::QueueFull => {
            let text = format!("too many requests are waiting for `{name}`");
            ApiError::new(ErrorCode::Busy, text).with_hint(Hint::WaitForRequests)
        }
        Refusal::NeedsForce(state) => {
            let text = format!("cannot delete `{name}`: it is {}", state.as_str());
            ApiError::new(ErrorCode::WrongState, text)
                .with_hint(Hint::ask(name, VmAction::STOP))
                .with_hint(Hint::ask(name, VmAction::Delete { force: true }))
        }
        Refusal::State(state) => {
            let text = format!("cannot {verb} `{name}`: it is {}", state.as_str());
            let error = ApiError::new(ErrorCode::WrongState, text);
            match state {
                VmState::Broken => error
                    .with_hint(Hint::ask(name, VmAction::Repair {}))
                    .with_hint(Hint::show(name)),
                VmState::Paused if matches!(action, VmAction::Start {}) => {
                    error.with_hint(Hint::ask(name, VmAction::Resume {}))
                }
                VmState::Running | VmState::Paused => {
                    error.with_hint(Hint::ask(name, VmAction::STOP))
                }
                VmState::Stopped if matches!(action, VmAction::Pause {} | VmAction::Resume {}) => {
                    error.with_hint(Hint::ask(name, VmAction::Start {}))
                }
                VmState::Stopped | VmState::Starting | VmState::Stopping | VmState::Deleting => {
                    error
                }
            }
        }
    }
}

/// The error of work on the disk of a VM that is not stopped.
pub fn not_stopped(name: &VmName, verb: &str, state: VmState) -> ApiError {
    let text = format!("cannot {verb} `{name}`: it is {}", state.as_str());
    let error = ApiError::new(ErrorCode::WrongState, text);
    match state {
        VmState::Broken => {
            error.with_hint(Hint::ask(name, VmAction::Repair {})).with_hint(Hint::show(name))
        }
        VmState::Starting | VmState::Running | VmState::Paused => {
            error.with_hint(Hint::ask(name, VmAction::STOP))
        }
        VmState::Stopped | VmState::Stopping | VmState::Deleting => error,
    }
}

/// Why a VM stopped without a request, line by line; empty if it was requested.
pub fn story(because: &StoppedBecause) -> Vec<String> {
    match because {
        StoppedBecause::NeverStarted | StoppedBecause::Requested { .. } => Vec::new(),
        StoppedBecause::GuestPoweredOff => vec!["the guest powered itself off".into()],
        StoppedBecause::ProgramEnded { code } => {
            vec![format!("its program ended with code {code}")]
        }
        StoppedBecause::VmmDied { story } => story.lines().map(str::to_owned).collect(),
        StoppedBecause::StartFailed { error, .. } => vec![format!("its start failed: {error}")],
        StoppedBecause::HostRestarted => vec!["the host was restarted".into()],
    }
}
