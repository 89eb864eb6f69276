//! Calls of git that run no other program: no hooks, no filters, no file system monitor, no pager,
//! no transport, whatever the repository's configuration says.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use banger_api::{ApiError, ErrorCode, Hint};

/// Settings of a repository that name programs (git-config(1)), and what replaces them.
const SAFE: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.sshCommand=false",
    "core.gitProxy=",
    "core.alternateRefsCommand=true",
    "core.pager=cat",
    // A temporary index must not leave a shared part in the repository.
    "core.splitIndex=false",
    "credential.helper=",
    "protocol.allow=never",
];

/// Variables that would lead git to another repository, or to programs (git(1), and `git rev-parse
/// --local-env-vars`).
const REMOVED: [&str; 22] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_EXTERNAL_DIFF",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_LITERAL_PATHSPECS",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_PROXY_COMMAND",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_WORK_TREE",
];

/// Bytes shown of git's messages.
const MAX_MESSAGE: u64 = 4096;

/// git in a folder.
#[derive(Debug, Clone)]
pub struct Git {
    folder: PathBuf,
    /// Settings that switch the filters of the repository off.
    filters: Vec<(OsString, &'static str)>,
    /// Variables of its environment.
    variables: Vec<(&'static str, OsString)>,
}

impl Git {
    /// git in this folder. The filters of its repository are not known yet: only for calls that
    /// read no file of a work tree.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), filters: Vec::new(), variables: Vec::new() }
    }

    /// The same with a variable in its environment, such as `GIT_INDEX_FILE`.
    #[must_use]
    pub fn with(&self, name: &'static str, value: impl Into<OsString>) -> Self {
        let mut git = self.clone();
        git.variables.push((name, value.into()));
        git
    }

    /// The same in the top folder of a work tree, with all configured filters switched off.
    ///
    /// # Errors
    /// Those of [`Self::output`].
    pub fn without_filters(top: &Path) -> Result<Self, ApiError> {
        let mut git = Self::new(top);
        let pattern = r"^filter\..*\.(clean|smudge|process|required)$";
        let mut listing = git.command(["config", "--name-only", "-z", "--get-regexp", pattern]);
        // It exits with 1 if there are none.
        let listing = listing.output().map_err(|error| missing(&error))?;
        for name in listing.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let value = if name.ends_with(b".required") { "false" } else { "" };
            git.filters.push((OsStr::from_bytes(name).into(), value));
        }
        Ok(git)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command with nothing on its standard input.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("git");
        for name in REMOVED {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_NO_LAZY_FETCH", "1");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        for setting in SAFE {
            command.args(["-c", setting]);
        }
        // The user has named the folder, and git runs nothing of it.
        let mut safe = OsString::from("safe.directory=");
        safe.push(&self.folder);
        command.arg("-c").arg(safe);
        // Not with `-c`, which ends a name at its first `=`; a filter's name may have one.
        command.env("GIT_CONFIG_COUNT", self.filters.len().to_string());
        for (number, (name, value)) in self.filters.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command.args(arguments);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Standard output of a command that succeeds.
    ///
    /// # Errors
    /// git is not installed, or fails; with its message.
    pub fn output<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Vec<u8>, ApiError> {
        let output = self.command(arguments).output().map_err(|error| missing(&error))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(failed(&self.folder, &output.stderr))
    }

    /// Standard output of a command that may exit with 1 for "there is none".
    ///
    /// # Errors
    /// As [`Self::output`].
    pub fn optional<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Option<Vec<u8>>, ApiError> {
        let output = self.command(arguments).output().map_err(|error| missing(&error))?;
        match output.status.code() {
            Some(0) => Ok(Some(output.stdout)),
            Some(1) => Ok(None),
            _ => Err(failed(&self.folder, &output.stderr)),
        }
    }

    /// Standard output of a command with this input.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub fn filter(&self, arguments: &[&str], input: Vec<u8>) -> Result<Vec<u8>, ApiError> {
        let mut running = Running::start(self, arguments, input)?;
        let mut output = Vec::new();
        running.stdout.read_to_end(&mut output).map_err(|error| missing(&error))?;
        running.finish()?;
        Ok(output)
    }

    /// Starts a command with this input, whose output is read while it runs.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub fn stream<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: Vec<u8>,
    ) -> Result<Running, ApiError> {
        Running::start(self, arguments, input)
    }
}

/// A running command.
pub struct Running {
    /// Its standard output.
    pub stdout: std::process::ChildStdout,
    child: Child,
    messages: Messages,
    folder: PathBuf,
}

impl Running {
    fn start<S: AsRef<OsStr>>(
        git: &Git,
        arguments: impl IntoIterator<Item = S>,
        input: Vec<u8>,
    ) -> Result<Self, ApiError> {
        let mut command = git.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, messages) = started(command)?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(missing(&io::ErrorKind::BrokenPipe.into()));
        };
        // In a thread of its own, or a full pipe would stop both.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        Ok(Self { stdout, child, messages, folder: git.folder.clone() })
    }

    /// Waits for the end, after the output was read.
    ///
    /// # Errors
    /// git fails.
    pub fn finish(self) -> Result<(), ApiError> {
        let Self { stdout, child, messages, folder } = self;
        drop(stdout);
        finished(child, messages, &folder)
    }
}

/// The messages of a running command.
pub(crate) type Messages = std::thread::JoinHandle<Vec<u8>>;

/// Starts a command whose standard error is a pipe, and reads its messages in a thread.
///
/// # Errors
/// git is not installed.
pub(crate) fn started(mut command: Command) -> Result<(Child, Messages), ApiError> {
    let mut child = command.spawn().map_err(|error| missing(&error))?;
    let mut stderr = child.stderr.take();
    let messages = std::thread::spawn(move || {
        let mut shown = Vec::new();
        if let Some(stderr) = &mut stderr {
            let _ = stderr.by_ref().take(MAX_MESSAGE).read_to_end(&mut shown);
            let _ = io::copy(stderr, &mut io::sink());
        }
        shown
    });
    Ok((child, messages))
}

/// Waits for the end of a command.
///
/// # Errors
/// It has failed, with its messages.
pub(crate) fn finished(
    mut child: Child,
    messages: Messages,
    folder: &Path,
) -> Result<(), ApiError> {
    let status = child.wait().map_err(|error| missing(&error))?;
    let messages = messages.join().unwrap_or_default();
    if status.success() { Ok(()) } else { Err(failed(folder, &messages)) }
}

fn missing(error: &io::Error) -> ApiError {
    let failed = ApiError::new(ErrorCode::Internal, "git cannot be run").caused_by(error);
    match error.kind() {
        io::ErrorKind::NotFound => failed.with_hint(Hint::text("install git on this host")),
        _ => failed,
    }
}

fn failed(folder: &Path, messages: &[u8]) -> ApiError {
    let text = format!("git failed in `{}`", folder.display());
    let mut error = ApiError::new(ErrorCode::BadRequest, text);
    let messages = String::from_utf8_lossy(messages);
    error.causes.extend(messages.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
    error
}
