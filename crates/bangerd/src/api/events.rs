//! The stream of events of all VMs and operations.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use banger_api::events::{About, Event};
use banger_api::{ApiError, ErrorCode, routes};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;

use super::body::QueryParams;
use super::document::ServerSentEvent;
use super::{Answer, Shared};

/// Interval of comments on an idle stream, which detect a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Maximum time: that of `int64` in the OpenAPI document.
const MAX_TIME: u64 = i64::MAX.cast_unsigned();

/// The query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    since_unix_ms: Option<u64>,
    about: Option<About>,
}

/// Follow all VMs and operations: one [`Event`] per event; ends when the daemon stops.
#[utoipa::path(get, path = routes::EVENTS, tag = "events", operation_id = "events",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "`id` of the last event seen"),
        ("since_unix_ms" = Option<u64>, Query,
            description = "without that header: begin with the first event since this time"),
        ("about" = Option<About>, Query, nullable = false,
            description = "only events about these; default: all"),
    ),
    responses(
        (status = 200, description = "server-sent events, the data of each an `Event`",
            body = ServerSentEvent, content_type = "text/event-stream"),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn events(
    State(api): Shared,
    headers: HeaderMap,
    QueryParams(query): QueryParams<Since>,
) -> Answer<Sse<impl Stream<Item = Result<SseEvent, Infallible>> + use<>>> {
    if query.since_unix_ms.is_some_and(|since| since > MAX_TIME) {
        let text = "`since_unix_ms` is too large for milliseconds since 1970";
        return Err(ApiError::new(ErrorCode::BadRequest, text).into());
    }
    let place = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let since = || query.since_unix_ms.map(|since| api.feed.place_before(since));
    let place = place.map(str::to_owned).or_else(since);
    let events = stream::unfold((api, place), |(api, place)| async move {
        let events = tokio::select! {
            events = api.feed.after(place.as_deref()) => events,
            () = api.stopping.requested() => return None,
        };
        let place = Some(events.last()?.id.clone());
        Some((stream::iter(events), (api, place)))
    });
    let selected = move |event: &Event| query.about.is_none_or(|about| event.what.is_about(about));
    let events = events
        .flatten()
        .filter(move |event| std::future::ready(selected(event)))
        .map(|event| Ok(as_sse(&event)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn as_sse(event: &Event) -> SseEvent {
    SseEvent::default().id(&event.id).data(serde_json::to_string(event).unwrap_or_default())
}
