//! The daemon's side of the shim, with shell scripts as VMM and companion.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use banger_shim::{
    ByteString, CappedLog, Child as ChildConfig, Companion, EXIT_FILE, ExitStory, ProcRef,
    STATE_FILE, ShimConfig, ShimEvent, ShimState, View,
};
use banger_sys::proc::{self, Waited, wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

/// The companion's socket.
pub const SOCKET: &str = "ready.sock";
/// Where the VMM finds a connection to the companion.
pub const CONNECTION: i32 = 8;
/// The running companion writes to it.
pub const COMPANION_UP: &str = "companion-up";
/// The running VMM writes to it.
pub const VMM_UP: &str = "vmm-up";
/// A VMM or companion that does not exit.
pub const STAY: &str = "exec sleep 600";

/// Name of the folder of all files: no UTF-8, and characters that are special somewhere.
const HOME: &[u8] = b"a,b \xff\n'\"$(id)%\\";

/// The folders of one VM.
pub struct Vm {
    _folder: tempfile::TempDir,
    home: PathBuf,
    pub run: PathBuf,
    pub state: PathBuf,
    pub logs: PathBuf,
}

impl Vm {
    pub fn new() -> Self {
        Self::with_run("run")
    }

    /// With this run folder, relative to the others.
    pub fn with_run(run: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join(OsStr::from_bytes(HOME));
        let at = |name: &str| home.join(name);
        let (run, state, logs) = (at(run), at("state"), at("logs"));
        for path in [&run, &state, &logs] {
            fs::create_dir_all(path).unwrap();
        }
        for name in [COMPANION_UP, VMM_UP] {
            let mode = Mode::from_bits_truncate(0o666);
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, run.join(name), fifo, mode, 0).unwrap();
        }
        Self { _folder: folder, home, run, state, logs }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    pub fn console(&self) -> PathBuf {
        self.logs.join("console.log")
    }

    /// What the only run wrote to the console log: all but the line that marks its beginning.
    pub fn console_output(&self) -> String {
        let log = std::fs::read_to_string(self.console()).unwrap();
        let (first, output) = log.split_once('\n').unwrap();
        assert!(first.starts_with("--- VM started "), "{first}");
        output.to_owned()
    }

    /// A VMM and no companion.
    pub fn alone(&self, vmm: &str) -> ShimConfig {
        let log = |path: PathBuf| CappedLog { path: bytes(&path), cap_bytes: 1 << 20 };
        ShimConfig {
            state_dir: bytes(&self.state),
            companion: None,
            vmm: script(vmm),
            console: log(self.console()),
            vmm_log: log(self.logs.join("vmm.log")),
            qmp_fd: None,
            passed: Vec::new(),
            jailed: None,
            reader: None,
        }
    }

    /// A VMM, and a companion that is ready once [`Vm::companion_is_up`] returns.
    pub fn both(&self, vmm: &str, companion: &str) -> ShimConfig {
        let companion = Companion {
            child: script(&format!("echo > {COMPANION_UP}; {companion}")),
            ready_socket: SOCKET.into(),
            ready_timeout_ms: 30_000,
            connection_fd: CONNECTION,
        };
        ShimConfig { companion: Some(companion), ..self.alone(vmm) }
    }

    /// Waits until the companion runs, and creates its socket.
    pub fn companion_is_up(&self) -> UnixListener {
        heard(&self.run.join(COMPANION_UP));
        banger_sys::unix_path::bind(&self.run.join(SOCKET)).unwrap()
    }

    /// Waits until the VMM has written to [`VMM_UP`].
    pub fn vmm_is_up(&self) -> String {
        heard(&self.run.join(VMM_UP))
    }

    /// Starts a shim that waits at its gate.
    pub fn shim(&self) -> Shim {
        let mut child = Command::new(env!("CARGO_BIN_EXE_banger-shim"))
            .current_dir(&self.run)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (gate, status) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Shim { child, gate, status }
    }

    /// Starts a shim and opens its gate.
    pub fn open(&self, config: &ShimConfig) -> Shim {
        let mut shim = self.shim();
        shim.open(config);
        shim
    }

    /// Starts both and waits until they are running.
    pub fn started(&self, config: &ShimConfig) -> (Shim, ShimState) {
        let mut shim = self.open(config);
        let _listener = config.companion.is_some().then(|| self.companion_is_up());
        match shim.event() {
            Some(ShimEvent::Started(state)) => (shim, state),
            other => panic!("not started: {other:?}"),
        }
    }

    pub fn story(&self) -> ExitStory {
        let path = self.state.join(EXIT_FILE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    pub fn recorded(&self) -> ShimState {
        let path = self.state.join(STATE_FILE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// Runs a VMM to its end.
    pub fn run_to_end(&self, config: &ShimConfig) -> ExitStory {
        let mut shim = self.open(config);
        let _listener = config.companion.is_some().then(|| self.companion_is_up());
        assert!(shim.wait().success());
        self.story()
    }
}

pub fn bytes(path: &Path) -> ByteString {
    path.into()
}

pub fn script(text: &str) -> ChildConfig {
    ChildConfig {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), text.into()],
        run_as: None,
        group: None,
        files: Vec::new(),
        view: Some(View { read: Vec::new(), write: vec![".".into()] }),
    }
}

/// Reads from a FIFO; panics if nothing is written.
pub fn heard(fifo: &Path) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(fifo, flags, Mode::empty()).unwrap();
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    let mut fds = [PollFd::new(&opened, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&limit)), Ok(1), "nothing was written to `{}`", fifo.display());
    fcntl_setfl(&opened, OFlags::RDONLY).unwrap();
    std::io::read_to_string(fs::File::from(opened)).unwrap()
}

/// A shim; killed when dropped.
pub struct Shim {
    pub child: Child,
    pub gate: Option<ChildStdin>,
    pub status: Option<BufReader<ChildStdout>>,
}

impl Shim {
    pub fn open(&mut self, config: &ShimConfig) {
        let mut line = serde_json::to_vec(config).unwrap();
        line.push(b'\n');
        self.gate.take().unwrap().write_all(&line).unwrap();
    }

    /// The next line of the status pipe; `None` at its end.
    pub fn event(&mut self) -> Option<ShimEvent> {
        let mut line = String::new();
        self.status.as_mut().unwrap().read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// The failed step and its error.
    pub fn failure(&mut self) -> (String, String) {
        match self.event() {
            Some(ShimEvent::Failed { step, message }) => (step, message),
            other => panic!("no failure: {other:?}"),
        }
    }

    pub fn signal(&self, signal: Signal) {
        signal_pid(self.child.id(), signal);
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // Its children are killed with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal_pid(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

pub fn is_alive(process: ProcRef) -> bool {
    proc::is_alive(process)
}

/// Waits until a process has ended.
pub fn gone(process: ProcRef) {
    if let Some(pidfd) = proc::open(process).unwrap() {
        assert_eq!(wait(&pidfd, Duration::from_secs(20)).unwrap(), Waited::Ended);
    }
}
