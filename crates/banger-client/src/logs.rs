//! Logs of VMs and of the daemon as streams of bytes.

use std::time::Duration;

use banger_api::{ApiError, ErrorCode, Hint, routes};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
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
    /// Whether to continue until the daemon ends.
    pub follow: bool,
}

/// A log that arrives piece by piece.
pub struct LogStream {
    body: Incoming,
    resume: Option<LogResume>,
}

/// Position from which a followed log continues after a lost connection.
struct LogResume {
    client: Client,
    route: String,
    source: VmLogSource,
    /// The log file and the offset in it, in bytes.
    file: String,
    offset: u64,
    /// Consecutive connections that brought no byte.
    idle: u32,
}

impl LogStream {
    /// The next bytes; none after the last ones. Cancel-safe.
    ///
    /// # Errors
    /// The connection ended before the log did.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let ended = match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(resume) = &mut self.resume {
                            resume.offset += data.len() as u64;
                            resume.idle = 0;
                        }
                        return Ok(Some(data));
                    }
                    Err(_) => continue,
                },
                Some(Err(error)) => Err(cut_off(&error)),
                None => Ok(None),
            };
            let Some(resume) = &mut self.resume else { return ended };
            match resume.connect(ended).await? {
                Some(body) => self.body = body,
                None => return Ok(None),
            }
        }
    }
}

impl LogResume {
    /// Requests the log from its position; none if the VM was deleted. Waits for the next daemon
    /// and does not start one: the user may have stopped the daemon.
    async fn connect(
        &mut self,
        ended: Result<Option<Bytes>, ApiError>,
    ) -> Result<Option<Incoming>, ApiError> {
        self.idle += 1;
        if self.idle > MAX_IDLE {
            return ended.map(|_| None);
        }
        let mut path = format!("{}?source={}&follow=true", self.route, self.source.as_str());
        path += &match self.source {
            // The agent's lines are a selection of the console log, without an offset.
            VmLogSource::Agent => "&tail=0".to_owned(),
            _ => format!("&from={}:{}", self.file, self.offset),
        };
        loop {
            match self.client.once(Call::get(path.as_str())).await {
                Ok(answer) if answer.status().is_success() => return Ok(Some(answer.into_body())),
                Ok(answer) => {
                    return match http::accept(answer).await {
                        Err(error) if error.code == ErrorCode::NotFound => Ok(None),
                        Err(error) => Err(error),
                        Ok(()) => Ok(None),
                    };
                }
                Err(_) => tokio::time::sleep(RECONNECT_INTERVAL).await,
            }
        }
    }
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
        add_range(&mut pairs, tail, follow);
        let route = fill(routes::VM_LOGS, "vm", vm)?;
        let answer = self.log(route.clone(), pairs).await?;
        let place = answer.headers().get(routes::LOG_PLACE_HEADER);
        let place = place.and_then(|place| place.to_str().ok()?.split_once(':'));
        let (file, offset) = place.unwrap_or(("0", "0"));
        let resume = follow.then(|| LogResume {
            client: self.clone(),
            route,
            source,
            file: file.to_owned(),
            offset: offset.parse().unwrap_or_default(),
            idle: 0,
        });
        Ok(LogStream { body: answer.into_body(), resume })
    }

    /// The daemon's log: lines, each a JSON object.
    ///
    /// # Errors
    /// A bad number of lines, or the daemon's.
    pub async fn daemon_logs(&self, query: DaemonLogQuery) -> Result<LogStream, ApiError> {
        let mut pairs = Vec::new();
        pairs.extend(query.vm.map(|vm| ("vm", vm)));
        pairs.extend(query.operation.map(|operation| ("operation", operation)));
        add_range(&mut pairs, query.tail, query.follow);
        let answer = self.log(routes::DAEMON_LOGS.to_owned(), pairs).await?;
        Ok(LogStream { body: answer.into_body(), resume: None })
    }

    async fn log(
        &self,
        route: String,
        pairs: Vec<(&'static str, String)>,
    ) -> Result<Response<Incoming>, ApiError> {
        let query: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={}", routes::fill("{value}", "value", value)))
            .collect();
        let path = if query.is_empty() { route } else { format!("{route}?{}", query.join("&")) };
        let answer = self.answer(Call::get(path), Idempotency::Idempotent).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        http::accept(answer).await?;
        Err(ApiError::new(ErrorCode::DaemonUnavailable, "the daemon sent no log"))
    }
}

fn add_range(pairs: &mut Vec<(&'static str, String)>, tail: Option<u32>, follow: bool) {
    pairs.extend(tail.map(|tail| ("tail", tail.to_string())));
    if follow {
        pairs.push(("follow", "true".into()));
    }
}
