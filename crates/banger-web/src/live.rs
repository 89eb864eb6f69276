//! Server-sent events that keep open pages current.
//!
//! Each page has one stream: browsers open at most six connections to a host. The data of every
//! event is JSON, with HTML that was rendered here or text that the page shows as text.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use banger_api::{ApiError, ErrorCode};
use banger_client::{LogPiece, LogStream, VmLogQuery, VmLogSource};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::login::SessionRef;
use crate::operations::{self, Progress};
use crate::page::Problem;
use crate::plain::Plain;
use crate::routes::Routes;
use crate::site::{Session, Shared, Site};
use crate::vm;

/// Queued events of a page that reads slowly.
const QUEUE: usize = 8;
/// Interval of comments on an idle stream, which detect a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Minimum interval between two events about one thing.
const INTERVAL: Duration = Duration::from_millis(150);
/// Lines of the console that a page begins with.
const CONSOLE_LINES: u32 = 200;
/// Interval between attempts to read the console of a VM that has none yet.
const CONSOLE_INTERVAL: Duration = Duration::from_secs(2);

/// The routes of this module.
pub fn routes() -> Routes {
    Routes::new()
        .route("/live/vms", get(vms))
        .route("/live/vms/{vm}", get(vm))
        .route("/live/operations", get(operations))
        .route("/live/operations/{operation}", get(operation))
}

/// Sends events to a page; fails when the page is gone.
#[derive(Clone)]
struct Sender(mpsc::Sender<Event>);

/// The page is gone.
struct Gone;

impl Sender {
    async fn send(&self, name: &str, id: Option<&str>, data: &impl Serialize) -> Result<(), Gone> {
        // JSON has no line breaks, which would divide the data.
        let data = serde_json::to_string(data).unwrap_or_default();
        let event = Event::default().event(name).data(data);
        let event = match id {
            Some(id) => event.id(id),
            None => event,
        };
        self.0.send(event).await.map_err(|_| Gone)
    }

    async fn closed(&self) {
        self.0.closed().await;
    }
}

/// A stream of what a task sends; the task is ended with the stream.
fn streamed<F: Future<Output = Result<(), Gone>> + Send + 'static>(
    task: impl FnOnce(Sender) -> F,
) -> Response {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let sender = Sender(sender);
    let (running, watched) = (task(sender.clone()), sender);
    tokio::spawn(async move {
        tokio::select! {
            _ = running => {}
            () = watched.closed() => {}
        }
    });
    let events = stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        Some((Ok::<_, Infallible>(event), receiver))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// Where a page continues.
#[derive(Debug, Deserialize)]
struct Since {
    #[serde(default)]
    since: String,
}

async fn vms(State(site): Shared, headers: HeaderMap, Query(query): Query<Since>) -> Response {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let mut place = last.map_or(query.since, str::to_owned);
    streamed(|sender| async move {
        let mut changed = site.hub.watch();
        loop {
            changed.mark_unchanged();
            let Some((changes, next)) = site.hub.since(&place) else {
                return sender.send("reload", None, &()).await;
            };
            if next != place {
                place = next;
                sender.send("rows", Some(&place), &changes).await?;
            }
            if changed.changed().await.is_err() {
                return Ok(());
            }
        }
    })
}

/// The log that a VM's page shows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Log {
    /// The guest's console.
    #[default]
    Console,
    /// The VMM's output.
    Vmm,
    /// The output of the guest agent.
    Agent,
    /// The output of the process that owns the VMM.
    Shim,
}

impl Log {
    /// All logs: value in the query, name.
    pub const ALL: [(&'static str, &'static str, Self); 4] = [
        ("console", "Console", Self::Console),
        ("vmm", "VMM", Self::Vmm),
        ("agent", "Agent", Self::Agent),
        ("shim", "Shim", Self::Shim),
    ];

    fn source(self) -> VmLogSource {
        match self {
            Self::Console => VmLogSource::Console,
            Self::Vmm => VmLogSource::Vmm,
            Self::Agent => VmLogSource::Agent,
            Self::Shim => VmLogSource::Shim,
        }
    }
}

/// Query of a VM's page.
#[derive(Debug, Deserialize)]
pub struct LogChoice {
    /// The log.
    #[serde(default)]
    pub log: Log,
}

/// The parts of a VM's page, and one of its logs.
async fn vm(
    State(site): Shared,
    Extension(session): Session,
    Path(name): Path<String>,
    Query(choice): Query<LogChoice>,
) -> Result<Response, Problem> {
    let first = site.client.vm(&name).await?;
    let id = first.summary.id.clone();
    Ok(streamed(|sender| async move {
        let console = console(site.clone(), id.to_string(), choice.log, sender.clone());
        let parts = parts(&site, &session, id.to_string(), &sender);
        tokio::select! {
            ended = parts => ended,
            ended = console => ended,
        }
    }))
}

async fn parts(site: &Site, session: &SessionRef, id: String, sender: &Sender) -> Result<(), Gone> {
    let (mut list, mut operations) = (site.hub.watch(), site.hub.watch_operations());
    let mut sent = Vec::new();
    loop {
        let at = Instant::now() + INTERVAL;
        match site.client.vm(&id).await {
            Ok(vm) => {
                let parts = vm::parts(&vm, &session.csrf).unwrap_or_default();
                let changed: Vec<_> =
                    parts.iter().filter(|part| !sent.contains(*part)).map(Changed::of).collect();
                if !changed.is_empty() {
                    sender.send("parts", None, &changed).await?;
                }
                sent = parts;
            }
            Err(error) if error.code == ErrorCode::NotFound => {
                return sender.send("gone", None, &()).await;
            }
            // The daemon is being replaced: the next change is reported by the next one.
            Err(_) => {}
        }
        tokio::time::sleep_until(at).await;
        tokio::select! {
            changed = list.changed() => changed.map_err(|_| Gone)?,
            changed = operations.changed() => changed.map_err(|_| Gone)?,
        }
    }
}

/// An element that replaces the one with its id.
#[derive(Serialize)]
struct Changed<'a> {
    id: &'a str,
    html: &'a str,
}

impl<'a> Changed<'a> {
    fn of(part: &'a vm::Part) -> Self {
        Self { id: part.id, html: &part.html }
    }
}

async fn console(site: Arc<Site>, id: String, log: Log, sender: Sender) -> Result<(), Gone> {
    let query = VmLogQuery { source: log.source(), tail: Some(CONSOLE_LINES), follow: true };
    let mut filter = Plain::default();
    loop {
        if let Ok(mut log) = site.client.vm_logs(&id, query).await {
            while let Some(bytes) = piece(&mut log).await {
                let text = filter.push(&bytes);
                if !text.is_empty() {
                    sender.send("console", None, &text).await?;
                }
            }
        }
        sleep(CONSOLE_INTERVAL).await;
    }
}

/// What a log has now, gathered for a short time; none at its end.
async fn piece(log: &mut LogStream) -> Option<Vec<u8>> {
    let mut gathered = match log.next().await {
        Ok(Some(LogPiece::Bytes(bytes))) => bytes.to_vec(),
        Ok(Some(LogPiece::DaemonEnded)) => Vec::new(),
        Ok(None) | Err(_) => return None,
    };
    let until = Instant::now() + INTERVAL;
    while gathered.len() < MAX_PIECE {
        match timeout_at(until, log.next()).await {
            Ok(Ok(Some(LogPiece::Bytes(bytes)))) => gathered.extend_from_slice(&bytes),
            _ => break,
        }
    }
    Some(gathered)
}

/// Maximum size of gathered pieces in bytes.
const MAX_PIECE: usize = 1 << 18;
/// Tells a page of a list that it is out of date.
async fn operations(State(site): Shared) -> Response {
    streamed(|sender| async move {
        let mut events = site.hub.watch_operations();
        let mut list = site.hub.watch();
        loop {
            let changed = tokio::select! {
                changed = events.changed() => changed,
                changed = list.changed() => changed,
            };
            changed.map_err(|_| Gone)?;
            sleep(INTERVAL * 2).await;
            events.mark_unchanged();
            list.mark_unchanged();
            sender.send("stale", None, &()).await?;
        }
    })
}

/// One operation: its stages, and the lines of its log.
async fn operation(
    State(site): Shared,
    Extension(session): Session,
    Path(operation): Path<String>,
) -> Result<Response, Problem> {
    let id = operations::parse(&operation)?;
    let view = site.client.operation(&id).await?;
    Ok(streamed(|sender| async move {
        let mut events = site.client.follow(&id);
        let mut progress = Progress::of(&view);
        let mut is_ended = false;
        while !is_ended {
            let (mut lines, until) = (Vec::new(), Instant::now() + INTERVAL);
            let mut waited = Ok(events.next().await);
            while let Ok(next) = waited {
                match next {
                    Ok(Some(event)) => {
                        is_ended |= event.what.is_last();
                        lines.extend(progress.add(&event));
                    }
                    Ok(None) => is_ended = true,
                    Err(error) => {
                        is_ended = true;
                        lines.push(text_of(&error));
                    }
                }
                if is_ended || lines.len() >= MAX_LINES {
                    break;
                }
                waited = timeout_at(until, events.next()).await;
            }
            if !lines.is_empty() {
                let text = Plain::default().push((lines.join("\n") + "\n").as_bytes());
                sender.send("lines", None, &text).await?;
            }
            let html = progress.html(&session.csrf).unwrap_or_default();
            sender.send("parts", None, &[Changed { id: "progress", html: &html }]).await?;
        }
        sender.send("end", None, &()).await
    }))
}

/// Maximum number of lines in one event.
const MAX_LINES: usize = 500;

fn text_of(error: &ApiError) -> String {
    format!("error: {}", error.message)
}
