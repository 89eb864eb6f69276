//! The terminal in the browser: a shell of a guest on a WebSocket.
//!
//! Binary messages are the bytes of the terminal in both directions. Text messages are JSON: from
//! the browser [`Request`], to the browser [`Report`].
//!
//! The browser acknowledges output when its terminal has processed it. The server has at most
//! [`WINDOW`] bytes under way and then stops to read, so that a program that writes faster than the
//! browser draws waits in the guest, and neither this process nor the browser fills up. Input never
//! waits for output: both would wait for each other.

use askama::Template;
use axum::Extension;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use banger_api::boot::{Wait, WaitFor};
use banger_api::{ApiError, ErrorCode};
use banger_client::{Control, Exec, ExecInput, ExecOutput, ExecRequest, Output, WindowSize};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tokio::sync::mpsc;

use crate::page::{Answer, Chrome, Section, render};
use crate::routes::Routes;
use crate::site::{Session, Shared, Site};

/// Bytes of output that the browser has not acknowledged.
const WINDOW: usize = 1 << 20;
/// Maximum size of a message from the browser in bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// Maximum amount of input that the guest has not accepted, in bytes.
const MAX_INPUT: usize = 8 << 20;
/// Time for a VM to become ready.
const READY_TIMEOUT_MS: u64 = 60_000;
/// Maximum number of rows and columns.
const MAX_CELLS: u16 = 1000;

/// The routes of this module.
pub fn routes() -> Routes {
    Routes::new()
        .route("/vms/{vm}/terminal", get(page))
        .route("/vms/{vm}/terminal/socket", get(socket))
}

#[derive(Template)]
#[template(path = "terminal.html")]
struct TerminalPage {
    page: Chrome,
    id: String,
    name: String,
}

async fn page(State(site): Shared, Extension(session): Session, Path(vm): Path<String>) -> Answer {
    let vm = site.client.vm(&vm).await?.summary;
    let page = Chrome::new(&site, &session, Section::Vms);
    render(&TerminalPage { page, id: vm.id.to_string(), name: vm.name.to_string() })
}

/// Size of the terminal at the start.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Size {
    rows: u16,
    cols: u16,
}

impl Size {
    fn window(self) -> WindowSize {
        let within = |cells: u16| cells.clamp(1, MAX_CELLS);
        WindowSize { rows: within(self.rows), cols: within(self.cols) }
    }
}

/// A text message from the browser.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    /// This many bytes of output were processed.
    Ack(usize),
    /// The terminal has another size.
    Size(Size),
}

/// A text message to the browser.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    /// The shell runs.
    Ready,
    /// The shell ended with this exit code.
    Exit(u8),
    /// Something failed: the message and advice.
    Error(String, Option<String>),
}

impl Report {
    fn of(error: &ApiError) -> Self {
        Self::Error(error.message.clone(), error.hint())
    }
}

async fn socket(
    State(site): Shared,
    Path(vm): Path<String>,
    Query(size): Query<Size>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    upgrade.on_upgrade(move |socket| async move {
        let (mut sink, stream) = socket.split();
        let report = match start(&site, &vm, size).await {
            Ok(exec) => run(exec, &mut sink, stream).await,
            Err(error) => Some(Report::of(&error)),
        };
        if let Some(report) = report {
            // The browser may be gone.
            let _ = sink.send(text(&report)).await;
            let frame = CloseFrame { code: close_code::NORMAL, reason: "".into() };
            let _ = sink.send(Message::Close(Some(frame))).await;
        }
    })
}

async fn start(site: &Site, vm: &str, size: Size) -> Result<Exec, ApiError> {
    let wait = Wait { stage: WaitFor::Ready, timeout_ms: READY_TIMEOUT_MS };
    let (agent, _) = site.client.agent_session_at(vm, wait).await?;
    let request = ExecRequest {
        tty: Some(size.window()),
        term: Some("xterm-256color".into()),
        env: vec![("COLORTERM".into(), "truecolor".into())],
        stdin: true,
        ..ExecRequest::default()
    };
    Exec::start(agent, &request).await
}

fn text(report: &Report) -> Message {
    Message::Text(serde_json::to_string(report).unwrap_or_default().into())
}

/// Relays until the shell or the browser ends; returns the last report, none if the browser is
/// gone.
async fn run(
    exec: Exec,
    sink: &mut SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
) -> Option<Report> {
    let Exec { input, control, mut output } = exec;
    let (acks, mut acknowledged) = mpsc::unbounded_channel();
    let input = input?;
    sink.send(text(&Report::Ready)).await.ok()?;
    tokio::select! {
        report = send_output(&mut output, sink, &mut acknowledged) => report,
        report = receive(stream, input, control, acks) => report,
    }
}

/// Sends output while the browser keeps up.
async fn send_output(
    output: &mut ExecOutput,
    sink: &mut SplitSink<WebSocket, Message>,
    acknowledged: &mut mpsc::UnboundedReceiver<usize>,
) -> Option<Report> {
    let mut under_way = 0usize;
    loop {
        tokio::select! {
            count = acknowledged.recv() => under_way = under_way.saturating_sub(count?),
            piece = output.next(), if under_way < WINDOW => match piece {
                Ok(Output::Stdout(data) | Output::Stderr(data)) => {
                    under_way += data.len();
                    sink.send(Message::Binary(data.into())).await.ok()?;
                }
                Ok(Output::Exit(status)) => return Some(Report::Exit(status.shell_code())),
                Err(error) => return Some(Report::of(&error)),
            },
        }
    }
}

/// Receives input, sizes and acknowledgements.
async fn receive(
    mut stream: SplitStream<WebSocket>,
    input: ExecInput,
    control: Control,
    acks: mpsc::UnboundedSender<usize>,
) -> Option<Report> {
    let (mut queue, mut queued) = (VecDeque::<Bytes>::new(), 0usize);
    loop {
        let next = queue.front().cloned();
        tokio::select! {
            accepted = send_next(&input, next), if !queue.is_empty() => {
                queued -= queue.pop_front().map_or(0, |bytes| bytes.len());
                // The output reports the end of the command.
                if !accepted {
                    queue.clear();
                    queued = 0;
                }
            }
            message = stream.next() => match message?.ok()? {
                Message::Binary(bytes) if queued + bytes.len() > MAX_INPUT => {
                    let text = "the guest does not read its input";
                    let error = ApiError::new(ErrorCode::GuestFailed, text);
                    return Some(Report::of(&error));
                }
                Message::Binary(bytes) => {
                    queued += bytes.len();
                    queue.push_back(bytes);
                }
                Message::Text(text) => match serde_json::from_str(&text).ok()? {
                    Request::Ack(count) => acks.send(count).ok()?,
                    Request::Size(size) => control.resize(size.window()),
                },
                Message::Close(_) => return None,
                Message::Ping(_) | Message::Pong(_) => {}
            },
        }
    }
}

/// Queues input for the command. Cancel-safe: either the whole piece is queued, or nothing.
async fn send_next(input: &ExecInput, next: Option<Bytes>) -> bool {
    match next {
        Some(bytes) => input.send(bytes).await,
        None => true,
    }
}
