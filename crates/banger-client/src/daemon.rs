//! Making sure that a daemon answers, and that it is the one installed here.
//!
//! Several programs may do this at once. Each that finds nobody starts a daemon; the daemon's own
//! lock lets one of them live, and the others' starters wait for the winner's socket.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use banger_api::daemon::DaemonStatus;
use banger_api::paths::Paths;
use banger_api::{ApiError, ErrorCode, Hint, routes};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::http::{self, Call, Connection, Lost};
use crate::launch::{Launcher, Started};
use crate::unix;

/// How long to go on trying.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between looks for a socket that another program is about to create.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Pause between starts: the daemon that holds the lock may be on its way out.
const START_AGAIN: Duration = Duration::from_millis(500);
/// Most of an answer's head.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Whether a daemon answers.
pub enum Presence {
    /// It does.
    Answering(Box<DaemonStatus>),
    /// Nobody listens.
    Absent,
}

/// A daemon that answered, on the connection it answered on.
struct Found {
    connection: Connection,
    status: DaemonStatus,
}

/// Opens a connection to the API.
pub(crate) async fn connect(paths: &Paths) -> Result<Connection, Lost> {
    let stream = unix::connect(&paths.socket()).await.map_err(Lost::Unsent)?;
    Connection::open(stream, MAX_HEAD).await
}

async fn find(paths: &Paths) -> Result<Option<Found>, ApiError> {
    let mut connection = match connect(paths).await {
        Ok(connection) => connection,
        Err(Lost::Unsent(error)) if nobody_listens(&error) => return Ok(None),
        Err(Lost::Unanswered(_)) => return Ok(None),
        Err(lost) => return Err(unreachable(paths, &lost)),
    };
    match connection.send(Call::get(routes::DAEMON)).await {
        Ok(answer) => Ok(Some(Found { connection, status: http::decode(answer).await? })),
        // It ended while it was asked.
        Err(Lost::Unanswered(_)) => Ok(None),
        Err(lost) => Err(unreachable(paths, &lost)),
    }
}

/// Whether a failed connect means that no daemon is there, as against one that cannot be reached.
pub(crate) fn nobody_listens(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    // A file where a folder should be is for the daemon's start to tell.
    matches!(error.kind(), Kind::NotFound | Kind::ConnectionRefused | Kind::NotADirectory)
}

/// The daemon does not answer, in words.
pub(crate) fn unreachable(paths: &Paths, lost: &Lost) -> ApiError {
    let text = format!("the daemon at `{}` does not answer", paths.socket().display());
    ApiError::new(ErrorCode::DaemonUnavailable, text)
        .caused_by(lost)
        .with_hint(Hint::ReadFile { path: paths.daemon_log().display().to_string() })
}

/// Asks whether a daemon answers, and starts none.
///
/// # Errors
/// One is there that cannot be reached or understood.
pub(crate) async fn look(paths: &Paths) -> Result<Presence, ApiError> {
    Ok(match find(paths).await? {
        Some(found) => Presence::Answering(Box::new(found.status)),
        None => Presence::Absent,
    })
}

/// Makes sure that a daemon answers: starts one where none does, replaces an outdated one.
///
/// # Errors
/// The daemon's own reason not to start, or that it never answered.
pub(crate) async fn ensure(paths: &Paths, launcher: &Launcher) -> Result<DaemonStatus, ApiError> {
    let deadline = Instant::now() + PATIENCE;
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
                if let Started::Another(error) = launcher.start(paths).await? {
                    last = Some(error);
                }
                start_at = Instant::now() + START_AGAIN;
            }
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
    Err(last.unwrap_or_else(|| unreachable(paths, &Lost::Silent)))
}

/// Ends the daemon and waits until its process is gone.
///
/// # Errors
/// It refused, or cannot be reached.
pub(crate) async fn stop(paths: &Paths) -> Result<Presence, ApiError> {
    let Some(found) = find(paths).await? else { return Ok(Presence::Absent) };
    let status = found.status.clone();
    end(found).await?;
    Ok(Presence::Answering(Box::new(status)))
}

/// Asks on the connection that answered, so that it is not a successor that is ended.
async fn end(mut found: Found) -> Result<(), ApiError> {
    let process = watch_process(found.status.pid);
    let call = Call::post(routes::DAEMON_STOP, &serde_json::json!({}))?;
    match found.connection.send(call).await {
        Ok(answer) => http::accept(answer).await?,
        // It may be gone before the answer is out.
        Err(Lost::Unanswered(_)) => {}
        Err(lost) => {
            let text = format!("the daemon (pid {}) cannot be stopped", found.status.pid);
            return Err(ApiError::new(ErrorCode::DaemonUnavailable, text).caused_by(&lost));
        }
    }
    let Some(process) = process else { return Ok(()) };
    match tokio::time::timeout(PATIENCE, process.readable()).await {
        Ok(_) => Ok(()),
        Err(_) => {
            let text = format!("the daemon (pid {}) did not end", found.status.pid);
            Err(ApiError::new(ErrorCode::Timeout, text))
        }
    }
}

/// A descriptor that becomes readable when the process ends (pidfd_open(2)); none when it has.
fn watch_process(pid: u32) -> Option<AsyncFd<std::os::fd::OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    let flags = rustix::process::PidfdFlags::NONBLOCK;
    crate::sys::readable(rustix::process::pidfd_open(pid, flags).ok()?).ok()
}

/// How the program that runs relates to the one installed beside us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    /// The very file.
    Same,
    /// A file that was there before it.
    Replaced,
    /// A file in another place, or one that cannot be told.
    Elsewhere,
}

fn is_outdated(status: &DaemonStatus, launcher: &Launcher) -> bool {
    status.build_id != launcher.build_id
        && should_replace(program_of(status.pid, &launcher.program), status.operations)
}

/// A daemon of another build is replaced when its file was; a build of `banger` alone, or another
/// installation's daemon, is no reason. An operation in progress is not interrupted.
fn should_replace(program: Program, operations: u64) -> bool {
    program == Program::Replaced && operations == 0
}

fn program_of(pid: u32, installed: &Path) -> Program {
    // proc(5): the link still leads to a file that was removed, and then says so after its path.
    let link = format!("/proc/{pid}/exe");
    let path = std::fs::read_link(&link);
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
    let facts = path.and_then(|path| {
        Ok((path, identity(Path::new(&link))?, installed.canonicalize()?, identity(installed)?))
    });
    let Ok((path, running, installed, on_disk)) = facts else { return Program::Elsewhere };
    let text = path.to_string_lossy();
    let place = Path::new(text.strip_suffix(" (deleted)").unwrap_or(&text));
    if running == on_disk {
        Program::Same
    } else if place == installed {
        Program::Replaced
    } else {
        Program::Elsewhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_idle_daemon_whose_file_was_replaced_is_replaced() {
        for (program, operations, replace) in [
            (Program::Replaced, 0, true),
            (Program::Replaced, 1, false),
            (Program::Same, 0, false),
            (Program::Elsewhere, 0, false),
        ] {
            assert_eq!(should_replace(program, operations), replace, "{program:?} {operations}");
        }
    }

    #[test]
    fn a_replaced_daemon_program_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let installed = folder.path().join("sleep");
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
            (Program::Same, Program::Elsewhere, Program::Replaced)
        );
        assert_eq!(program_of(running.id(), &installed), Program::Elsewhere);
    }
}
