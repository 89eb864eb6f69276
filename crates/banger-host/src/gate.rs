//! Processes that outlive the daemon, in its async runtime: started at their gate, awaited, and
//! ended by reference.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use banger_api::{ApiError, ErrorCode};
use banger_base::{ProcRef, line};
use banger_engine::drivers::Undone;
pub use banger_shim::gate::Gate;
pub use banger_sys::proc::is_alive;
use banger_sys::proc::{open as pidfd, send_signal};
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{of, on_path};

/// Time limit for a killed process to end.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts a program with arguments, which waits until [`open`]. Call within a tokio runtime.
///
/// # Errors
/// The program cannot be started, or the log cannot be opened.
pub fn spawn(
    program: &Path,
    arguments: &[OsString],
    folder: &Path,
    log: &Path,
) -> Result<Gate, ApiError> {
    let (gate, mut child) = banger_shim::gate::spawn(program, arguments, folder, log)
        .map_err(|failed| on_path(failed.doing, &failed.path, &failed.error))?;
    let process = gate.process();
    // While this daemon runs it reaps the child; afterwards init does.
    tokio::spawn(async move {
        wait_gone(process).await;
        if let Err(error) = child.try_wait() {
            tracing::error!(pid = process.pid, %error, "cannot reap a process");
        }
    });
    Ok(gate)
}

/// Sends a program its configuration, and descriptors with it, and returns its answer.
///
/// # Errors
/// Those of [`Gate::open`].
pub async fn open<E: DeserializeOwned + Send + 'static>(
    gate: Gate,
    config: &impl Serialize,
    descriptors: Vec<OwnedFd>,
    limit: Duration,
) -> io::Result<E> {
    let config = line::encode(config)?;
    let answer = tokio::task::spawn_blocking(move || gate.send(&config, &descriptors, limit));
    answer.await.map_err(io::Error::other)?
}

/// Waits until a process has ended.
pub async fn wait_gone(process: ProcRef) {
    let ended = match pidfd(process) {
        Ok(Some(pidfd)) => banger_sys::ended::ended(pidfd).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::error!(pid = process.pid, %error, "cannot wait for a process");
    }
}

async fn gone_within(process: ProcRef, limit: Duration) -> bool {
    tokio::time::timeout(limit, wait_gone(process)).await.is_ok()
}

/// Sends SIGTERM to a process, SIGKILL after a time limit, and waits until it has ended.
///
/// # Errors
/// kill(2) fails, or the process does not end within 10 s after SIGKILL (`Busy`).
pub async fn end(process: ProcRef, limit: Duration) -> Result<Undone, ApiError> {
    if !is_alive(process) {
        return Ok(Undone::WasAbsent);
    }
    let refused = |error: &io::Error| of(format!("cannot end process {}", process.pid), error);
    send_signal(process, Signal::TERM).map_err(|error| refused(&error))?;
    if gone_within(process, limit).await {
        return Ok(Undone::Removed);
    }
    tracing::warn!(pid = process.pid, "the shim did not end on request and is killed");
    kill(process).await
}

/// Kills a process and waits until it has ended.
///
/// # Errors
/// kill(2) fails, or the process does not end within 10 s (`Busy`).
pub async fn kill(process: ProcRef) -> Result<Undone, ApiError> {
    if !is_alive(process) {
        return Ok(Undone::WasAbsent);
    }
    send_signal(process, Signal::KILL)
        .map_err(|error| of(format!("cannot end process {}", process.pid), &error))?;
    if gone_within(process, GONE_TIMEOUT).await {
        return Ok(Undone::Removed);
    }
    Err(ApiError::new(ErrorCode::Busy, format!("process {} does not end", process.pid)))
}
