//! A fake daemon with given answers, which can be late, truncated or malformed.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use banger_testkit::{Run, program};
use serde_json::{Value, json};

/// Name of the VM in answers.
pub const VM: &str = "aaaa00000001";
/// Name of the operation in answers.
pub const OPERATION: &str = "op-abc123";

/// A request of the CLI.
pub struct Request {
    /// `GET /v1/vms`.
    pub line: String,
    /// `Last-Event-ID`.
    pub last_event: Option<u64>,
}

/// A home folder with a socket on which the test listens.
pub struct FakeDaemon {
    home: tempfile::TempDir,
}

impl FakeDaemon {
    /// Answers the question for its status itself, and everything else with `answer`.
    pub fn new(answer: impl Fn(&Request, &mut UnixStream) + Send + Sync + 'static) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("run")).unwrap();
        let listener = UnixListener::bind(home.path().join("run/bangerd.sock")).unwrap();
        let answer = Arc::new(answer);
        // Ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let answer = answer.clone();
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    match request.line.as_str() {
                        "GET /v1/daemon" => reply(&mut stream, 200, &status()),
                        _ => answer(&request, &mut stream),
                    }
                });
            }
        });
        Self { home }
    }

    /// Answers each later session request: the VM does not exist.
    pub fn refuse_sessions(&self) {
        let listener = UnixListener::bind(self.home.path().join("run/session.sock")).unwrap();
        // Ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                BufReader::new(&stream).read_line(&mut String::new()).unwrap();
                let answer = json!({"answer": "refused", "error": missing()});
                stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
            }
        });
    }

    /// The CLI; it has no daemon to start.
    pub fn spawn(&self, line: &str) -> Child {
        let mut command = Command::new(program("banger"));
        command.args(line.split(' ')).env("BANGER_HOME", self.home.path()).env("NO_COLOR", "1");
        command.env("BANGERD", "/nonexistent/bangerd").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs the CLI to its end.
    pub fn run(&self, line: &str) -> Run {
        self.spawn(line).wait_with_output().unwrap().into()
    }
}

fn status() -> Value {
    json!({
        "pid": std::process::id(), "version": "0", "build_id": "another", "socket": "", "log": "",
        "uptime_s": 1, "vms": 0, "operations": 0, "simulated": true,
        "defaults": {"vcpus": 1, "memory_mib": 512, "root_bytes": 1, "work_bytes": 1},
    })
}

fn read(stream: &UnixStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let line = first.rsplit_once(' ')?.0.to_owned();
    let (mut length, mut last_event) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_lowercase();
        match header.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(("last-event-id", value)) => last_event = value.parse().ok(),
            Some(_) => {}
            None => break,
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some(Request { line, last_event })
}

/// Answers with a document.
pub fn reply(stream: &mut UnixStream, status: u16, body: &Value) {
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
    // A client that left does not want to know.
    let _ = stream.write_all((head + &body).as_bytes());
}

/// Begins a stream of events.
pub fn begin_events(stream: &mut UnixStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let _ = stream.write_all(head.as_bytes());
}

/// Sends one event.
pub fn event(stream: &mut UnixStream, seq: u64, at_ms: u64, what: Value) {
    let mut event = json!({"seq": seq, "at_ms": at_ms});
    event.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
    let _ = stream.write_all(format!("id: {seq}\ndata: {event}\n\n").as_bytes());
}

/// The answer to a request that began the operation.
pub fn accepted() -> Value {
    json!({"operation": OPERATION, "vm": {"id": VM, "name": "web"}})
}

/// The answer to a request for an object that does not exist.
pub fn missing() -> Value {
    json!({"code": "not_found", "message": "there is nothing"})
}
