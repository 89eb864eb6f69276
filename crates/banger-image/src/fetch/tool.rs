//! Runs programs of the host with progress and cancellation.
//!
//! A program runs in its own process group, with English messages and without standard input. Its
//! standard error is logged line by line while its standard output is read, so neither pipe fills
//! up. On cancellation the group gets SIGTERM, then SIGKILL.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::output::OutputTail;
use super::{FetchError, PathContext, Progress};
use crate::ca::CaSettings;
use crate::proxy::ProxySettings;

/// Interval at which a wait checks for cancellation: [`Progress`] has no event for it.
const LOOK: Duration = Duration::from_millis(100);
/// Time limit for a cancelled program to clean up.
const GRACE: Duration = Duration::from_secs(10);

/// Search path of programs, and what those that download use.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    search_path: OsString,
    proxy: ProxySettings,
    ca: CaSettings,
}

/// Option of apt for the file with the certificates of authorities (apt-transport-https(1)).
pub const CA_INFO: &str = "Acquire::https::CaInfo";
/// Folders of administration programs, which are not in an ordinary user's `PATH`.
const SYSTEM_FOLDERS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

impl Tools {
    /// Searches these folders (syntax of `PATH`), then the system's.
    pub fn new(path: impl AsRef<OsStr>) -> Self {
        let mut folders: Vec<PathBuf> =
            std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
        for system in SYSTEM_FOLDERS.map(PathBuf::from) {
            if !folders.contains(&system) {
                folders.push(system);
            }
        }
        let folders: Vec<&OsStr> = folders.iter().map(|folder| folder.as_os_str()).collect();
        Self::only(folders.join(OsStr::new(":")))
    }

    /// With these proxies for programs that download. Without any, programs inherit the daemon's
    /// variables.
    #[must_use]
    pub fn with_proxy(self, proxy: ProxySettings) -> Self {
        Self { proxy, ..self }
    }

    /// With certificates that programs that download trust besides the host's.
    #[must_use]
    pub fn with_ca(self, ca: CaSettings) -> Self {
        Self { ca, ..self }
    }

    /// Writes the host's certificates and those of `[ca]` into a file in `folder` and returns its
    /// path, the value of [`CA_INFO`]; none without `[ca]`. Readable for all, since apt may run as
    /// another user.
    ///
    /// # Errors
    /// A file of `[ca]` cannot be used; write(2).
    pub fn apt_trust(&self, folder: &Path) -> Result<Option<PathBuf>, FetchError> {
        let Some(bundle) = self.ca.with_hosts()? else { return Ok(None) };
        let path = folder.join("ca-certificates.crt");
        std::fs::write(&path, bundle).at("write", &path)?;
        let permissions = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, permissions).at("open to others", &path)?;
        Ok(Some(path))
    }

    /// Searches these folders only.
    pub fn only(path: impl AsRef<OsStr>) -> Self {
        Self { search_path: path.as_ref().to_owned(), ..Self::default() }
    }

    /// Path of a program, if it is installed.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.search_path).map(|folder| folder.join(name)).find(|path| {
            rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
        })
    }

    /// The folders, in the syntax of `PATH`.
    pub fn search_path(&self) -> &OsStr {
        &self.search_path
    }

    /// A command for a program of this Debian package.
    ///
    /// # Errors
    /// [`FetchError::MissingTool`].
    pub fn command(&self, tool: &'static str, package: &'static str) -> Result<Tool, FetchError> {
        let path = self.find(tool).ok_or(FetchError::MissingTool { tool, package })?;
        let mut command = Command::new(path);
        command.env("PATH", &self.search_path).env("LC_ALL", "C").env_remove("LANGUAGE");
        let variables = self.proxy.variables();
        if !variables.is_empty() {
            ProxySettings::names().for_each(|name| {
                command.env_remove(name);
            });
            command.envs(variables);
        }
        command.stdin(Stdio::null());
        Ok(Tool { name: tool, command })
    }
}

/// A program to run.
pub struct Tool {
    name: &'static str,
    /// The command, for adding arguments, environment and folder.
    pub command: Command,
}

/// Called for each line of a program's standard error.
pub type OnLine<'a> = &'a dyn Fn(&str);

impl Tool {
    /// A program by path; `name` is used in errors.
    pub fn of(name: &'static str, mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self { name, command }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = I>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets the name for errors, if a wrapper runs the actual program.
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Starts the program; its standard output is read from the result.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start<'a>(self, progress: &'a dyn Progress) -> Result<Running<'a>, FetchError> {
        self.start_with(progress, None)
    }

    /// As [`Self::start`], with a callback for standard error.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_with<'a>(
        mut self,
        progress: &'a dyn Progress,
        on_line: Option<OnLine<'a>>,
    ) -> Result<Running<'a>, FetchError> {
        progress.go_on()?;
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let program = PathBuf::from(self.command.get_program());
        let child = self.command.spawn().at("start", &program)?;
        Ok(Running { name: self.name, child, output: OutputTail::default(), progress, on_line })
    }

    /// Runs the program and returns its standard output.
    ///
    /// # Errors
    /// The program failed; more than `limit_bytes` of output; cancellation.
    pub fn output(self, limit_bytes: u64, progress: &dyn Progress) -> Result<Vec<u8>, FetchError> {
        let mut running = self.start(progress)?;
        let mut output = Vec::new();
        let program = PathBuf::from(running.name);
        (&mut running).take(limit_bytes).read_to_end(&mut output).at("read from", &program)?;
        running.finish()?;
        Ok(output)
    }

    /// Runs the program and discards its standard output.
    ///
    /// # Errors
    /// The program failed; cancellation.
    pub fn run(self, progress: &dyn Progress) -> Result<(), FetchError> {
        self.start(progress)?.finish()
    }

    /// As [`Self::run`], for a program of which these exit codes tell of a success too.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_with(self, progress: &dyn Progress, success: &[i32]) -> Result<(), FetchError> {
        self.start(progress)?.finish_with(success)
    }
}

/// A running program, killed if it is dropped before its end.
pub struct Running<'a> {
    name: &'static str,
    child: Child,
    output: OutputTail,
    progress: &'a dyn Progress,
    on_line: Option<OnLine<'a>>,
}

impl Read for Running<'_> {
    /// Reads standard output, and handles standard error meanwhile.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.progress.cancelled() {
                return Err(FetchError::Cancelled.into_io());
            }
            let Some(out) = &mut self.child.stdout else { return Ok(0) };
            let (out_ready, err_ready) = ready(out, self.child.stderr.as_ref())?;
            if err_ready {
                self.listen()?;
            }
            if out_ready {
                match out_read(&mut self.child, buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => return result,
                }
            }
        }
    }
}

fn out_read(child: &mut Child, buffer: &mut [u8]) -> io::Result<usize> {
    child.stdout.as_mut().map_or(Ok(0), |out| out.read(buffer))
}

/// Waits up to [`LOOK`] until one of the pipes is readable or closed.
fn ready(out: &impl AsFd, err: Option<&impl AsFd>) -> io::Result<(bool, bool)> {
    let mut fds = vec![PollFd::new(out, PollFlags::IN)];
    fds.extend(err.map(|err| PollFd::new(err, PollFlags::IN)));
    wait(&mut fds)?;
    let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
    Ok((is_ready(0), is_ready(1)))
}

fn wait(fds: &mut [PollFd<'_>]) -> io::Result<()> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Running<'_> {
    /// Reads standard error; closes it at its end.
    fn listen(&mut self) -> io::Result<()> {
        let Some(err) = &mut self.child.stderr else { return Ok(()) };
        let mut buffer = [0; 4096];
        let count = match err.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        };
        if count == 0 {
            self.child.stderr = None;
        }
        for line in self.output.push(&buffer[..count]) {
            self.progress.log(&line);
            if let Some(on_line) = self.on_line {
                on_line(&line);
            }
        }
        Ok(())
    }

    /// Reads both pipes to their end, waits for the program and checks its exit status.
    ///
    /// # Errors
    /// [`FetchError::ToolFailed`] with its last output; a full disk; cancellation.
    pub fn finish(self) -> Result<(), FetchError> {
        self.finish_with(&[])
    }

    fn finish_with(mut self, success: &[i32]) -> Result<(), FetchError> {
        let program = PathBuf::from(self.name);
        io::copy(&mut self, &mut io::sink()).at("read from", &program)?;
        self.child.stdout = None;
        while self.child.stderr.is_some() {
            self.progress.go_on()?;
            if let Some(err) = &self.child.stderr {
                let mut fds = [PollFd::new(err, PollFlags::IN)];
                wait(&mut fds).at("wait for", &program)?;
                if fds[0].revents().is_empty() {
                    continue;
                }
            }
            self.listen().at("read from", &program)?;
        }
        let status = self.wait().at("wait for", &program)?;
        if status.success() || status.code().is_some_and(|code| success.contains(&code)) {
            return Ok(());
        }
        // ENOSPC in the words of the C library, in the locale that all programs are given.
        if self.output.lines.iter().any(|line| line.contains("No space left on device")) {
            return Err(FetchError::DiskFull { doing: "run", path: program });
        }
        Err(FetchError::ToolFailed {
            tool: self.name,
            status: status_text(status),
            output: std::mem::take(&mut self.output.lines).into(),
        })
    }

    /// Waits for a program that has closed its pipes; checks for cancellation.
    fn wait(&mut self) -> io::Result<ExitStatus> {
        let Some(pidfd) = self.pidfd() else { return self.child.wait() };
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if self.progress.cancelled() {
                return Err(FetchError::Cancelled.into_io());
            }
            wait(&mut [PollFd::new(&pidfd, PollFlags::IN)])?;
        }
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    fn pidfd(&self) -> Option<std::os::fd::OwnedFd> {
        pidfd_open(self.pid()?, PidfdFlags::empty()).ok()
    }

    /// Sends SIGTERM to the group, and SIGKILL after the time limit.
    fn end(&mut self) {
        let (Some(pid), Some(pidfd)) = (self.pid(), self.pidfd()) else { return };
        // Closing the pipes also ends a program that only writes.
        self.child.stdout = None;
        self.child.stderr = None;
        let _ = kill_process_group(pid, Signal::TERM);
        let grace = Timespec { tv_sec: GRACE.as_secs() as i64, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&grace));
        // The leader is not reaped yet, so the group id is not reused.
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.end();
        }
    }
}

fn status_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown end".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::NoProgress;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn shell(script: &str) -> Tool {
        Tools::new("").command("sh", "dash").unwrap().args(["-c", script])
    }

    #[test]
    fn both_streams_may_be_large_and_the_tail_is_kept() {
        let script = "for i in 1 2 3; do head -c 300000 /dev/zero | tr '\\0' '\\n' >&2; \
                      head -c 300000 /dev/zero; done; echo last words >&2; exit 3";
        let mut running = shell(script).start(&NoProgress).unwrap();
        let mut output = Vec::new();
        running.read_to_end(&mut output).unwrap();
        assert_eq!(output.len(), 900_000);
        let error = running.finish().unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed (exit code 3): last words");
    }

    #[test]
    fn programs_get_the_proxies() {
        let http = Some("http://me:secret@proxy:1".parse().unwrap());
        let proxy = ProxySettings { http, ..ProxySettings::default() };
        let tool = Tools::new("").with_proxy(proxy).command("env", "coreutils").unwrap();
        let output = String::from_utf8(tool.output(1 << 20, &NoProgress).unwrap()).unwrap();
        let lines: Vec<&str> = output.lines().filter(|line| line.contains("_proxy=")).collect();
        let no_proxy = "no_proxy=localhost,127.0.0.1,::1,.vm";
        assert_eq!(lines, ["http_proxy=http://me:secret@proxy:1", no_proxy]);
    }

    #[test]
    fn a_signal_and_a_missing_program_have_their_own_words() {
        let error = shell("kill -9 $$").run(&NoProgress).unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed (signal 9)");
        let missing = Tools::new("/nowhere").command("no-such-program-xyz", "xyz").err().unwrap();
        assert!(matches!(missing, FetchError::MissingTool { package: "xyz", .. }));
    }

    #[test]
    fn output_lines_are_reported_without_control_characters() {
        let heard = std::cell::RefCell::new(Vec::new());
        let listen = |line: &str| heard.borrow_mut().push(line.to_owned());
        let tool = shell("printf 'I: one\\r\\033[2Jtwo\\n' >&2; printf tail >&2");
        tool.start_with(&NoProgress, Some(&listen)).unwrap().finish().unwrap();
        assert_eq!(*heard.borrow(), ["I: one", "[2Jtwo", "tail"]);
    }

    struct Flag(AtomicBool);
    impl Progress for Flag {
        fn stage(&self, _: &str) {}
        fn bytes(&self, _: u64, _: Option<u64>) {}
        fn log(&self, line: &str) {
            if line == "ready" {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn a_cancelled_program_is_ended_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; echo ready >&2; wait", path.display());
        let flag = Flag(AtomicBool::new(false));
        let error = shell(&script).run(&flag).unwrap_err();
        assert!(matches!(error, FetchError::Cancelled), "{error}");
        let pid = std::fs::read_to_string(&path).unwrap().trim().parse().ok();
        // The process is gone, or its end is an event on the descriptor.
        if let Ok(pidfd) = pidfd_open(pid.and_then(Pid::from_raw).unwrap(), PidfdFlags::empty()) {
            let timeout = Timespec { tv_sec: 5, tv_nsec: 0 };
            let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).unwrap();
            assert_eq!(ended, 1, "the child lives");
        }
    }

    #[test]
    fn output_stops_at_its_limit() {
        let output = shell("head -c 5000 /dev/zero").output(100, &NoProgress).unwrap();
        assert_eq!(output.len(), 100);
    }
}
