//! A fake Firecracker with a state of its own, which checks the order and the fields of requests,
//! and variants of it that answer incorrectly.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::description::{self, Body};

/// How a Firecracker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behavior {
    /// Follows the API.
    Correct,
    /// Refuses every request with a message.
    Refuses,
    /// Fails with an HTML page instead of a message.
    FailsWithHtml,
    /// Sends less than the announced length.
    Truncates,
    /// Sends the greeting of an SSH server.
    SpeaksSsh,
    /// Sends invalid JSON.
    SendsInvalidJson,
    /// Sends a body beyond the client's limit.
    Endless,
    /// Closes the connection without an answer.
    Disconnects,
    /// Does not answer.
    Silent,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NotStarted,
    Running,
    Paused,
}

/// Its configuration and state.
struct World {
    state: State,
    has_kernel: bool,
    configured: bool,
    drives: Vec<String>,
}

type Reply = Result<Value, String>;

impl World {
    fn new() -> Self {
        Self { state: State::NotStarted, has_kernel: false, configured: false, drives: Vec::new() }
    }

    fn must_be(&self, states: &[State]) -> Result<(), String> {
        if states.contains(&self.state) {
            return Ok(());
        }
        Err(format!("not supported while the microVM is {:?}", self.state))
    }

    fn answer(&mut self, request: &Received) -> Reply {
        let place = description::find(&request.method, &request.path);
        let (template, body) = place.ok_or("Invalid request method and/or path")?;
        check_fields(&request.body, &body)?;
        let running = &[State::Running, State::Paused];
        match (request.method.as_str(), template) {
            ("GET", "/") => {
                let state = match self.state {
                    State::NotStarted => "Not started",
                    State::Running => "Running",
                    State::Paused => "Paused",
                };
                return Ok(json!({
                    "app_name": "Firecracker", "id": "0123456789ab", "state": state,
                    "vmm_version": "1.12.1",
                }));
            }
            ("GET", "/version") => return Ok(json!({"firecracker_version": "1.12.1"})),
            ("PUT", "/actions") => return self.act(request.body["action_type"].as_str()),
            ("PATCH", "/balloon") => self.must_be(running)?,
            ("PATCH", "/vm") => {
                self.must_be(running)?;
                let paused = request.body["state"] == "Paused";
                self.state = if paused { State::Paused } else { State::Running };
            }
            ("PUT", "/snapshot/create") => self.must_be(&[State::Paused])?,
            ("PUT", "/snapshot/load") => {
                self.must_be(&[State::NotStarted])?;
                if self.configured {
                    return Err("a snapshot is loaded before anything is configured".into());
                }
                let resumes = request.body["resume_vm"] == true;
                self.state = if resumes { State::Running } else { State::Paused };
            }
            // Log and metrics are the VMM's, not the guest's.
            ("PUT", "/logger" | "/metrics") => self.must_be(&[State::NotStarted])?,
            ("PUT", _) => {
                self.must_be(&[State::NotStarted])?;
                self.configured = true;
                self.has_kernel |= template == "/boot-source";
                if template.starts_with("/drives") {
                    self.add_drive(request)?;
                }
            }
            _ => return Err("nobody asks for this here".into()),
        }
        Ok(Value::Null)
    }

    fn act(&mut self, action: Option<&str>) -> Reply {
        match action {
            Some("InstanceStart") => {
                self.must_be(&[State::NotStarted])?;
                if !self.has_kernel {
                    return Err("Cannot start microvm without kernel configuration.".into());
                }
                self.state = State::Running;
            }
            Some("SendCtrlAltDel" | "FlushMetrics") => {
                self.must_be(&[State::Running, State::Paused])?;
            }
            _ => return Err("unknown action".into()),
        }
        Ok(Value::Null)
    }

    fn add_drive(&mut self, request: &Received) -> Result<(), String> {
        let id = request.path.rsplit('/').next().unwrap_or_default();
        if request.body["drive_id"] != id {
            return Err("The id from the path does not match the id from the body!".into());
        }
        self.drives.push(id.to_owned());
        Ok(())
    }
}

/// Refuses fields that there are not, and bodies that lack one.
fn check_fields(body: &Value, expected: &Body) -> Result<(), String> {
    let Body::Fields { required, optional } = expected else {
        return if body.is_null() { Ok(()) } else { Err("no body was expected".into()) };
    };
    let fields = body.as_object().ok_or("an object was expected")?;
    if let Some(missing) = required.iter().find(|name| !fields.contains_key(**name)) {
        return Err(format!("missing field `{missing}`"));
    }
    let known = |name: &str| required.contains(&name) || optional.contains(&name);
    match fields.keys().find(|name| !known(name)) {
        Some(unknown) => Err(format!("unknown field `{unknown}`")),
        None => Ok(()),
    }
}

/// Reads a request; nothing at the end of the connection.
fn read(stream: &mut BufReader<UnixStream>) -> Option<Received> {
    let mut line = String::new();
    let mut next = |stream: &mut BufReader<UnixStream>| {
        line.clear();
        (stream.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    };
    let first = next(stream)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    assert_eq!(words.next(), Some("HTTP/1.1"));
    let mut headers = BTreeMap::new();
    loop {
        let line = next(stream)?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Some(Received { method, path, headers, body })
}

fn with_body(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn answer(reply: &Reply) -> String {
    match reply {
        Ok(Value::Null) => {
            "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n".into()
        }
        Ok(document) => with_body("200", &document.to_string()),
        Err(fault) => with_body("400", &json!({"fault_message": fault}).to_string()),
    }
}

fn serve(behavior: Behavior, stream: UnixStream) -> Vec<Received> {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let (mut world, mut received) = (World::new(), Vec::new());
    while let Some(request) = read(&mut reader) {
        let text = match behavior {
            Behavior::Correct => answer(&world.answer(&request)),
            Behavior::Refuses => answer(&Err("no\u{1b}[31m\nway".into())),
            Behavior::FailsWithHtml => with_body("500", "<html>"),
            Behavior::Truncates => {
                with_body("200", "{\"id\":\"0123456789ab\"}").replace("ab\"}", "")
            }
            Behavior::SpeaksSsh => "SSH-2.0-OpenSSH_9.2\r\n".into(),
            Behavior::SendsInvalidJson => with_body("200", "[1, 2"),
            Behavior::Endless => with_body("200", &" ".repeat(1 << 20)),
            Behavior::Disconnects | Behavior::Silent => String::new(),
        };
        received.push(request);
        // Whoever has received enough hangs up.
        let _ = writer.write_all(text.as_bytes());
        if matches!(behavior, Behavior::Truncates | Behavior::SpeaksSsh | Behavior::Disconnects) {
            break;
        }
    }
    received
}

/// A Firecracker at the other end of a connection; returns the requests at the end.
pub fn firecracker(behavior: Behavior) -> (OwnedFd, JoinHandle<Vec<Received>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours.into(), std::thread::spawn(move || serve(behavior, theirs)))
}
