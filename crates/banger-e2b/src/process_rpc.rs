//! The service `process.Process` of a sandbox.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use banger_client::{Client, Exec, ExecRequest, WindowSize};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::failure::{Code, Failure};
use crate::guest;
use crate::process::{self, Config, Process, SIGKILL, Selector, Started};
use crate::sandboxes::Sandbox;
use crate::wire::{self, Messages, Pace};

/// SIGTERM.
const SIGTERM: u8 = 15;
/// Size of a terminal without another one.
const DEFAULT_SIZE: (u32, u32) = (80, 24);
/// Most rows and columns.
const MAX_CELLS: u32 = 1000;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Start {
    process: Config,
    pty: Option<Pty>,
    tag: Option<String>,
    stdin: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Pty {
    size: Size,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(default)]
struct Size {
    cols: u32,
    rows: u32,
}

impl Size {
    fn window(self) -> WindowSize {
        let cells = |cells: u32, default: u32| {
            let cells = if cells == 0 { default } else { cells };
            u16::try_from(cells.min(MAX_CELLS)).unwrap_or(u16::MAX)
        };
        let (cols, rows) = DEFAULT_SIZE;
        WindowSize { cols: cells(self.cols, cols), rows: cells(self.rows, rows) }
    }
}

/// A request about a running command.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct About {
    process: Option<Selector>,
    input: Option<Input>,
    signal: Option<Value>,
    pty: Option<Pty>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Input {
    Stdin(String),
    Pty(String),
}

impl Input {
    fn bytes(self) -> Result<Vec<u8>, Failure> {
        let (Self::Stdin(text) | Self::Pty(text)) = self;
        BASE64_STANDARD.decode(text).map_err(|_| Failure::invalid("the input is not base64"))
    }
}

/// Answers a request of the service.
pub async fn answer(
    client: &Client,
    sandbox: &Arc<Sandbox>,
    method: &str,
    request: Request,
) -> Response {
    if matches!(method, "Start" | "Connect" | "StreamInput") {
        let answered = match method {
            "Start" => start(client, sandbox, request).await,
            "Connect" => connect(sandbox, request).await,
            _ => stream_input(sandbox, request).await,
        };
        return answered.unwrap_or_else(|failure| wire::failed(&failure));
    }
    match unary(sandbox, method, request).await {
        Ok(message) => wire::answer(&message),
        Err(failure) => failure.rpc(),
    }
}

async fn unary(sandbox: &Sandbox, method: &str, request: Request) -> Result<Value, Failure> {
    let about: About = wire::message(request).await?;
    if method == "List" {
        let processes: Vec<Value> =
            sandbox.processes.all().iter().map(|process| describe(process)).collect();
        return Ok(json!({ "processes": processes }));
    }
    let process = sandbox.processes.find(about.process)?;
    match method {
        "SendInput" => {
            let input = about.input.ok_or_else(|| Failure::invalid("there is no input"))?;
            process.send_input(input.bytes()?).await?;
        }
        "CloseStdin" => process.close_input().await,
        "SendSignal" => process.control.signal(signal(about.signal.as_ref())?),
        "Update" => {
            if let Some(pty) = about.pty {
                process.control.resize(pty.size.window());
            }
        }
        _ => return Err(unknown("process.Process", method)),
    }
    Ok(json!({}))
}

/// One message of [`stream_input`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Piece {
    Start(About),
    Data(About),
    Keepalive(serde::de::IgnoredAny),
}

/// Sends input as it arrives to the command that the first message names.
async fn stream_input(sandbox: &Sandbox, request: Request) -> Result<Response, Failure> {
    let mut pieces = Messages::new(request)?;
    let mut process = None;
    while let Some(piece) = pieces.next().await? {
        match wire::parse(&piece)? {
            Piece::Start(about) => process = Some(sandbox.processes.find(about.process)?),
            Piece::Data(about) => {
                let process: &Arc<Process> =
                    process.as_ref().ok_or_else(|| Failure::invalid("there is no command"))?;
                let input = about.input.ok_or_else(|| Failure::invalid("there is no input"))?;
                process.send_input(input.bytes()?).await?;
            }
            Piece::Keepalive(_) => {}
        }
    }
    Ok(wire::only(&json!({})))
}

/// The error about an RPC that does not exist here.
pub fn unknown(service: &str, method: &str) -> Failure {
    let method = banger_api::excerpt(method);
    Failure::new(Code::Unimplemented, format!("this server has no `{service}/{method}`"))
}

/// The number of a signal, which a client names or numbers.
fn signal(wanted: Option<&Value>) -> Result<u8, Failure> {
    match wanted {
        Some(Value::String(name)) if name == "SIGNAL_SIGKILL" => Ok(SIGKILL),
        Some(Value::String(name)) if name == "SIGNAL_SIGTERM" => Ok(SIGTERM),
        Some(Value::Number(number)) if number.as_u64() == Some(u64::from(SIGKILL)) => Ok(SIGKILL),
        Some(Value::Number(number)) if number.as_u64() == Some(u64::from(SIGTERM)) => Ok(SIGTERM),
        _ => Err(Failure::invalid("the signal is neither SIGTERM nor SIGKILL")),
    }
}

fn describe(process: &Process) -> Value {
    let mut value = json!({ "config": process.config, "pid": process.pid });
    if let (Some(tag), Some(object)) = (&process.tag, value.as_object_mut()) {
        object.insert("tag".into(), json!(tag));
    }
    value
}

async fn start(
    client: &Client,
    sandbox: &Arc<Sandbox>,
    request: Request,
) -> Result<Response, Failure> {
    let pace = Pace::of(request.headers())?;
    let user = guest::user(request.headers())?;
    let wanted: Start = wire::first(request).await?;
    if wanted.process.cmd.is_empty() {
        return Err(Failure::invalid("the request names no program"));
    }
    sandbox.processes.check()?;
    let size = wanted.pty.as_ref().map(|pty| pty.size.window());
    let request = exec_request(sandbox, &wanted, user, size);
    let session = guest::session(client, sandbox).await?;
    let exec =
        Exec::start(session, &request).await.map_err(|error| guest::failure(sandbox, error))?;
    let started = Started {
        config: wanted.process,
        tag: wanted.tag,
        is_terminal: size.is_some(),
        deadline: pace.deadline,
        exec,
    };
    let (process, output) = process::watch_over(sandbox.clone(), started);
    // The command is killed at its deadline, which ends the stream.
    let pace = Pace { deadline: None, ..pace };
    Ok(wire::stream(begin(&process), output, alive(), pace))
}

async fn connect(sandbox: &Sandbox, request: Request) -> Result<Response, Failure> {
    let pace = Pace::of(request.headers())?;
    let about: About = wire::first(request).await?;
    let process = sandbox.processes.find(about.process)?;
    let output = process.connect()?;
    Ok(wire::stream(begin(&process), output, alive(), pace))
}

fn begin(process: &Process) -> Value {
    json!({ "event": { "start": { "pid": process.pid } } })
}

fn alive() -> Value {
    json!({ "event": { "keepalive": {} } })
}

fn exec_request(
    sandbox: &Sandbox,
    wanted: &Start,
    user: Option<String>,
    size: Option<WindowSize>,
) -> ExecRequest {
    let Config { cmd, args, envs, cwd } = &wanted.process;
    let words = std::iter::once(cmd).chain(args);
    // Later entries replace earlier ones.
    let variables = sandbox.wanted.envs.iter().chain(envs);
    ExecRequest {
        argv: words.map(|word| word.as_str().into()).collect(),
        env: variables.map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect(),
        cwd: cwd.as_deref().filter(|cwd| !cwd.is_empty()).map(Into::into),
        user,
        tty: size,
        term: size.map(|_| "xterm-256color".to_owned()),
        // Absent from clients that are older than the field, which send input to every command.
        stdin: size.is_some() || wanted.stdin.unwrap_or(true),
        ..ExecRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_sdk_are_read() {
        let start: Start = serde_json::from_value(json!({
            "process": { "cmd": "/bin/bash", "args": ["-l", "-c", "id"], "envs": { "A": "1" } },
            "stdin": false,
        }))
        .unwrap();
        assert_eq!((start.process.args.len(), start.stdin), (3, Some(false)));
        let about: About = serde_json::from_value(json!({
            "process": { "pid": 3 }, "signal": "SIGNAL_SIGKILL", "input": { "stdin": "aGk=" },
        }))
        .unwrap();
        assert_eq!(signal(about.signal.as_ref()).unwrap(), SIGKILL);
        assert_eq!(about.input.unwrap().bytes().unwrap(), b"hi");
        assert!(signal(Some(&json!("SIGNAL_SIGHUP"))).is_err());
    }

    #[test]
    fn sizes_of_terminals_have_limits() {
        let window = |cols, rows| Size { cols, rows }.window();
        assert_eq!(window(0, 0), WindowSize { cols: 80, rows: 24 });
        assert_eq!(window(9999, 50), WindowSize { cols: 1000, rows: 50 });
    }
}
