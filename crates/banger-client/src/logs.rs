//! Logs of VMs and of the daemon as streams of bytes.

use std::time::Duration;

use banger_api::{ApiError, ErrorCode, Hint, routes};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::call::Idempotency;
use crate::client::{Client, fill};
use crate::http::{self, Call};

/// Maximum number of consecutive connections that bring no byte of a followed log.
const MAX_IDLE: u32 = 100;
/// Interval between attempts to reach a daemon that has ended.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(300);

/// A log of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmLogSource {
    /// The guest's serial console.
    Console,
    /// Output of the VMM and its companion.
    Vmm,
    /// Output of the process that owns the VMM.
    Shim,
    /// Output of banger's agent in the guest.
    Agent,
}

impl VmLogSource {
    fn as_str(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Vmm => "vmm",
            Self::Shim => "shim",
            Self::Agent => "agent",
        }
    }
}

/// Selects a part of a VM's log.
#[derive(Debug, Clone, Copy)]
pub struct VmLogQuery {
    /// The log.
    pub source: VmLogSource,
    /// Number of lines at the end; all if absent.
    pub tail: Option<u32>,
    /// Whether to continue until the VM is deleted, across restarts of the daemon.
    pub follow: bool,
}

/// Selects lines of the daemon's log.
#[derive(Debug, Clone, Default)]
pub struct DaemonLogQuery {
    /// Only lines about this VM, by its name or whole id.
    pub vm: Option<String>,
    /// Only lines of this operation.
    pub operation: Option<String>,
    /// Number of lines at the end; all if absent.
    pub tail: Option<u32>,
    /// Whether to continue, across restarts of the daemon.
    pub follow: bool,
}

/// A log that arrives piece by piece.
pub struct LogStream {
    /// The answer; `None` while a followed log waits for the next daemon.
    body: Option<Incoming>,
    resume: Option<LogResume>,
}

/// A piece of a log.
#[derive(Debug, PartialEq, Eq)]
pub enum LogPiece {
    /// Bytes of the log; of selected lines, whole lines.
    Bytes(Bytes),
    /// The daemon has ended. The log continues when another one answers.
    DaemonEnded,
}

/// How the place of the next byte of a followed log is known.
enum Place {
    /// Bytes of one file, counted since `offset`.
    Bytes { file: String, offset: u64 },
    /// Each line begins with the place after it. The rest is an incomplete line.
    Lines { place: String, rest: Vec<u8> },
}

/// Position from which a followed log continues after a lost connection.
struct LogResume {
    client: Client,
    /// Path and query of a request, without the place.
    path: String,
    place: Place,
    /// Consecutive connections that brought no byte.
    idle: u32,
    /// Whether [`LogPiece::DaemonEnded`] was returned for the present loss.
    told: bool,
}

impl LogStream {
    /// The next piece; none after the last one. Cancel-safe.
    ///
    /// # Errors
    /// The connection ended before the log did.
    pub async fn next(&mut self) -> Result<Option<LogPiece>, ApiError> {
        loop {
            let ended = match &mut self.body {
                None => Ok(()),
                Some(body) => match body.frame().await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            let data = match &mut self.resume {
                                Some(resume) => resume.received(data),
                                None => data,
                            };
                            if data.is_empty() {
                                continue;
                            }
                            return Ok(Some(LogPiece::Bytes(data)));
                        }
                        Err(_) => continue,
                    },
                    Some(Err(error)) => Err(cut_off(&error)),
                    None => Ok(()),
                },
            };
            let Some(resume) = &mut self.resume else { return ended.map(|()| None) };
            if self.body.take().is_some() {
                resume.idle += 1;
                if resume.idle > MAX_IDLE {
                    self.resume = None;
                    return ended.map(|()| None);
                }
            }
            match resume.connect().await? {
                Connected::Body(body) => self.body = Some(body),
                Connected::Gone => return Ok(None),
                Connected::NoDaemon if resume.told => {
                    tokio::time::sleep(RECONNECT_INTERVAL).await;
                }
                Connected::NoDaemon => {
                    resume.told = true;
                    return Ok(Some(LogPiece::DaemonEnded));
                }
            }
        }
    }
}

/// Result of an attempt to resume a log.
enum Connected {
    Body(Incoming),
    /// The VM was deleted.
    Gone,
    /// No daemon answers.
    NoDaemon,
}

impl LogResume {
    /// Counts received bytes; returns those to show.
    fn received(&mut self, data: Bytes) -> Bytes {
        (self.idle, self.told) = (0, false);
        match &mut self.place {
            Place::Bytes { offset, .. } => {
                *offset += data.len() as u64;
                data
            }
            Place::Lines { place, rest } => without_places(&data, place, rest).into(),
        }
    }

    /// Requests the log from its position. Does not start a daemon: the user may have stopped it.
    async fn connect(&mut self) -> Result<Connected, ApiError> {
        let from = match &mut self.place {
            Place::Bytes { file, offset } => format!("{file}:{offset}"),
            Place::Lines { place, rest } => {
                // The line is sent again.
                rest.clear();
                place.clone()
            }
        };
        let path = format!("{}&from={from}", self.path);
        match self.client.once(Call::get(path)).await {
            Ok(answer) if answer.status().is_success() => Ok(Connected::Body(answer.into_body())),
            Ok(answer) => match http::accept(answer).await {
                Err(error) if error.code == ErrorCode::NotFound => Ok(Connected::Gone),
                // It is about to end.
                Err(error) if error.code == ErrorCode::DaemonUnavailable => Ok(Connected::NoDaemon),
                Err(error) => Err(error),
                Ok(()) => Ok(Connected::Gone),
            },
            Err(_) => Ok(Connected::NoDaemon),
        }
    }
}

/// Removes the place at the beginning of each completed line, and keeps the last one.
fn without_places(data: &[u8], place: &mut String, rest: &mut Vec<u8>) -> Vec<u8> {
    let mut shown = Vec::new();
    rest.extend_from_slice(data);
    let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    for line in rest.drain(..end).collect::<Vec<u8>>().split_inclusive(|byte| *byte == b'\n') {
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or_default();
        let (after, line) = line.split_at_checked(space).unwrap_or_default();
        *place = String::from_utf8_lossy(after).into_owned();
        shown.extend_from_slice(line.get(1..).unwrap_or_default());
    }
    shown
}

fn cut_off(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(ErrorCode::DaemonUnavailable, "the daemon ended before the log did")
        .caused_by(error)
        .with_hint(Hint::Retry)
}

impl Client {
    /// The log of a VM.
    ///
    /// # Errors
    /// Not found, ambiguous, a bad number of lines, or the daemon's.
    pub async fn vm_logs(&self, vm: &str, query: VmLogQuery) -> Result<LogStream, ApiError> {
        let VmLogQuery { source, tail, follow } = query;
        let mut pairs = vec![("source", source.as_str().to_owned())];
        let follow = follow.then_some(match source {
            VmLogSource::Agent => Follow::Lines,
            VmLogSource::Console | VmLogSource::Vmm | VmLogSource::Shim => Follow::Bytes,
        });
        add_follow(&mut pairs, follow);
        let route = fill(routes::VM_LOGS, "vm", vm)?;
        self.log(route, pairs, tail, follow).await
    }

    /// The daemon's log: lines, each a JSON object.
    ///
    /// # Errors
    /// A bad number of lines, or the daemon's.
    pub async fn daemon_logs(&self, query: DaemonLogQuery) -> Result<LogStream, ApiError> {
        let mut pairs = Vec::new();
        pairs.extend(query.vm.map(|vm| ("vm", vm)));
        pairs.extend(query.operation.map(|operation| ("operation", operation)));
        let follow = query.follow.then_some(Follow::Lines);
        add_follow(&mut pairs, follow);
        self.log(routes::DAEMON_LOGS.to_owned(), pairs, query.tail, follow).await
    }

    async fn log(
        &self,
        route: String,
        pairs: Vec<(&'static str, String)>,
        tail: Option<u32>,
        follow: Option<Follow>,
    ) -> Result<LogStream, ApiError> {
        let query: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={}", routes::fill("{value}", "value", value)))
            .collect();
        let again = format!("{route}?{}", query.join("&"));
        let path = match tail {
            Some(tail) => format!("{again}&tail={tail}"),
            None => again.clone(),
        };
        let answer = self.answer(Call::get(path), Idempotency::Idempotent).await?;
        if !answer.status().is_success() {
            http::accept(answer).await?;
            return Err(ApiError::new(ErrorCode::DaemonUnavailable, "the daemon sent no log"));
        }
        let place = answer.headers().get(routes::LOG_PLACE_HEADER);
        let place = place.and_then(|place| place.to_str().ok()).unwrap_or("0:0").to_owned();
        let resume = follow.map(|follow| LogResume {
            client: self.clone(),
            path: again,
            place: match follow {
                Follow::Lines => Place::Lines { place, rest: Vec::new() },
                Follow::Bytes => {
                    let (file, offset) = place.split_once(':').unwrap_or(("0", "0"));
                    let offset = offset.parse().unwrap_or_default();
                    Place::Bytes { file: file.to_owned(), offset }
                }
            },
            idle: 0,
            told: false,
        });
        Ok(LogStream { body: Some(answer.into_body()), resume })
    }
}

/// How a log is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    /// As bytes of a file.
    Bytes,
    /// As selected lines, each with its place.
    Lines,
}

fn add_follow(pairs: &mut Vec<(&'static str, String)>, follow: Option<Follow>) {
    if follow.is_some() {
        pairs.push(("follow", "true".into()));
    }
    if follow == Some(Follow::Lines) {
        pairs.push(("places", "true".into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_removed_at_any_split_of_the_input() {
        let data = b"7:10 one\n7:25 two words\n7:30 \n8:2 cut";
        for cut in 1..data.len() {
            let (mut place, mut rest, mut shown) = ("7:0".to_owned(), Vec::new(), Vec::new());
            for piece in data.chunks(cut) {
                shown.extend(without_places(piece, &mut place, &mut rest));
            }
            assert_eq!(String::from_utf8_lossy(&shown), "one\ntwo words\n\n", "{cut}");
            assert_eq!((place.as_str(), rest.as_slice()), ("7:30", &b"8:2 cut"[..]), "{cut}");
        }
    }
}
