//! A temporary home folder for one daemon.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::leftovers::{leftovers, processes};
use crate::programs::program;

/// How long a command of a test may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// Number of the default image's recipe: the content of the file `fetched` in the shared cache, so
/// that a new recipe replaces the image of an old one.
const RECIPE: &str = include_str!("../../banger-image/src/images/recipe.number");
/// Tests run in parallel, and beside a developer's own daemon.
const ANY_PORT: &str = "0";

/// Options of a home.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines of the configuration file.
    pub config: String,
    /// Environment for CLI and daemon.
    pub env: Vec<(String, String)>,
    /// Appended to the path of the home.
    pub deep: Option<OsString>,
    /// User that the commands run as, if not the test's own user.
    pub run_as: Option<String>,
    /// The command line, if not that of the build.
    pub cli: Option<PathBuf>,
}

/// An isolated installation: configuration, state and sockets in a temporary folder; kernels and
/// images are shared with all other tests.
pub struct Home {
    folder: Option<TempDir>,
    path: PathBuf,
    env: Vec<(String, String)>,
    run_as: Option<String>,
    cli: PathBuf,
}

/// Result of a command.
#[derive(Debug)]
pub struct Run {
    /// Exit code; 128 + n for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let signal = || 128 + output.status.signal().unwrap_or_default();
        Self {
            code: output.status.code().unwrap_or_else(signal),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Folder of what all tests share, in this run and later ones: `BANGER_TEST_CACHE`.
///
/// # Panics
/// It cannot be made.
pub fn test_cache() -> PathBuf {
    let cache = match std::env::var_os("BANGER_TEST_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => std::env::temp_dir().join("banger-test-cache"),
    };
    must("test cache", fs::create_dir_all(&cache));
    cache
}

fn must<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

impl Home {
    /// A home with kernel and image; the first test that needs them fetches them.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    /// A home with these options.
    pub fn with(options: Options) -> Self {
        let home = Self::bare(options);
        home.share_images();
        home
    }

    /// A home without kernel and image.
    pub fn bare(options: Options) -> Self {
        let folder = must("temporary folder", TempDir::with_prefix("bgr-"));
        let path = match &options.deep {
            Some(deep) => folder.path().join(deep),
            None => folder.path().to_owned(),
        };
        must("home", fs::create_dir_all(path.join("config")));
        must("configuration", fs::write(path.join("config/config.toml"), &options.config));
        if let Some(user) = &options.run_as {
            must("chown", Command::new("chown").args(["-R", user]).arg(folder.path()).status());
        }
        let cli = options.cli.unwrap_or_else(|| program("banger"));
        Self { folder: Some(folder), path, env: options.env, run_as: options.run_as, cli }
    }

    /// Its path: the value of `BANGER_HOME`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Links kernels, images and caches to the ones shared by all tests.
    fn share_images(&self) {
        let cache = test_cache();
        let lock = must("test cache", fs::File::create(cache.join("lock")));
        must("test cache", lock.lock());
        for name in ["data", "cache"] {
            let shared = cache.join(name);
            must("test cache", fs::create_dir_all(&shared));
            must("test cache", std::os::unix::fs::symlink(&shared, self.path.join(name)));
        }
        let ready = cache.join("fetched");
        let recipe = fs::read_to_string(&ready).unwrap_or_default();
        if recipe != RECIPE {
            self.ok(&["kernel", "pull"]);
            self.ok(&["image", "pull", "debian"]);
            must("test cache", fs::write(&ready, RECIPE));
        }
    }

    /// The CLI, ready to be started in this home.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.run_as {
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(&self.cli);
                command
            }
            None => Command::new(&self.cli),
        };
        command
            .args(args)
            .env("BANGER_HOME", &self.path)
            .env_remove("BANGER_STATE_DIR")
            .env("BANGER_DNS_PORT", ANY_PORT)
            .env("NO_COLOR", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the CLI to its end.
    pub fn run(&self, args: &[&str]) -> Run {
        self.run_with_input(args, b"")
    }

    /// Runs the CLI to its end with this standard input.
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Run {
        let mut command = self.command(args);
        command.stdin(Stdio::piped());
        let mut child = must("banger", command.spawn());
        let mut stdin = child.stdin.take();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || {
            if let Some(stdin) = &mut stdin {
                // A command that does not read its input closes it, which is no failure of ours.
                let _ = stdin.write_all(&input);
            }
        });
        let pid = child.id();
        let (sender, ended) = std::sync::mpsc::channel();
        let shown = args.join(" ");
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let output = match ended.recv_timeout(COMMAND_TIMEOUT) {
            Ok(output) => must("banger", output),
            Err(_) => {
                kill(pid, "KILL");
                panic!("`banger {shown}` did not end within {COMMAND_TIMEOUT:?}");
            }
        };
        let _ = writer.join();
        output.into()
    }

    /// Runs the CLI and expects success; returns its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "banger {args:?} failed\n{}\n{}", run.out, run.err);
        run.out
    }

    /// Runs the CLI with `--json` and expects success; returns the document.
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["--json"]].concat());
        must(&text, serde_json::from_str(&text))
    }

    /// Starts the CLI and leaves it running.
    pub fn spawn(&self, args: &[&str]) -> Child {
        must("banger", self.command(args).spawn())
    }

    /// State of a VM as `vm list` shows it; `gone` if there is no such VM.
    pub fn state(&self, vm: &str) -> String {
        let list = self.json(&["vm", "list"]);
        let vms = list.as_array().cloned().unwrap_or_default();
        let found = vms.iter().find(|entry| entry["name"] == vm);
        found.and_then(|entry| entry["state"].as_str()).unwrap_or("gone").to_owned()
    }

    /// Waits until a VM is in a state.
    pub fn wait_state(&self, vm: &str, wanted: &str) {
        self.wait(&format!("`{vm}` to be {wanted}"), || self.state(vm) == wanted);
    }

    /// Waits until systemd in a guest has finished booting.
    pub fn wait_booted(&self, vm: &str) {
        let state = || self.run(&["exec", vm, "--", "systemctl", "is-system-running"]).out;
        self.wait_long(&format!("`{vm}` to have booted"), || {
            matches!(state().trim(), "running" | "degraded")
        });
    }

    /// Waits until a condition holds, at most a minute.
    pub fn wait(&self, what: &str, holds: impl FnMut() -> bool) {
        self.wait_within(Duration::from_secs(60), what, holds);
    }

    /// The same with a longer bound: for guests under nested emulation.
    pub fn wait_long(&self, what: &str, holds: impl FnMut() -> bool) {
        self.wait_within(Duration::from_secs(240), what, holds);
    }

    fn wait_within(&self, limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        while !holds() {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Process id of the daemon.
    pub fn daemon_pid(&self) -> u32 {
        let status = self.json(&["daemon", "status"]);
        must("pid", u32::try_from(status["pid"].as_u64().unwrap_or_default()))
    }

    /// Starts a daemon that aborts at a crash point; returns when it serves requests.
    ///
    /// The CLI starts the next daemon without the crash point, so recovery follows the abort.
    pub fn start_daemon_that_aborts_at(&self, point: &str) -> Child {
        let mut child = self.start_daemon_that_aborts_in_recovery(point);
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            must("bangerd", std::io::BufReader::new(stdout).read_line(&mut line));
        }
        assert_eq!(line, "ready\n");
        child
    }

    /// Starts a daemon that aborts at a crash point, and does not wait until it serves requests.
    pub fn start_daemon_that_aborts_in_recovery(&self, point: &str) -> Child {
        must(
            "bangerd-test",
            Command::new(program("bangerd-test"))
                .env("BANGER_HOME", &self.path)
                .env_remove("BANGER_STATE_DIR")
                .env("BANGER_DNS_PORT", ANY_PORT)
                .env("BANGER_ABORT_AT", point)
                .envs(self.env.iter().map(|(name, value)| (name, value)))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn(),
        )
    }

    /// Kills the daemon as a crash would and waits until it is gone.
    pub fn kill_daemon(&self) {
        let pid = self.daemon_pid();
        kill(pid, "KILL");
        wait_gone(pid);
    }

    /// Processes that belong to this home, as `process PID is left: COMMAND`.
    pub fn processes(&self) -> Vec<String> {
        processes(&self.path)
    }

    /// Stops the daemon and checks for leftovers: VMs, their files, processes.
    pub fn finish(mut self) {
        let list = self.json(&["vm", "list"]);
        assert_eq!(list, serde_json::json!([]), "VMs are left");
        self.ok(&["daemon", "stop"]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !leftovers(&self.path).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = leftovers(&self.path);
        assert!(left.is_empty(), "{left:#?}");
        self.folder = None;
    }
}

impl Home {
    /// The last lines of all logs, printed when a test fails.
    fn show_logs(&self) {
        let mut logs = vec![self.path.join("state/log/bangerd.log")];
        for folder in [self.path.join("state/vms"), "/var/lib/banger-root/vms".into()] {
            for vm in fs::read_dir(folder).into_iter().flatten().flatten() {
                logs.extend(
                    ["console.log", "vmm.log"].map(|name| vm.path().join("logs").join(name)),
                );
            }
        }
        for log in logs {
            let Ok(bytes) = fs::read(&log) else { continue };
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.len().saturating_sub(60);
            eprintln!("--- end of {}\n{}", log.display(), lines[last..].join("\n"));
        }
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    /// A failed test leaves nothing either: leftover processes are killed by process id.
    fn drop(&mut self) {
        if self.folder.is_none() {
            return;
        }
        if std::thread::panicking() {
            self.show_logs();
        }
        for _ in 0..20 {
            let left = processes(&self.path);
            if left.is_empty() {
                break;
            }
            for line in left {
                let pid = line.split(' ').nth(1).and_then(|pid| pid.parse().ok());
                if let Some(pid) = pid {
                    kill(pid, "KILL");
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Sends a signal by name with kill(1).
pub fn kill(pid: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    must("kill", status);
}

/// Waits until a process is gone or a zombie.
pub fn wait_gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let alive = || {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z'))
        })
    };
    while alive() {
        assert!(Instant::now() < deadline, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}
