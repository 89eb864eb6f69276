//! Starting a command for `POST /exec`: who runs it, where, with what environment, on what.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use banger_agent_proto::bytes::ByteString;
use banger_agent_proto::exec::{ExecRequest, ExitStatus, WindowSize};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::http::Refusal;
use crate::sys::process::{ChildSetup, SpawnStage, Terminal, spawn};
use crate::users::{self, User};

/// Search path of commands, unless the configuration or the request sets one.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Largest /etc/passwd or /etc/group that is read, in bytes.
const USER_FILE_MAX: u64 = 4 * 1024 * 1024;

/// Debian's group `tty`, the same number everywhere.
const TTY_GROUP: u32 = 5;

/// What a session talks to. All descriptors are non-blocking.
pub enum Streams {
    /// Pipes; stdin only where the client sends some.
    Pipes {
        /// The command's stdin.
        stdin: Option<OwnedFd>,
        /// Its stdout.
        stdout: OwnedFd,
        /// Its stderr.
        stderr: OwnedFd,
    },
    /// The master side of a pseudo terminal.
    Terminal(OwnedFd),
}

/// A command that runs.
pub struct Running {
    /// Leader of the command's session and process group.
    pub pid: Pid,
    /// Becomes readable when it has ended.
    pub pidfd: OwnedFd,
    /// Its input and output.
    pub streams: Streams,
}

/// How starting went.
pub enum Started {
    /// It runs.
    Running(Running),
    /// It did not; this is the session's only frame.
    Failed(ExitStatus),
}

/// A command that is ready to be started but for its streams.
pub struct Prepared {
    /// Program, arguments and environment.
    pub command: Command,
    /// Who runs it, and where.
    pub setup: ChildSetup,
    user: User,
}

/// Resolves who runs the command, where, and with what environment.
///
/// # Errors
/// A request that is wrong in itself: unknown user, missing folder, zero bytes.
pub fn prepare(request: &ExecRequest, env: &BTreeMap<String, String>) -> Result<Prepared, Refusal> {
    let wanted = request.user.as_deref().unwrap_or("root");
    let user = users::find(wanted, &read_users("/etc/passwd"), &read_users("/etc/group"))
        .map_err(|fault| Refusal::bad(fault.chain()))?;
    let cwd = folder_for(request, &user)?;
    refuse_zero_bytes(request)?;
    let mut command = command_for(request, &user);
    command.env_clear().envs(environment(request, &user, env));
    let setup = ChildSetup {
        uid: Uid::from_raw(user.uid),
        gid: Gid::from_raw(user.gid),
        groups: user.groups.iter().copied().map(Gid::from_raw).collect(),
        cwd,
        terminal: Terminal::None,
    };
    Ok(Prepared { command, setup, user })
}

/// Starts the command.
///
/// # Errors
/// As [`prepare`].
pub fn start(request: &ExecRequest, env: &BTreeMap<String, String>) -> Result<Started, Refusal> {
    let Prepared { mut command, mut setup, user } = prepare(request, env)?;
    let (streams, terminal) = match request.tty {
        Some(size) => terminal(&mut command, size, &user),
        None => pipes(&mut command, request.stdin),
    }
    .map_err(|error| Refusal::new(500, format!("cannot set up the command's streams: {error}")))?;
    setup.terminal = terminal;
    let program = command.get_program().to_string_lossy().into_owned();
    match spawn(command, setup) {
        Ok(child) => running(&child, streams)
            .map(Started::Running)
            .map_err(|error| Refusal::new(500, format!("cannot watch the command: {error}"))),
        Err((stage, error)) => Ok(Started::Failed(not_started(stage, &error, &program, request))),
    }
}

fn running(child: &Child, streams: Streams) -> io::Result<Running> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Running { pid, pidfd, streams })
}

/// An image may have no users at all.
fn read_users(path: &str) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(USER_FILE_MAX).read_to_end(&mut bytes));
    if read.is_err() {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A folder asked for must be there; a home that is not is replaced by `/`, as login(1) does.
fn folder_for(request: &ExecRequest, user: &User) -> Result<CString, Refusal> {
    let is_folder = |path: &OsStr| std::fs::metadata(path).is_ok_and(|found| found.is_dir());
    let path = match &request.cwd {
        Some(path) if !path.as_bytes().starts_with(b"/") => {
            return Err(Refusal::bad(format!("working folder `{path}` is not absolute")));
        }
        Some(path) if !is_folder(path.as_os_str()) => {
            return Err(Refusal::bad(format!("the guest has no folder `{path}`")));
        }
        Some(path) => path.as_bytes(),
        None if is_folder(OsStr::new(&user.home)) => user.home.as_bytes(),
        None => b"/",
    };
    CString::new(path).map_err(|_| Refusal::bad("the working folder contains a zero byte"))
}

fn refuse_zero_bytes(request: &ExecRequest) -> Result<(), Refusal> {
    let zero = |text: &ByteString| text.as_bytes().contains(&0);
    if request.argv.iter().any(zero) {
        return Err(Refusal::bad("an argument contains a zero byte"));
    }
    for (name, value) in &request.env {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.contains(&b'=') || zero(name) || zero(value) {
            return Err(Refusal::bad(format!("`{name}` cannot be an environment variable")));
        }
    }
    Ok(())
}

/// The program and its arguments; without any, the user's shell as login(1) starts it.
fn command_for(request: &ExecRequest, user: &User) -> Command {
    if let [program, arguments @ ..] = request.argv.as_slice() {
        let mut command = Command::new(program.as_os_str());
        command.args(arguments.iter().map(ByteString::as_os_str));
        return command;
    }
    let shell = match std::fs::metadata(&user.shell) {
        Ok(_) => user.shell.as_str(),
        Err(_) => "/bin/sh",
    };
    let mut command = Command::new(shell);
    command.arg0(format!("-{}", shell.rsplit('/').next().unwrap_or(shell)));
    command
}

fn environment(
    request: &ExecRequest,
    user: &User,
    configured: &BTreeMap<String, String>,
) -> BTreeMap<OsString, OsString> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: &str| env.insert(name.into(), value.into());
    set("PATH", DEFAULT_PATH);
    set("HOME", &user.home);
    set("USER", &user.name);
    set("LOGNAME", &user.name);
    set("SHELL", &user.shell);
    if request.tty.is_some() {
        set("TERM", request.term.as_deref().unwrap_or("xterm-256color"));
    }
    for (name, value) in configured {
        set(name, value);
    }
    for (name, value) in &request.env {
        env.insert(name.as_os_str().into(), value.as_os_str().into());
    }
    env
}

fn pipes(command: &mut Command, wants_stdin: bool) -> io::Result<(Streams, Terminal)> {
    let stdin = if wants_stdin {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        command.stdin(Stdio::from(theirs));
        Some(nonblocking(ours)?)
    } else {
        command.stdin(Stdio::null());
        None
    };
    let (stdout, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    command.stdout(Stdio::from(theirs));
    let (stderr, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    command.stderr(Stdio::from(theirs));
    let (stdout, stderr) = (nonblocking(stdout)?, nonblocking(stderr)?);
    Ok((Streams::Pipes { stdin, stdout, stderr }, Terminal::None))
}

fn terminal(
    command: &mut Command,
    size: WindowSize,
    user: &User,
) -> io::Result<(Streams, Terminal)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    tcsetwinsize(&master, winsize(size))?;
    // The terminal is its user's: programs reopen /dev/tty and check its owner.
    rustix::fs::fchown(&slave, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(TTY_GROUP)))?;
    rustix::fs::fchmod(&slave, Mode::from_raw_mode(0o620))?;
    command.stdin(Stdio::from(slave.try_clone()?));
    command.stdout(Stdio::from(slave.try_clone()?));
    command.stderr(Stdio::from(slave));
    Ok((Streams::Terminal(nonblocking(master)?), Terminal::Controlling))
}

/// A window size as the terminal takes it.
pub fn winsize(size: WindowSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Makes our end of a stream non-blocking; the command's end is a file description of its own.
pub fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

/// What a shell would say: 127 for a program that is not there, 126 for one that cannot run.
pub fn not_started(
    stage: SpawnStage,
    error: &io::Error,
    program: &str,
    request: &ExecRequest,
) -> ExitStatus {
    let message = match stage {
        SpawnStage::Session => format!("cannot make a session for `{program}`: {error}"),
        SpawnStage::User => {
            let user = request.user.as_deref().unwrap_or("root");
            format!("cannot become user `{user}`: {error}")
        }
        SpawnStage::Folder => format!("cannot enter the working folder: {error}"),
        SpawnStage::Exec => format!("cannot run `{program}`: {error}"),
    };
    let is_missing = stage == SpawnStage::Exec && error.kind() == io::ErrorKind::NotFound;
    ExitStatus::NotStarted { code: if is_missing { 127 } else { 126 }, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(argv: &[&str]) -> ExecRequest {
        ExecRequest {
            argv: argv.iter().map(|word| (*word).into()).collect(),
            ..ExecRequest::default()
        }
    }

    fn user() -> User {
        users::find("dev", "dev:x:1000:1000::/nowhere/home:/bin/sh\n", "").unwrap()
    }

    #[test]
    fn a_login_shell_has_a_dash() {
        let command = command_for(&request(&[]), &user());
        assert_eq!(command.get_program(), "/bin/sh");
        assert!(format!("{command:?}").contains("-sh"), "{command:?}");
    }

    #[test]
    fn later_environment_wins() {
        let configured = BTreeMap::from([
            ("PATH".to_owned(), "/configured".to_owned()),
            ("A".to_owned(), "configured".to_owned()),
        ]);
        let mut asked = request(&["x"]);
        asked.env = vec![("A".into(), "first".into()), ("A".into(), "last".into())];
        let env = environment(&asked, &user(), &configured);
        let value = |name: &str| env[OsStr::new(name)].to_str().unwrap();
        assert_eq!((value("PATH"), value("A")), ("/configured", "last"));
        assert_eq!((value("HOME"), value("LOGNAME")), ("/nowhere/home", "dev"));
        assert!(!env.contains_key(OsStr::new("TERM")));
        asked.tty = Some(WindowSize { rows: 24, cols: 80 });
        asked.term = Some("vt100".into());
        assert_eq!(environment(&asked, &user(), &configured)[OsStr::new("TERM")], "vt100");
    }

    #[test]
    fn a_missing_home_is_no_error_but_a_missing_folder_is() {
        let mut asked = request(&["x"]);
        assert_eq!(folder_for(&asked, &user()).unwrap().to_str(), Ok("/"));
        for wrong in ["/nowhere/else", "tmp", "/etc/passwd"] {
            asked.cwd = Some(wrong.into());
            assert_eq!(folder_for(&asked, &user()).unwrap_err().status, 400, "{wrong}");
        }
    }

    #[test]
    fn zero_bytes_and_bad_names_are_refused() {
        assert!(refuse_zero_bytes(&request(&["a\0b"])).is_err());
        let mut asked = request(&["x"]);
        for name in ["", "A=B", "A\0"] {
            asked.env = vec![(name.into(), "v".into())];
            assert!(refuse_zero_bytes(&asked).is_err(), "{name:?}");
        }
        asked.env = vec![("A".into(), "a=b".into())];
        assert!(refuse_zero_bytes(&asked).is_ok());
    }

    #[test]
    fn shell_codes_of_failures() {
        let code = |stage, kind: io::ErrorKind| {
            not_started(stage, &kind.into(), "x", &request(&["x"])).shell_code()
        };
        assert_eq!(code(SpawnStage::Exec, io::ErrorKind::NotFound), 127);
        assert_eq!(code(SpawnStage::Exec, io::ErrorKind::PermissionDenied), 126);
        assert_eq!(code(SpawnStage::Folder, io::ErrorKind::NotFound), 126);
    }
}
