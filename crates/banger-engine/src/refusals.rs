//! Why a request is refused, in words.

use banger_api::vm::{VmAction, VmState};
use banger_api::{ApiError, ErrorCode, VmName};

use crate::queue::Refusal;

/// The error for a refused request, with what to do instead.
pub fn explain(name: &VmName, action: VmAction, refusal: &Refusal) -> ApiError {
    let verb = action.as_str();
    match refusal {
        Refusal::QueueFull => {
            let text = format!("too many requests are waiting for `{name}`");
            ApiError::new(ErrorCode::Busy, text).with_hint("wait until some are done")
        }
        Refusal::NeedsForce(state) => {
            let text = format!("cannot delete `{name}`: it is {}", state.as_str());
            let hint = format!("stop it first, or use `banger vm delete -f {name}`");
            ApiError::new(ErrorCode::WrongState, text).with_hint(hint)
        }
        Refusal::State(state) => {
            let text = format!("cannot {verb} `{name}`: it is {}", state.as_str());
            let error = ApiError::new(ErrorCode::WrongState, text);
            match state {
                VmState::Broken => error.with_hint(format!(
                    "`banger vm repair {name}` brings it back; `banger vm show {name}` says why"
                )),
                VmState::Running | VmState::Paused => {
                    error.with_hint(format!("`banger vm stop {name}` stops it"))
                }
                VmState::Stopped | VmState::Starting | VmState::Stopping | VmState::Deleting => {
                    error
                }
            }
        }
    }
}
