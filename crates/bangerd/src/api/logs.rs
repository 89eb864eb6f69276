//! Logs: of a guest's console, of its VMM, and of the daemon.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use banger_api::{ApiError, routes};
use futures_util::stream;
use serde::Deserialize;

use super::body::{PathParams, QueryParams};
use super::{Answer, Shared};
use crate::daemon_log::{self, Reader, Wanted};
use crate::failure::io_failure;
use crate::logs::{self, Follow, LogFile};

/// Most of the daemon's log that is searched, in bytes.
const MOST_SEARCHED: u64 = 4 * crate::log::MAX_BYTES;

/// Which log of a VM.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The guest's serial console.
    #[default]
    Console,
    /// What the VMM and its companion wrote.
    Vmm,
}

/// Which part of a VM's log.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VmLog {
    /// `console` or `vmm`; `console` where not given.
    #[serde(default)]
    source: Source,
    /// Only so many lines before the end.
    tail: Option<u32>,
    /// Go on as more comes.
    #[serde(default)]
    follow: bool,
}

/// Which lines of the daemon's log.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DaemonLog {
    /// Only lines about this VM, by its name or whole id.
    vm: Option<String>,
    /// Only lines of this operation.
    operation: Option<String>,
    /// Only so many lines before the end.
    tail: Option<u32>,
    /// Go on as more comes.
    #[serde(default)]
    follow: bool,
}

fn wish(follow: bool) -> Follow {
    if follow { Follow::Yes } else { Follow::No }
}

/// What the guest wrote to its console, or its VMM to its log.
#[utoipa::path(get, path = routes::VM_LOGS, tag = "vms", operation_id = "vm_logs",
    params(("vm" = String, Path, description = "name, id or unique prefix of an id"), VmLog),
    responses(
        (status = 200, description = "The bytes of the log", body = String,
            content_type = "application/octet-stream"),
        (status = "default", description = "Why not", body = ApiError)
    ))]
pub async fn vm(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
    QueryParams(asked): QueryParams<VmLog>,
) -> Answer<Response> {
    logs::check_tail(asked.tail)?;
    let paths = api.engine.show(&vm).await?.paths;
    let path = match asked.source {
        Source::Console => paths.console_log,
        Source::Vmm => paths.vmm_log,
    };
    let log = LogFile::open(path.as_ref(), asked.tail, wish(asked.follow))?;
    let stopping = api.stopping.clone();
    let pieces = stream::try_unfold((log, stopping), |(mut log, stopping)| async move {
        let piece = tokio::select! {
            piece = log.next() => piece?,
            () = stopping.asked() => None,
        };
        Ok::<_, std::io::Error>(piece.map(|piece| (piece, (log, stopping))))
    });
    let kind = [(CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, Body::from_stream(pieces)).into_response())
}

/// The daemon's log: one JSON object a line, those of an operation with its VM and verb.
#[utoipa::path(get, path = routes::DAEMON_LOGS, tag = "daemon", operation_id = "daemon_logs",
    params(DaemonLog),
    responses(
        (status = 200, description = "Lines, each a JSON object", body = String,
            content_type = "application/x-ndjson"),
        (status = "default", description = "Why not", body = ApiError)
    ))]
pub async fn daemon(
    State(api): Shared,
    QueryParams(asked): QueryParams<DaemonLog>,
) -> Answer<Response> {
    logs::check_tail(asked.tail)?;
    let path = api.log.clone();
    let mut reader = Reader::new(Wanted { vm: asked.vm, operation: asked.operation });
    // What follows is read from where this ends: opened first, so that nothing is between.
    let follower = LogFile::at_end(&path, wish(asked.follow))?;
    let whole = logs::whole(&path, MOST_SEARCHED, follower.position())
        .map_err(|error| io_failure("read the log", &path, &error))?;
    let first = daemon_log::last(reader.push(&whole), asked.tail).concat();
    drop(whole);
    let state = (Some(first), reader, follower, api.stopping.clone());
    let lines = stream::try_unfold(state, |(first, mut reader, mut log, stopping)| async move {
        if let Some(first) = first.filter(|first| !first.is_empty()) {
            return Ok(Some((Bytes::from(first), (None, reader, log, stopping))));
        }
        let piece = tokio::select! {
            piece = log.next() => piece?,
            () = stopping.asked() => None,
        };
        let Some(piece) = piece else { return Ok::<_, std::io::Error>(None) };
        let lines = reader.push(&piece).concat();
        Ok(Some((Bytes::from(lines), (None, reader, log, stopping))))
    });
    let kind = [(CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}
