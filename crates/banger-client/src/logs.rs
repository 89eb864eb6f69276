//! Logs over the API, as streams of bytes.

use banger_api::{ApiError, ErrorCode, routes};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::call::Repeat;
use crate::client::{Client, fill};
use crate::http::{self, Call};

/// Which log of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmLogSource {
    /// The guest's serial console.
    Console,
    /// What the VMM and its companion wrote.
    Vmm,
}

/// Which part of a VM's log.
#[derive(Debug, Clone, Copy)]
pub struct VmLogQuery {
    /// Which log.
    pub source: VmLogSource,
    /// Only so many lines before the end.
    pub tail: Option<u32>,
    /// Go on as more comes.
    pub follow: bool,
}

/// Which lines of the daemon's log.
#[derive(Debug, Clone, Default)]
pub struct DaemonLogQuery {
    /// Only lines about this VM, by its name or whole id.
    pub vm: Option<String>,
    /// Only lines of this operation.
    pub operation: Option<String>,
    /// Only so many lines before the end.
    pub tail: Option<u32>,
    /// Go on as more comes.
    pub follow: bool,
}

/// A log that arrives piece by piece.
pub struct LogStream(Incoming);

impl LogStream {
    /// The next bytes; none after the last ones.
    ///
    /// # Errors
    /// The connection ended before the log did.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            match self.0.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    let text = "the daemon ended before the log did";
                    return Err(ApiError::new(ErrorCode::DaemonUnavailable, text)
                        .caused_by(&error)
                        .with_hint("run the command again"));
                }
            }
        }
    }
}

impl Client {
    /// The log of a VM.
    ///
    /// # Errors
    /// Not found, ambiguous, a bad number of lines, or the daemon's.
    pub async fn vm_logs(&self, vm: &str, query: VmLogQuery) -> Result<LogStream, ApiError> {
        let source = match query.source {
            VmLogSource::Console => "console",
            VmLogSource::Vmm => "vmm",
        };
        let mut pairs = vec![("source", source.to_owned())];
        add_range(&mut pairs, query.tail, query.follow);
        self.log(fill(routes::VM_LOGS, "vm", vm)?, pairs).await
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
        self.log(routes::DAEMON_LOGS.to_owned(), pairs).await
    }

    async fn log(
        &self,
        route: String,
        pairs: Vec<(&'static str, String)>,
    ) -> Result<LogStream, ApiError> {
        let query: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={}", routes::fill("{value}", "value", value)))
            .collect();
        let path = if query.is_empty() { route } else { format!("{route}?{}", query.join("&")) };
        let answer = self.answer(Call::get(path), Repeat::Safe).await?;
        if answer.status().is_success() {
            return Ok(LogStream(answer.into_body()));
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
