//! Routes of logs: console, agent, VMM and shim of a VM, and the daemon.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use banger_api::{ApiError, ErrorCode, routes};
use futures_util::stream;
use serde::Deserialize;

use super::body::{PathParams, QueryParams};
use super::lines::{self, Range};
use super::{Answer, Failure, Shared};
use crate::agent_log::AgentLines;
use crate::daemon_log::{Reader, Wanted};
use crate::failure::io_failure;
use crate::logs::{self, Follow, LogFile};

/// A log of a VM.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The guest's serial console.
    #[default]
    Console,
    /// Output of the VMM and its companion.
    Vmm,
    /// Output of the shim, the process that owns the VMM.
    Shim,
    /// Lines of banger's agent in the console.
    Agent,
}

/// Query of a VM's log.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VmLog {
    /// `console`, `vmm`, `shim` or `agent`; default `console`.
    #[serde(default)]
    source: Source,
    /// Number of lines from the end; default: all.
    #[param(maximum = 100_000)]
    tail: Option<u32>,
    /// Send new lines as they are written, until the VM is deleted.
    #[serde(default)]
    follow: bool,
    /// Resume a log: the `banger-log-place` of an earlier answer, with the number of bytes received
    /// since then added to its second part; for `agent`, the place of the last line. Not with
    /// `tail`.
    from: Option<String>,
    /// Begin each line with the place after it and a space. Only for `agent`.
    #[serde(default)]
    places: bool,
}

/// Query of the daemon's log.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DaemonLog {
    /// Only lines about this VM, given by name or full id.
    vm: Option<String>,
    /// Only lines of this operation.
    operation: Option<String>,
    /// Number of lines from the end; default: all.
    #[param(maximum = 100_000)]
    tail: Option<u32>,
    /// Send new lines as they are written.
    #[serde(default)]
    follow: bool,
    /// Resume a log: the place of the last line, or the `banger-log-place` of an earlier answer
    /// without a line. Not with `tail`.
    from: Option<String>,
    /// Begin each line with the place after it and a space.
    #[serde(default)]
    places: bool,
}

pub(super) fn follow_mode(follow: bool) -> Follow {
    if follow { Follow::Yes } else { Follow::No }
}

/// The log of a guest's console or agent, its VMM or its shim.
#[utoipa::path(get, path = routes::VM_LOGS, tag = "vms", operation_id = "vm_logs",
    params(("vm" = String, Path, description = "name, id or unique prefix of an id"), VmLog),
    responses(
        (status = 200, description = "The bytes of the log", body = String,
            content_type = "application/octet-stream",
            headers(("banger-log-place" = String, description = "where they begin"))),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn vm(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
    QueryParams(query): QueryParams<VmLog>,
) -> Answer<Response> {
    logs::check_tail(query.tail)?;
    let paths = api.engine.show(&vm).await?.paths;
    let path = match query.source {
        Source::Console => paths.console_log,
        Source::Vmm => paths.vmm_log,
        Source::Shim => paths.shim_log,
        Source::Agent => {
            let range = Range::new(query.tail, query.follow, query.from.as_deref(), query.places)?;
            let console = paths.console_log.as_path();
            return lines::answer(&api, console, range, AgentLines::default(), "text/plain");
        }
    };
    let path = path.as_path();
    if query.places {
        return Err(bad("`places` is for selected lines: `source` must be `agent`"));
    }
    let log = match &query.from {
        Some(_) if query.tail.is_some() => return Err(bad("`from` and `tail` exclude each other")),
        Some(from) => LogFile::open_at(path, from.parse()?, follow_mode(query.follow))?,
        None => LogFile::open(path, query.tail, follow_mode(query.follow))?,
    };
    let place = log.place().map_err(|error| io_failure("read the log", path, &error))?;
    let place = (HeaderName::from_static(routes::LOG_PLACE_HEADER), place.to_string());
    let stopping = api.stopping.clone();
    let pieces = stream::try_unfold((log, stopping), |(mut log, stopping)| async move {
        let piece = tokio::select! {
            piece = log.next() => piece?,
            () = stopping.requested() => None,
        };
        Ok::<_, std::io::Error>(piece.map(|piece| (piece, (log, stopping))))
    });
    let kind = (CONTENT_TYPE, "application/octet-stream".to_owned());
    Ok(([kind, place], Body::from_stream(pieces)).into_response())
}

pub(super) fn bad(text: &str) -> Failure {
    Failure(ApiError::new(ErrorCode::BadRequest, text))
}

/// The daemon's log: one JSON object per line; lines of an operation have its VM and verb.
#[utoipa::path(get, path = routes::DAEMON_LOGS, tag = "daemon", operation_id = "daemon_logs",
    params(DaemonLog),
    responses(
        (status = 200, description = "Lines, each a JSON object", body = String,
            content_type = "application/x-ndjson",
            headers(("banger-log-place" = String, description = "where they begin"))),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn daemon(
    State(api): Shared,
    QueryParams(query): QueryParams<DaemonLog>,
) -> Answer<Response> {
    logs::check_tail(query.tail)?;
    let range = Range::new(query.tail, query.follow, query.from.as_deref(), query.places)?;
    let reader = Reader::new(Wanted { vm: query.vm, operation: query.operation });
    lines::answer(&api, &api.log, range, reader, "application/x-ndjson")
}
