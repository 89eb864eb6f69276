//! Starts `bangerd`.
//!
//! The standard output of the daemon is a pipe on which it writes one line: `ready`, or `error `
//! and an [`ApiError`] as JSON. The daemon runs in a session of its own; its standard error goes to
//! its log file.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use banger_api::hint::SetupAdvice;
use banger_api::limits::VmDefaults;
use banger_api::paths::Paths;
use banger_api::session::MAX_LINE;
use banger_api::{ApiError, ErrorCode, Hint};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// Time limit for a daemon to be ready: it recovers all its VMs first.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Time limit for the program to print its defaults.
const DEFAULTS_TIMEOUT: Duration = Duration::from_secs(2);

/// How to start a daemon.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The program.
    pub program: PathBuf,
    /// Build id of this program.
    pub build_id: String,
}

/// Outcome of a start.
pub(crate) enum StartOutcome {
    /// The daemon serves requests.
    Ready,
    /// Another daemon has locked the state folder.
    Locked(ApiError),
}

impl Launcher {
    /// The daemon beside this program, or the one that `BANGERD` names.
    ///
    /// # Errors
    /// This program's own path is unknown.
    pub fn from_env(build_id: &str) -> Result<Self, ApiError> {
        let program = match std::env::var_os("BANGERD").filter(|path| !path.is_empty()) {
            Some(path) => path.into(),
            None => std::env::current_exe()
                .map_err(|error| {
                    ApiError::new(ErrorCode::HostNotReady, "this program's own path is unknown")
                        .caused_by(&error)
                })?
                .with_file_name("bangerd"),
        };
        Ok(Self { program, build_id: build_id.to_owned() })
    }

    /// Default values of a new VM, as the daemon decides them from its configuration, the
    /// environment and the host.
    ///
    /// # Errors
    /// The program cannot be run, or refuses its configuration.
    pub async fn defaults(&self) -> Result<VmDefaults, ApiError> {
        let mut command = Command::new(&self.program);
        command.arg("--defaults").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let ran = tokio::time::timeout(DEFAULTS_TIMEOUT, command.output()).await;
        let slow = || io::Error::from(io::ErrorKind::TimedOut);
        let output = ran.unwrap_or_else(|_| Err(slow())).map_err(|e| self.not_spawned(&e))?;
        serde_json::from_slice(&output.stdout).map_err(|error| {
            let text = format!("`{} --defaults` failed", self.program.display());
            ApiError::new(ErrorCode::HostNotReady, text).caused_by(&error)
        })
    }

    /// Starts the daemon and waits until it serves requests.
    pub(crate) async fn start(&self, paths: &Paths) -> Result<StartOutcome, ApiError> {
        let log = match open_log(paths) {
            Ok(log) => Stdio::from(log),
            // VMs must be stopped and deleted on a full disk too.
            Err(error) if error.code == ErrorCode::NoSpace => Stdio::null(),
            Err(error) => return Err(error),
        };
        let mut command = Command::new(&self.program);
        // The user's working folder must not keep its file system busy.
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        crate::sys::in_new_session(&mut command);
        let mut child = command.spawn().map_err(|error| self.not_spawned(&error))?;
        let output = tokio::time::timeout(READY_TIMEOUT, first_line(&mut child)).await;
        let log = Hint::ReadFile { path: paths.daemon_log().display().to_string() };
        let failed = |code, text: String| ApiError::new(code, text).with_hint(log);
        let Ok(line) = output else {
            let seconds = READY_TIMEOUT.as_secs();
            let text = format!("the daemon was not ready within {seconds} s");
            return Err(failed(ErrorCode::Timeout, text));
        };
        if line == "ready" {
            return Ok(StartOutcome::Ready);
        }
        let error = line.strip_prefix("error ").map(serde_json::from_str::<ApiError>);
        match error {
            Some(Ok(error)) if error.code == ErrorCode::Busy => Ok(StartOutcome::Locked(error)),
            Some(Ok(error)) => Err(error),
            _ => {
                let ended = match tokio::time::timeout(Duration::from_secs(1), child.wait()).await {
                    Ok(Ok(status)) => format!(" ({status})"),
                    _ => String::new(),
                };
                let text = format!("the daemon ended{ended} before it was ready");
                Err(failed(ErrorCode::DaemonUnavailable, text))
            }
        }
    }

    fn not_spawned(&self, error: &io::Error) -> ApiError {
        let text = format!("the daemon `{}` cannot be started", self.program.display());
        let failure = ApiError::new(ErrorCode::HostNotReady, text).caused_by(error);
        failure.with_hint(SetupAdvice::Reinstall {
            searched: vec![self.program.display().to_string()],
        })
    }
}

/// The daemon's first line of output; empty if it ends without output.
async fn first_line(child: &mut Child) -> String {
    let Some(stdout) = child.stdout.take() else { return String::new() };
    let mut output = Vec::new();
    let mut stdout = stdout.take(MAX_LINE as u64);
    let mut piece = [0; 4096];
    while !output.contains(&b'\n') {
        match stdout.read(&mut piece).await {
            Ok(length) if length > 0 => output.extend_from_slice(&piece[..length]),
            _ => break,
        }
    }
    let line = output.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).trim_end().to_owned()
}

fn open_log(paths: &Paths) -> Result<File, ApiError> {
    let path = paths.daemon_log();
    private_folder(&paths.log_folder())
        .and_then(|()| OpenOptions::new().append(true).create(true).mode(0o600).open(&path))
        .map_err(|error| {
            let code = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
                _ => ErrorCode::ReadOnly,
            };
            let text = format!("the daemon's log `{}` cannot be written", path.display());
            ApiError::new(code, text)
                .caused_by(&error)
                .with_hint(Hint::MakeWritable { path: Some(path.display().to_string()) })
                .with_hint(Hint::UseFolder { variable: "BANGER_HOME".into() })
        })
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
