//! Small programs of ours that outlive the daemon: started so that they wait at a gate, told what
//! to do once they are on record, and ended by who they are.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::Undone;
use banger_engine::plan::ProcRef;
use banger_sys::proc::ProcId;
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::failure::{of, on_path};

/// How long a killed process may take to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest status line.
pub const MAX_STATUS: u64 = 64 * 1024;

/// A program that waits to be told what to do. Dropping it makes the program exit.
pub struct Gate {
    proc: ProcRef,
    gate: ChildStdin,
    status: ChildStdout,
}

/// Starts a program; it does nothing until [`Gate::open`]. Call within a tokio runtime.
pub fn spawn(program: &Path, folder: &Path, log: &Path) -> Result<Gate, ApiError> {
    let stderr = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(log)
        .map_err(|error| on_path("open", log, &error))?;
    let mut child = Command::new(program)
        .current_dir(folder)
        .env_clear()
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(|error| on_path("start", program, &error))?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    let named = child.id().and_then(ProcId::of);
    // The runtime reaps it in the background while this daemon lives, init does afterwards.
    drop(child);
    match (pipes, named) {
        (Some((gate, status)), Some(id)) => {
            let proc = ProcRef { pid: id.pid, start_time: id.start_time };
            Ok(Gate { proc, gate, status })
        }
        _ => {
            let text = format!("`{}` ended as soon as it was started", program.display());
            Err(ApiError::new(ErrorCode::Internal, text))
        }
    }
}

impl Gate {
    /// Who waits there.
    pub fn proc_ref(&self) -> ProcRef {
        self.proc
    }

    /// Tells it what to do and returns its answer. An answer that cannot be understood, or none, is
    /// an unexpected end.
    pub async fn open<E: DeserializeOwned>(
        mut self,
        config: &impl Serialize,
        limit: Duration,
    ) -> io::Result<E> {
        let mut line = serde_json::to_vec(config)?;
        line.push(b'\n');
        let talk = async {
            self.gate.write_all(&line).await?;
            drop(self.gate);
            let mut answer = Vec::new();
            BufReader::new(self.status.take(MAX_STATUS)).read_until(b'\n', &mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let answer = tokio::time::timeout(limit, talk).await??;
        serde_json::from_slice(&answer).map_err(|_| io::ErrorKind::UnexpectedEof.into())
    }
}

/// The same process, as the system calls take it.
pub fn proc_id(proc: ProcRef) -> ProcId {
    ProcId { pid: proc.pid, start_time: proc.start_time }
}

/// Whether a process lives.
pub fn is_alive(proc: ProcRef) -> bool {
    proc_id(proc).is_alive()
}

/// Waits until a process is gone.
pub async fn wait_gone(proc: ProcRef) {
    let ended = match proc_id(proc).open() {
        Ok(Some(pidfd)) => banger_sys::ended::ended(pidfd).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::error!(pid = proc.pid, %error, "cannot wait for a process");
    }
}

async fn gone_within(proc: ProcRef, limit: Duration) -> bool {
    tokio::time::timeout(limit, wait_gone(proc)).await.is_ok()
}

/// Asks a process to end, kills it where it has not done so in time, and waits until it is gone.
pub async fn end(proc: ProcRef, limit: Duration) -> Result<Undone, ApiError> {
    if !is_alive(proc) {
        return Ok(Undone::WasAbsent);
    }
    let refused = |error: &io::Error| of(format!("cannot end process {}", proc.pid), error);
    proc_id(proc).signal(Signal::TERM).map_err(|error| refused(&error))?;
    if gone_within(proc, limit).await {
        return Ok(Undone::Removed);
    }
    tracing::warn!(pid = proc.pid, "it did not end when asked and is killed");
    kill(proc).await
}

/// Kills a process and waits until it is gone.
pub async fn kill(proc: ProcRef) -> Result<Undone, ApiError> {
    if !is_alive(proc) {
        return Ok(Undone::WasAbsent);
    }
    proc_id(proc)
        .signal(Signal::KILL)
        .map_err(|error| of(format!("cannot end process {}", proc.pid), &error))?;
    if gone_within(proc, GONE_TIMEOUT).await {
        return Ok(Undone::Removed);
    }
    Err(ApiError::new(ErrorCode::Busy, format!("process {} does not end", proc.pid)))
}
