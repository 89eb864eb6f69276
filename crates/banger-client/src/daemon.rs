//! Starts the daemon if none answers, and replaces a daemon whose program was replaced.
//!
//! Several clients may do this at once. Each that finds no daemon starts one; the daemon's lock
//! lets one of them run, and all clients wait for its socket.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use banger_api::daemon::DaemonStatus;
use banger_api::paths::Paths;
use banger_api::{ApiError, ErrorCode, Hint, routes};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::http::{self, Call, CallError, Connection};
use crate::launch::{Launcher, StartOutcome};
use crate::unix;

/// Time limit for a daemon to answer, and to end.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between checks for a socket that another process is about to create.
const SOCKET_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Interval between starts: the daemon that holds the lock may be ending.
const START_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum size of an answer's head, in bytes.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Whether a daemon answers.
pub enum Presence {
    /// A daemon answers with this status.
    Answering(Box<DaemonStatus>),
    /// No daemon listens.
    Absent,
}

/// A running daemon and the connection on which it sent its status.
struct RunningDaemon {
    connection: Connection,
    status: DaemonStatus,
}

/// Opens a connection to the API.
pub(crate) async fn connect(paths: &Paths) -> Result<Connection, CallError> {
    let stream = unix::connect(&paths.socket()).await.map_err(CallError::NotSent)?;
    Connection::open(stream, MAX_HEAD).await
}

async fn find(paths: &Paths) -> Result<Option<RunningDaemon>, ApiError> {
    let mut connection = match connect(paths).await {
        Ok(connection) => connection,
        Err(CallError::NotSent(error)) if is_absent_error(&error) => return Ok(None),
        Err(CallError::NoAnswer(_)) => return Ok(None),
        Err(error) => return Err(unreachable(paths, &error)),
    };
    match connection.send(Call::get(routes::DAEMON)).await {
        Ok(answer) => Ok(Some(RunningDaemon { connection, status: http::decode(answer).await? })),
        // The daemon ended before its answer.
        Err(CallError::NoAnswer(_)) => Ok(None),
        Err(error) => Err(unreachable(paths, &error)),
    }
}

/// Whether a failed connect means that no daemon runs, and not that one cannot be reached.
pub(crate) fn is_absent_error(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    // A file in place of a folder is reported by the start of the daemon.
    matches!(error.kind(), Kind::NotFound | Kind::ConnectionRefused | Kind::NotADirectory)
}

/// The error for a daemon that does not answer.
pub(crate) fn unreachable(paths: &Paths, error: &CallError) -> ApiError {
    let text = format!("the daemon at `{}` does not answer", paths.socket().display());
    ApiError::new(ErrorCode::DaemonUnavailable, text)
        .caused_by(error)
        .with_hint(Hint::ReadFile { path: paths.daemon_log().display().to_string() })
}

/// Checks whether a daemon answers, without starting one.
///
/// # Errors
/// A daemon listens but cannot be reached, or its answer is unknown.
pub(crate) async fn probe(paths: &Paths) -> Result<Presence, ApiError> {
    Ok(match find(paths).await? {
        Some(found) => Presence::Answering(Box::new(found.status)),
        None => Presence::Absent,
    })
}

/// Starts the daemon if none answers, and replaces an outdated one.
///
/// # Errors
/// The reason why the daemon does not start, or no answer within [`DAEMON_TIMEOUT`].
pub(crate) async fn ensure(paths: &Paths, launcher: &Launcher) -> Result<DaemonStatus, ApiError> {
    let deadline = Instant::now() + DAEMON_TIMEOUT;
    let mut start_at = Instant::now();
    let mut last = None;
    let mut replaced = false;
    while Instant::now() < deadline {
        match find(paths).await? {
            Some(found) if !replaced && is_outdated(&found.status, launcher) => {
                replaced = true;
                end(found).await?;
                start_at = Instant::now();
            }
            Some(found) => return Ok(found.status),
            None if Instant::now() >= start_at => {
                if let StartOutcome::Locked(error) = launcher.start(paths).await? {
                    last = Some(error);
                }
                start_at = Instant::now() + START_INTERVAL;
            }
            None => tokio::time::sleep(SOCKET_POLL_INTERVAL).await,
        }
    }
    Err(last.unwrap_or_else(|| unreachable(paths, &CallError::TimedOut)))
}

/// Stops the daemon and waits for the end of its process.
///
/// # Errors
/// The daemon refused, or cannot be reached.
pub(crate) async fn stop(paths: &Paths) -> Result<Presence, ApiError> {
    let Some(found) = find(paths).await? else { return Ok(Presence::Absent) };
    let status = found.status.clone();
    end(found).await?;
    Ok(Presence::Answering(Box::new(status)))
}

/// Stops a daemon over the connection on which it answered, so that its successor is not stopped.
async fn end(mut found: RunningDaemon) -> Result<(), ApiError> {
    let process = watch_process(found.status.pid);
    let call = Call::post(routes::DAEMON_STOP, &serde_json::json!({}))?;
    match found.connection.send(call).await {
        Ok(answer) => http::accept(answer).await?,
        // The daemon may end before it has sent the answer.
        Err(CallError::NoAnswer(_)) => {}
        Err(error) => {
            let text = format!("the daemon (pid {}) cannot be stopped", found.status.pid);
            return Err(ApiError::new(ErrorCode::DaemonUnavailable, text).caused_by(&error));
        }
    }
    let Some(process) = process else { return Ok(()) };
    match tokio::time::timeout(DAEMON_TIMEOUT, process.readable()).await {
        Ok(_) => Ok(()),
        Err(_) => {
            let text = format!("the daemon (pid {}) did not end", found.status.pid);
            Err(ApiError::new(ErrorCode::Timeout, text))
        }
    }
}

/// A descriptor that becomes readable when the process ends (pidfd_open(2)); none if it has ended.
fn watch_process(pid: u32) -> Option<AsyncFd<std::os::fd::OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    let flags = rustix::process::PidfdFlags::NONBLOCK;
    crate::sys::readable(rustix::process::pidfd_open(pid, flags).ok()?).ok()
}

/// Relation of the running daemon's program to the installed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProgramMatch {
    /// The same file.
    Same,
    /// A file that the installed one has replaced.
    Replaced,
    /// A file at another path, or an unknown file.
    Elsewhere,
}

fn is_outdated(status: &DaemonStatus, launcher: &Launcher) -> bool {
    status.build_id != launcher.build_id
        && should_replace(program_of(status.pid, &launcher.program), status.operations)
}

/// A daemon of another build is replaced if its program file was replaced, and not because of
/// another build of `banger` alone or of another installation. An operation in progress prevents
/// it.
fn should_replace(program: ProgramMatch, operations: u64) -> bool {
    program == ProgramMatch::Replaced && operations == 0
}

fn program_of(pid: u32, installed: &Path) -> ProgramMatch {
    // proc(5): the link of a removed file ends in ` (deleted)` and can still be opened.
    let link = format!("/proc/{pid}/exe");
    let path = std::fs::read_link(&link);
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
    let facts = path.and_then(|path| {
        Ok((path, identity(Path::new(&link))?, installed.canonicalize()?, identity(installed)?))
    });
    let Ok((path, running, installed, on_disk)) = facts else { return ProgramMatch::Elsewhere };
    let bytes = path.as_os_str().as_bytes();
    let place = Path::new(OsStr::from_bytes(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)));
    if running == on_disk {
        ProgramMatch::Same
    } else if place == installed {
        ProgramMatch::Replaced
    } else {
        ProgramMatch::Elsewhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_idle_daemon_whose_file_was_replaced_is_replaced() {
        for (program, operations, replace) in [
            (ProgramMatch::Replaced, 0, true),
            (ProgramMatch::Replaced, 1, false),
            (ProgramMatch::Same, 0, false),
            (ProgramMatch::Elsewhere, 0, false),
        ] {
            assert_eq!(should_replace(program, operations), replace, "{program:?} {operations}");
        }
    }

    #[test]
    fn a_replaced_daemon_program_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let installed = folder.path().join(OsStr::from_bytes(b"slee\xff"));
        std::fs::copy("/bin/sleep", &installed).unwrap();
        let mut running = std::process::Command::new(&installed).arg("60").spawn().unwrap();
        let same = program_of(running.id(), &installed);
        let elsewhere = program_of(running.id(), Path::new("/bin/sleep"));
        std::fs::remove_file(&installed).unwrap();
        std::fs::copy("/bin/sleep", &installed).unwrap();
        let replaced = program_of(running.id(), &installed);
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(
            (same, elsewhere, replaced),
            (ProgramMatch::Same, ProgramMatch::Elsewhere, ProgramMatch::Replaced)
        );
        assert_eq!(program_of(running.id(), &installed), ProgramMatch::Elsewhere);
    }
}
