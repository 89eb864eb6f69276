//! Pause and resume of the vCPUs of QEMU, through its shim.
//!
//! The shim has the only QMP connection. The file [`PAUSE_FILE`] in its state folder is the
//! request, SIGUSR1 announces a change of it, and the status file has the result. So a request is
//! idempotent, and a daemon can repeat that of an earlier one.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use banger_api::vm::{DEFAULT_GRACE_MS, VmAction};
use banger_api::{ApiError, ErrorCode, Hint};
use banger_engine::plan::{ProcRef, RunPlan, VmPlan};
use banger_shim::{PAUSE_FILE, VcpuState, record};
use banger_sys::proc::send_signal;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::failure::{blocking, of, on_path};
use crate::gate::is_alive;

/// Time limit for the answer of the shim; generous, because QEMU may be waiting for a disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval at which the status file is read.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Pauses or resumes the vCPUs of a run whose shim has its state in `state`.
///
/// # Errors
/// The request cannot be written, QEMU does not answer in time, or the shim is of an earlier
/// version and cannot pause them.
pub async fn set(
    state: &Path,
    vm: &VmPlan,
    run: &RunPlan,
    wanted: VcpuState,
) -> Result<(), ApiError> {
    let requested = request_of(state).map_err(|error| on_path("read", state, &error))?;
    match record::status(state).vcpus {
        // Without the ability to pause them, they run.
        None if wanted == VcpuState::Running => return Ok(()),
        None => return Err(too_old(vm)),
        Some(present) if present == wanted && requested == wanted => return Ok(()),
        Some(_) => {}
    }
    let gone = || ApiError::new(ErrorCode::VmmDied, format!("the shim of `{}` has ended", vm.name));
    let shim = run.shim.filter(|shim| is_alive(*shim)).ok_or_else(gone)?;
    let folder = state.to_owned();
    blocking(move || write_request(&folder, wanted)).await?;
    announce(shim)?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while record::status(state).vcpus != Some(wanted) {
        if !is_alive(shim) {
            return Err(gone());
        }
        if Instant::now() >= deadline {
            return Err(no_answer(vm, wanted));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

fn request_of(state: &Path) -> io::Result<VcpuState> {
    let exists = state.join(PAUSE_FILE).try_exists()?;
    Ok(if exists { VcpuState::Paused } else { VcpuState::Running })
}

fn write_request(state: &Path, wanted: VcpuState) -> Result<(), ApiError> {
    let path = state.join(PAUSE_FILE);
    match wanted {
        VcpuState::Paused => {
            std::fs::write(&path, "").map_err(|error| on_path("create", &path, &error))
        }
        VcpuState::Running => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(on_path("remove", &path, &error))
            }
            _ => Ok(()),
        },
    }
}

fn announce(shim: ProcRef) -> Result<(), ApiError> {
    let sent = send_signal(shim, Signal::USR1);
    sent.map_err(|error| of(format!("cannot signal the shim, process {}", shim.pid), &error))
}

fn too_old(vm: &VmPlan) -> ApiError {
    let text = format!("`{}` was started by an earlier version of banger, without pause", vm.name);
    ApiError::new(ErrorCode::WrongState, text)
        .with_hint(Hint::ask(&vm.name, VmAction::Restart { grace_ms: DEFAULT_GRACE_MS }))
}

fn no_answer(vm: &VmPlan, wanted: VcpuState) -> ApiError {
    let verb = match wanted {
        VcpuState::Paused => "pause",
        VcpuState::Running => "resume",
    };
    let seconds = ANSWER_TIMEOUT.as_secs();
    let text = format!("QEMU did not {verb} `{}` within {seconds} s", vm.name);
    ApiError::new(ErrorCode::GuestFailed, text).with_hint(Hint::ask(&vm.name, VmAction::Kill {}))
}

#[cfg(test)]
mod tests {
    use banger_base::ShimStatus;

    use super::*;
    use crate::testing::plan;

    fn run(shim: Option<ProcRef>) -> RunPlan {
        let operation = banger_api::OpId::from_entropy(1);
        let spec = crate::testing::spec();
        RunPlan { shim, ..RunPlan::new(operation, "host".into(), spec, Vec::new()) }
    }

    fn status(folder: &Path, vcpus: Option<VcpuState>) {
        let status = ShimStatus { vcpus, ..ShimStatus::default() };
        std::fs::write(folder.join(record::STATUS_FILE), serde_json::to_vec(&status).unwrap())
            .unwrap();
    }

    #[tokio::test]
    async fn a_shim_of_an_earlier_version_is_never_signalled() {
        // SIGUSR1 would end it.
        let folder = tempfile::tempdir().unwrap();
        let (vm, run) = (plan("0d9f3c2b1a87", "web"), run(None));
        std::fs::write(folder.path().join(record::STATUS_FILE), r#"{"disk": null}"#).unwrap();
        set(folder.path(), &vm, &run, VcpuState::Running).await.unwrap();
        let error = set(folder.path(), &vm, &run, VcpuState::Paused).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::WrongState);
        assert!(error.hint().unwrap().contains("`banger vm restart web`"), "{error:?}");
        assert_eq!(request_of(folder.path()).unwrap(), VcpuState::Running);
    }

    #[tokio::test]
    async fn a_state_that_is_reached_and_requested_needs_no_shim() {
        let folder = tempfile::tempdir().unwrap();
        let (vm, run) = (plan("0d9f3c2b1a87", "web"), run(None));
        status(folder.path(), Some(VcpuState::Running));
        set(folder.path(), &vm, &run, VcpuState::Running).await.unwrap();
        // Requested by a daemon that ended before it announced the request.
        write_request(folder.path(), VcpuState::Paused).unwrap();
        let error = set(folder.path(), &vm, &run, VcpuState::Running).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::VmmDied, "it has to be taken back");
    }
}
