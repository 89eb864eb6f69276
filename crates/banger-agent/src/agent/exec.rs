//! Starts commands for `POST /exec`: resolves user, folder and environment, and opens the streams.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use banger_agent_proto::ByteString;
use banger_agent_proto::exec::{ExecRequest, ExitStatus, WindowSize};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::http::Refusal;
use super::{cgroup, environment, lookup};
use crate::sys::process::{
    ChildSetup, Launch, Namespaces, Program, SpawnStage, Spawned, Terminal, spawn,
};
use crate::users::{self, User};

/// The shell where a user's own cannot be used.
const FALLBACK_SHELL: &str = "/bin/sh";

/// Size of the pipes of stdin and stdout, in bytes.
const PIPE_SIZE: usize = 256 * 1024;

/// Largest /etc/passwd or /etc/group that is read, in bytes.
const USER_FILE_MAX: u64 = 4 * 1024 * 1024;

/// Room for the usual /etc/passwd, in bytes: it is then read at once.
const USER_FILE_USUAL: usize = 8 * 1024;

/// Exit code of a shell for a command that it found and could not execute.
pub const CANNOT_EXECUTE: u8 = 126;

/// Debian's group `tty`, the same number everywhere.
const TTY_GROUP: u32 = 5;

/// The session's ends of a command's streams. All descriptors are non-blocking.
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
    pub process: Spawned,
    /// Its input and output.
    pub streams: Streams,
    /// Its control group, removed with the session.
    pub group: Option<cgroup::Group>,
}

/// Result of a start.
pub enum Started {
    /// The command runs.
    Running(Running),
    /// The command did not start; this is the session's only frame.
    Failed(ExitStatus),
}

/// Settings shared by all commands.
pub struct Defaults {
    /// Environment from the host's configuration.
    pub env: BTreeMap<String, String>,
    /// Control groups.
    pub groups: Arc<cgroup::Sessions>,
}

/// A command that is ready to be started but for its streams.
pub struct Prepared {
    /// Program, arguments and environment.
    pub program: Program,
    /// User, groups and working folder.
    pub setup: ChildSetup,
    /// Its control group, where there is one.
    pub group: Option<cgroup::Group>,
    /// The user.
    pub user: User,
}

/// Resolves user, working folder, program and environment.
///
/// # Errors
/// An invalid request: unknown user, missing folder, zero bytes.
pub fn prepare(request: &ExecRequest, defaults: &Defaults) -> Result<Prepared, Refusal> {
    refuse_zero_bytes(request)?;
    let wanted = request.user.as_deref().unwrap_or("root");
    let user = find_user(wanted)?;
    let cwd = folder_for(request, &user)?;
    let mut program = program_for(request, &user, &defaults.env);
    if !lookup::skip_missing(&mut program.paths) {
        lookup::wait_for_system();
        program = program_for(request, &user, &defaults.env);
    }
    let setup = ChildSetup {
        uid: Uid::from_raw(user.uid),
        gid: Gid::from_raw(user.gid),
        groups: user.groups.iter().copied().map(Gid::from_raw).collect(),
        cwd,
        terminal: Terminal::None,
        namespaces: Namespaces::Inherited,
    };
    Ok(Prepared { program, setup, group: defaults.groups.group(), user })
}

/// Starts the command.
///
/// # Errors
/// As [`prepare`].
pub fn start(request: &ExecRequest, defaults: &Defaults) -> Result<Started, Refusal> {
    launch(prepare(request, defaults)?, request)
}

/// Starts a prepared command on a terminal or pipes, as the request has it.
///
/// # Errors
/// The streams cannot be made.
pub fn launch(prepared: Prepared, request: &ExecRequest) -> Result<Started, Refusal> {
    let Prepared { program, mut setup, group, user } = prepared;
    let io = match request.tty {
        Some(size) => terminal(size, &user),
        None => pipes(request.stdin),
    };
    let CommandIo { stdio, streams, terminal } = io.map_err(|error| {
        Refusal::new(500, format!("cannot set up the command's streams: {error}"))
    })?;
    setup.terminal = terminal;
    let cgroup = group.as_ref().map(AsFd::as_fd);
    match spawn(Launch { program, stdio, setup, cgroup }) {
        Ok(process) => Ok(Started::Running(Running { process, streams, group })),
        Err((stage, error)) => Ok(Started::Failed(not_started(stage, &error, request))),
    }
}

/// A user of the guest.
///
/// # Errors
/// An unknown name.
pub fn find_user(wanted: &str) -> Result<User, Refusal> {
    users::find(wanted, &read_users("/etc/passwd"), &read_users("/etc/group"))
        .map_err(|fault| Refusal::bad(fault.chain()))
}

/// An image may have no users at all.
fn read_users(path: &str) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::with_capacity(USER_FILE_USUAL);
    let read = File::open(path).and_then(|file| file.take(USER_FILE_MAX).read_to_end(&mut bytes));
    if read.is_err() {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A requested folder must exist; a missing home is replaced by `/`, as login(1) does.
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

/// The program with its arguments and environment; without any, the user's shell as login(1)
/// starts it.
fn program_for(
    request: &ExecRequest,
    user: &User,
    configured: &BTreeMap<String, String>,
) -> Program {
    let shell = login_shell(&user.shell);
    let variables = environment::of(request, user, shell, configured);
    let argv: Vec<ByteString> = match request.argv.as_slice() {
        [] => vec![format!("-{}", base_name(shell)).into()],
        argv => argv.to_vec(),
    };
    let name = request.argv.first().map_or(OsStr::new(shell), ByteString::as_os_str);
    let path = variables.get(OsStr::new("PATH")).map(OsString::as_os_str).unwrap_or_default();
    let paths = lookup::candidates(name, path);
    // Zero bytes were refused.
    let env = variables.iter().filter_map(|(name, value)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    });
    let argv = argv.iter().filter_map(|word| CString::new(word.as_bytes()).ok());
    Program { paths, argv: argv.collect(), env: env.collect() }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Shells of users without network login. The host's owner may run commands as them, as with su(1)
/// `-s`.
const NO_SHELLS: [&str; 5] = ["nologin", "false", "true", "sync", "halt"];

/// The user's shell, or `/bin/sh` where that is one of [`NO_SHELLS`] or missing.
fn login_shell(shell: &str) -> &str {
    let is_none = NO_SHELLS.contains(&base_name(shell));
    if !is_none && std::fs::metadata(shell).is_ok() {
        return shell;
    }
    if is_none || std::fs::metadata(FALLBACK_SHELL).is_ok() { FALLBACK_SHELL } else { shell }
}

/// Streams of a command: its own ends and those of the session.
struct CommandIo {
    stdio: [OwnedFd; 3],
    streams: Streams,
    terminal: Terminal,
}

fn pipes(wants_stdin: bool) -> io::Result<CommandIo> {
    let (stdin, ours) = if wants_stdin {
        let (theirs, ours) = wide_pipe()?;
        (theirs, Some(nonblocking(ours)?))
    } else {
        (OwnedFd::from(File::open("/dev/null")?), None)
    };
    let (stdout, their_stdout) = wide_pipe()?;
    let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let streams =
        Streams::Pipes { stdin: ours, stdout: nonblocking(stdout)?, stderr: nonblocking(stderr)? };
    let stdio = [stdin, their_stdout, their_stderr];
    Ok(CommandIo { stdio, streams, terminal: Terminal::None })
}

/// A pipe that holds [`PIPE_SIZE`] bytes, so that command and agent take turns less often. A user's
/// limit on pipe memory (pipe(7)) leaves it smaller.
fn wide_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let _ = fcntl_setpipe_size(&writer, PIPE_SIZE);
    Ok((reader, writer))
}

fn terminal(size: WindowSize, user: &User) -> io::Result<CommandIo> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    tcsetwinsize(&master, winsize(size))?;
    // The terminal is its user's: programs reopen /dev/tty and check its owner.
    rustix::fs::fchown(&slave, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(TTY_GROUP)))?;
    rustix::fs::fchmod(&slave, Mode::from_raw_mode(0o620))?;
    let stdio = [slave.try_clone()?, slave.try_clone()?, slave];
    let streams = Streams::Terminal(nonblocking(master)?);
    Ok(CommandIo { stdio, streams, terminal: Terminal::Controlling })
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

/// Exit codes as of a shell: 127 for a missing program, 126 for one that cannot be executed.
pub fn not_started(stage: SpawnStage, error: &io::Error, request: &ExecRequest) -> ExitStatus {
    let program = match request.argv.first() {
        Some(program) => format!("`{program}`"),
        None => "the user's shell".to_owned(),
    };
    let mut message = match stage {
        SpawnStage::Session => format!("cannot make a session for {program}: {error}"),
        SpawnStage::User => {
            let user = request.user.as_deref().unwrap_or("root");
            format!("cannot become user `{user}`: {error}")
        }
        SpawnStage::Folder => {
            let folder = request.cwd.as_ref().map(|cwd| format!(" `{cwd}`")).unwrap_or_default();
            format!("cannot enter the working folder{folder} as this user: {error}")
        }
        SpawnStage::Exec => format!("cannot run {program}: {error}"),
    };
    let is_missing = stage == SpawnStage::Exec && error.kind() == io::ErrorKind::NotFound;
    if is_missing && request.argv.is_empty() {
        message.push_str(" (an image without a shell runs only programs of its own)");
    }
    ExitStatus::NotStarted { code: if is_missing { 127 } else { CANNOT_EXECUTE }, message }
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

    fn program(argv: &[&str]) -> Program {
        program_for(&request(argv), &user(), &BTreeMap::new())
    }

    #[test]
    fn a_login_shell_has_a_dash() {
        let shell = program(&[]);
        assert_eq!(
            (shell.argv, shell.paths),
            (vec![c"-sh".to_owned()], vec![c"/bin/sh".to_owned()])
        );
    }

    #[test]
    fn a_command_has_a_path_and_an_environment() {
        let ls = program(&["ls", "-l"]);
        assert_eq!(ls.argv, [c"ls".to_owned(), c"-l".to_owned()]);
        assert_eq!(ls.paths[0].as_c_str(), c"/usr/local/sbin/ls");
        assert!(ls.env.contains(&c"USER=dev".to_owned()), "{:?}", ls.env);
    }

    #[test]
    fn users_with_nologin_get_a_shell() {
        for shell in ["/usr/sbin/nologin", "/bin/false", "/nowhere/zsh"] {
            assert_eq!(login_shell(shell), "/bin/sh", "{shell}");
        }
        assert_eq!(login_shell("/bin/sh"), "/bin/sh");
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
            not_started(stage, &kind.into(), &request(&["x"])).shell_code()
        };
        assert_eq!(code(SpawnStage::Exec, io::ErrorKind::NotFound), 127);
        assert_eq!(code(SpawnStage::Exec, io::ErrorKind::PermissionDenied), 126);
        assert_eq!(code(SpawnStage::Folder, io::ErrorKind::NotFound), 126);
    }
}
