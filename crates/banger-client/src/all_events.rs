//! The stream of events of all VMs and operations, across lost connections and restarts of the
//! daemon.

use std::collections::VecDeque;
use std::time::Duration;

use banger_api::events::{About, Event};
use banger_api::{ApiError, ErrorCode, routes};
use bytes::Buf;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;

use crate::call::Idempotency;
use crate::client::Client;
use crate::http::{self, Call};
use crate::sse::Parser;

/// Interval between attempts to reach a daemon that has ended.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(300);

/// Events of VMs and operations. [`Events::next`] is cancel-safe.
pub struct Events {
    client: Client,
    about: Option<About>,
    /// Id of the last event received.
    last: Option<String>,
    ready: VecDeque<Event>,
    stream: Option<(Incoming, Parser)>,
}

impl Client {
    /// Follows all VMs, all operations, or both. Without `since_unix_ms` the first event is the
    /// present state; with it, the events since that time that the daemon still has come first.
    ///
    /// # Errors
    /// Those of the daemon.
    pub async fn events(
        &self,
        about: Option<About>,
        since_unix_ms: Option<u64>,
    ) -> Result<Events, ApiError> {
        let path = path(about, since_unix_ms);
        let answer = self.answer(Call::get(path), Idempotency::Idempotent).await?;
        let stream = Some((accepted(answer).await?, Parser::default()));
        Ok(Events { client: self.clone(), about, last: None, ready: VecDeque::new(), stream })
    }
}

fn path(about: Option<About>, since_unix_ms: Option<u64>) -> String {
    let about = about.map(|about| format!("about={}", about.as_str()));
    let since = since_unix_ms.map(|ms| format!("since_unix_ms={ms}"));
    let query: Vec<String> = [about, since].into_iter().flatten().collect();
    if query.is_empty() {
        routes::EVENTS.to_owned()
    } else {
        format!("{}?{}", routes::EVENTS, query.join("&"))
    }
}

async fn accepted(answer: Response<Incoming>) -> Result<Incoming, ApiError> {
    if answer.status().is_success() {
        return Ok(answer.into_body());
    }
    http::accept(answer).await?;
    Err(malformed())
}

impl Events {
    /// The next event. Waits for the next daemon after the end of one and does not start one: the
    /// user may have stopped the daemon.
    ///
    /// # Errors
    /// The daemon refuses the request, or sends malformed events.
    pub async fn next(&mut self) -> Result<Event, ApiError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.last = Some(event.id.clone());
                return Ok(event);
            }
            let Some((body, parser)) = &mut self.stream else {
                self.reconnect().await?;
                continue;
            };
            match body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    for data in parser.push(data.chunk()).map_err(|_| malformed())? {
                        let event = serde_json::from_str(&data);
                        self.ready.push_back(event.map_err(|error| malformed().caused_by(&error))?);
                    }
                }
                Some(Err(_)) | None => self.stream = None,
            }
        }
    }

    async fn reconnect(&mut self) -> Result<(), ApiError> {
        // Also before the first attempt: a daemon that is shutting down accepts connections.
        tokio::time::sleep(RECONNECT_INTERVAL).await;
        let mut call = Call::get(path(self.about, None));
        if let Some(last) = &self.last {
            call = call.with_header("last-event-id", last.clone());
        }
        if let Ok(answer) = self.client.once(call).await {
            self.stream = Some((accepted(answer).await?, Parser::default()));
        }
        Ok(())
    }
}

fn malformed() -> ApiError {
    ApiError::new(ErrorCode::DaemonUnavailable, "the daemon sent malformed events")
}
