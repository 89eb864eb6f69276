//! Operations and their events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use banger_api::operation::{
    CancelAnswer, CancelEffect, OpEvent, OpEventKind, OpState, OperationView, SubjectRef,
};
use banger_api::{ApiError, ErrorCode, OpId, routes};
use banger_engine::ops::Op;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;

use super::body::{Json as Body, PathParams, QueryParams, id};
use super::document::ServerSentEvent;
use super::{Answer, Shared, detached};

/// Default number of operations in a list.
const DEFAULT_LIMIT: u32 = 100;
/// Maximum number of operations in a list.
const MAX_LIMIT: u32 = 10_000;
/// Interval of comments on an idle stream, which detect a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Maximum number of an event: that of `int64` in the OpenAPI document.
const MAX_SEQ: u64 = i64::MAX.cast_unsigned();

/// Query of the list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Maximum number of operations; default 100.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
    /// Only operations of this kind, such as `create`.
    #[param(pattern = "^[a-z_]{1,64}$", nullable = false)]
    kind: Option<String>,
    /// Only operations in this state.
    #[param(nullable = false)]
    state: Option<OpState>,
    /// Only operations on this VM, by its name or id at that time.
    #[param(pattern = "^[a-z0-9-]{1,63}$", nullable = false)]
    vm: Option<String>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.kind.is_none() && self.state.is_none() && self.vm.is_none()
    }

    fn check(&self) -> Result<(), ApiError> {
        let is_word = |text: &String, longest, allowed: fn(u8) -> bool| {
            (1..=longest).contains(&text.len()) && text.bytes().all(allowed)
        };
        let kind = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let vm = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let checks = [("kind", &self.kind, 64, kind as fn(u8) -> bool), ("vm", &self.vm, 63, vm)];
        for (name, value, longest, allowed) in checks {
            if let Some(value) = value.as_ref().filter(|value| !is_word(value, longest, allowed)) {
                let shown = banger_api::excerpt(value);
                let text = format!("`{name}` is `{shown}`: no operation has that");
                return Err(ApiError::new(ErrorCode::BadRequest, text));
            }
        }
        Ok(())
    }

    fn matches(&self, view: &OperationView) -> bool {
        let is_of = |vm: &String| {
            let tag = view.subject.vm();
            tag.is_some_and(|tag| tag.name.as_str() == vm || tag.id.as_str() == vm)
        };
        self.kind.as_ref().is_none_or(|kind| &view.kind == kind)
            && self.state.is_none_or(|state| view.state == state)
            && self.vm.as_ref().is_none_or(is_of)
    }
}

/// The newest operations, or those of them that match all filters, newest first.
#[utoipa::path(get, path = routes::OPERATIONS, tag = "operations",
    operation_id = "operation_list", params(Filter),
    responses(
        (status = 200, description = "the list", body = [OperationView]),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn list(
    State(api): Shared,
    QueryParams(query): QueryParams<Filter>,
) -> Answer<Json<Vec<OperationView>>> {
    query.check()?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let text = format!("`limit` is {limit}: it must be 1 to {MAX_LIMIT}");
        return Err(ApiError::new(ErrorCode::BadRequest, text).into());
    }
    // The filters apply before the limit.
    let read = if query.is_empty() { limit } else { MAX_LIMIT };
    let mut operations = api.engine.operations(read).await?;
    operations.retain(|view| query.matches(view));
    operations.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(operations))
}

/// One operation.
#[utoipa::path(get, path = routes::OPERATION, tag = "operations", operation_id = "operation_show",
    params(("operation" = OpId, Path, description = "op-xxxxxx")),
    responses(
        (status = 200, description = "the present state", body = OperationView),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn show(
    State(api): Shared,
    PathParams(operation): PathParams<String>,
) -> Answer<Json<OperationView>> {
    Ok(Json(api.engine.operation(&id(&operation)?).await?))
}

/// Cancel an operation and undo it. Stops, deletions and reactions to events cannot be cancelled.
#[utoipa::path(post, path = routes::OPERATION_CANCEL, tag = "operations",
    operation_id = "operation_cancel",
    params(("operation" = OpId, Path, description = "op-xxxxxx")),
    responses(
        (status = 202, description = "it is being undone, or never starts", body = CancelAnswer),
        (status = 200, description = "the operation had ended before", body = CancelAnswer),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn cancel(
    State(api): Shared,
    PathParams(operation): PathParams<String>,
) -> Answer<(StatusCode, Json<CancelAnswer>)> {
    let operation: OpId = id(&operation)?;
    let answer = detached(async move { api.engine.cancel(&operation).await }).await?;
    let status = match answer.effect {
        CancelEffect::Ended => StatusCode::OK,
        CancelEffect::Cancelling | CancelEffect::NotBegun => StatusCode::ACCEPTED,
    };
    Ok((status, Json(answer)))
}

/// Cancel all operations in progress on a VM, an image or a kernel, and undo them.
#[utoipa::path(post, path = routes::CANCELS, tag = "operations",
    operation_id = "subject_cancel",
    request_body = SubjectRef,
    responses(
        (status = 202, description = "the cancelled operations", body = [CancelAnswer]),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn cancel_on(
    State(api): Shared,
    Body(subject): Body<SubjectRef>,
) -> Answer<(StatusCode, Json<Vec<CancelAnswer>>)> {
    let answers = detached(async move { api.engine.cancel_on(&subject).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(answers)))
}

/// Follow an operation: one [`OpEvent`] per event, whose id is its `seq`; ends after the last one.
#[utoipa::path(get, path = routes::OPERATION_EVENTS, tag = "operations",
    operation_id = "operation_events",
    params(
        ("operation" = OpId, Path, description = "op-xxxxxx"),
        ("Last-Event-ID" = Option<u64>, Header, nullable = false,
            description = "`seq` of the last event seen"),
    ),
    responses(
        (status = 200, description = "server-sent events, the data of each an `OpEvent`",
            body = ServerSentEvent, content_type = "text/event-stream"),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn events(
    State(api): Shared,
    PathParams(operation): PathParams<String>,
    headers: HeaderMap,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let operation: OpId = id(&operation)?;
    let seen = last_seen(&headers)?;
    let events = match api.engine.follow(&operation) {
        Some(op) => live(op, seen).boxed(),
        None => {
            let view = api.engine.operation(&operation).await?;
            stream::iter([recorded(view, seen)]).boxed()
        }
    };
    let events = events.map(|event| Ok(as_sse(&event)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn last_seen(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    let seq = value.to_str().ok().and_then(|text| text.parse().ok());
    seq.filter(|seq| *seq <= MAX_SEQ).ok_or_else(|| {
        ApiError::new(ErrorCode::BadRequest, "`Last-Event-ID` is not the `seq` of an event")
    })
}

/// The events after `seen`, as they occur, up to the last one.
fn live(op: Arc<Op>, seen: u64) -> impl Stream<Item = OpEvent> + Send {
    stream::unfold((op, seen), |(op, seen)| async move {
        let events = op.next_after(seen).await;
        let last = events.last()?.seq;
        Some((stream::iter(events), (op, last)))
    })
    .flatten()
}

/// The last event of an operation of which only the record exists.
fn recorded(view: OperationView, seen: u64) -> OpEvent {
    let what = match (view.state, view.error) {
        (OpState::Succeeded, _) => OpEventKind::Succeeded { made: view.made },
        (OpState::Failed | OpState::Running, Some(error)) => OpEventKind::Failed { error },
        (OpState::Failed | OpState::Running, None) => {
            OpEventKind::Failed { error: banger_engine::recovery::interrupted(&view.id) }
        }
    };
    OpEvent { seq: seen.saturating_add(1), at_ms: 0, what }
}

fn as_sse(event: &OpEvent) -> Event {
    let json = serde_json::to_string(event).unwrap_or_default();
    Event::default().id(event.seq.to_string()).data(json)
}
