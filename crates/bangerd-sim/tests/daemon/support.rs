//! A daemon in a home of its own, spoken to with nothing but a socket.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use banger_engine::sim::world::World;
use banger_engine::store::{Loaded, Store};
use banger_sys::unix_path::{NotListening, connect_until};
use serde_json::{Value, json};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    connect_until(socket, Instant::now() + PATIENCE, NotListening::Fail)
}

/// A folder for a daemon; removed at the end.
pub struct Home {
    _root: tempfile::TempDir,
    path: PathBuf,
}

impl Home {
    /// An empty one.
    pub fn new() -> Self {
        Self::at("home")
    }

    /// An empty one whose path ends with this.
    pub fn at(below: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(below);
        Self { _root: root, path }
    }

    /// One that looks like another.
    pub fn like(other: &Path) -> Self {
        let home = Self::new();
        copy(other, &home.path);
        home
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The program, with this home and nothing else of ours in its environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bangerd-sim"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BANGER") {
                command.env_remove(name);
            }
        }
        // Tests run side by side, and with a daemon of their developer.
        command.env("BANGER_HOME", &self.path).env("BANGER_DNS_PORT", "0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A daemon that is ready.
    pub fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    /// A daemon with more in its environment.
    pub fn start_with(&self, env: &[(&str, &str)]) -> Daemon {
        let mut command = self.command();
        command.envs(env.iter().copied());
        let mut daemon = Daemon::spawn(command, self.path.clone());
        let line = daemon.first_line();
        assert_eq!(line, "ready", "{}", daemon.complaint());
        daemon
    }

    /// A daemon that may abort at any time, even before it is ready.
    pub fn start_doomed(&self, point: &str) -> Daemon {
        self.start_doomed_with(point, &[])
    }

    /// The same, with more in its environment.
    pub fn start_doomed_with(&self, point: &str, env: &[(&str, &str)]) -> Daemon {
        let mut command = self.command();
        command.env("BANGER_ABORT_AT", point).envs(env.iter().copied());
        let mut daemon = Daemon::spawn(command, self.path.clone());
        let line = daemon.first_line();
        assert!(["ready", ""].contains(&line.as_str()), "{line}");
        daemon
    }

    /// What is on the simulated host.
    pub fn world(&self) -> World {
        bangerd_sim::world::read(&self.file("state/sim-world.json")).unwrap()
    }

    /// What is in the store; no daemon may run.
    pub fn stored(&self) -> Loaded {
        let store = banger_store::Store::open(&self.file("state/banger.db")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(store.load()).unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A running program; killed at the latest when the test ends.
pub struct Daemon {
    child: Child,
    stdout: BufReader<ChildStdout>,
    home: PathBuf,
}

impl Daemon {
    pub fn spawn(mut command: Command, home: PathBuf) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, home }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The line for whoever started it; empty when it ended without.
    pub fn first_line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Whether standard output was closed.
    pub fn is_at_end(&mut self) -> bool {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        rest.is_empty()
    }

    /// What it says on standard error, once it has ended.
    pub fn complaint(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let patience = PATIENCE + Duration::from_secs(10);
        self.ended_within(patience).expect("the daemon to end")
    }

    /// Waits for its end, but not for ever.
    pub fn ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// Ends it as a service manager would.
    pub fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.ended();
        assert!(status.success(), "{status:?}");
    }

    /// Ends it without a word.
    pub fn kill(mut self) {
        self.signal(rustix::process::Signal::KILL);
        assert_eq!(self.ended().signal(), Some(9));
    }

    pub fn socket(&self) -> PathBuf {
        self.home.join("run/bangerd.sock")
    }

    pub fn connect(&self) -> UnixStream {
        let stream = connect(&self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn connect_session(&self) -> UnixStream {
        let path = self.home.join("run/session.sock");
        let stream = connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes and reads until the daemon closes.
    pub fn raw(&self, request: &[u8]) -> Reply {
        self.try_raw(request).unwrap()
    }

    fn try_raw(&self, request: &[u8]) -> std::io::Result<Reply> {
        let mut stream = connect(&self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // A daemon that has heard enough may answer and close before all is sent.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if answer.is_empty() => Err(error),
            Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(Reply::parse(&answer)),
        }
    }

    fn request(method: &str, path: &str, body: Option<&str>) -> Vec<u8> {
        // HTTP/1.0 has no chunks, so that even a stream of events is plain text.
        let mut request = format!("{method} {path} HTTP/1.0\r\nhost: x\r\n");
        if let Some(body) = body {
            let length = body.len();
            request.push_str("content-type: application/json\r\n");
            request.push_str(&format!("content-length: {length}\r\n\r\n{body}"));
        } else {
            request.push_str("\r\n");
        }
        request.into_bytes()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.raw(&Self::request("GET", path, None))
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.raw(&Self::request("DELETE", path, None))
    }

    pub fn post(&self, path: &str, body: &str) -> Reply {
        self.raw(&Self::request("POST", path, Some(body)))
    }

    /// Asks a daemon that may abort meanwhile.
    pub fn post_to_doomed(&self, path: &str, body: &str) {
        let _ = self.try_raw(&Self::request("POST", path, Some(body)));
    }

    /// Follows an operation to its end; `seen` = last event known.
    pub fn events(&self, operation: &str, seen: u64) -> Vec<Value> {
        let path = format!("/v1/operations/{operation}/events");
        let head = format!("GET {path} HTTP/1.0\r\nhost: x\r\nlast-event-id: {seen}\r\n\r\n");
        let reply = self.raw(head.as_bytes());
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.headers["content-type"], "text/event-stream");
        let mut events = Vec::new();
        // Comments are sent on a stream that is idle for long, as on a busy host.
        let is_event =
            |block: &&str| !matches!(block.trim_start().chars().next(), None | Some(':'));
        for block in reply.body.split("\n\n").filter(is_event) {
            let (id, data) = block.trim_start_matches('\n').split_once('\n').unwrap();
            let event: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(id, format!("id: {}", event["seq"]));
            events.push(event);
        }
        events
    }

    /// Asks for something and follows it to a good end.
    pub fn done(&self, path: &str, body: &str) -> Value {
        let accepted = self.post(path, body).ok();
        if let Some(operation) = accepted["operation"].as_str() {
            let last = self.events(operation, 0).pop().unwrap();
            assert_eq!(last["event"], "succeeded", "{last}");
        }
        accepted
    }

    /// Makes a VM that is stopped.
    pub fn make(&self, name: &str) -> Value {
        self.done("/v1/vms", &json!({ "name": name, "no_start": true }).to_string())
    }

    /// Makes a VM that runs.
    pub fn run(&self, name: &str) -> Value {
        self.done("/v1/vms", &json!({ "name": name }).to_string())
    }

    /// State of a VM; `gone` where there is none.
    pub fn state(&self, name: &str) -> String {
        let reply = self.get(&format!("/v1/vms/{name}"));
        match reply.status {
            404 => "gone".into(),
            _ => reply.ok()["state"].as_str().unwrap().to_owned(),
        }
    }

    /// Waits for a VM to get into a state.
    pub fn wait_for(&self, name: &str, state: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.state(name);
            if now == state {
                return;
            }
            assert!(Instant::now() < deadline, "`{name}` is {now}, not {state}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already, most of the time.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().unwrap_or_default();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.unwrap_or_else(|| panic!("no HTTP: {text:?}")),
            headers: headers.map(|(k, v)| (k.to_lowercase(), v.to_owned())).collect(),
            body: body.to_owned(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// A good answer.
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.json()
    }

    /// A bad answer: its code and message.
    pub fn error(&self) -> (String, String) {
        assert!(self.status >= 400, "{self:?}");
        let error = self.json();
        let code = error["code"].as_str().unwrap().to_owned();
        (code, error["message"].as_str().unwrap().to_owned())
    }
}
