//! The feed of VM changes, across lost connections and restarts of the daemon.

use std::collections::VecDeque;
use std::time::Duration;

use banger_api::events::VmEvent;
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

/// Changes of VMs. [`VmEvents::next`] is cancel-safe.
pub struct VmEvents {
    client: Client,
    /// Id of the last event received.
    last: Option<String>,
    ready: VecDeque<VmEvent>,
    stream: Option<(Incoming, Parser)>,
}

impl Client {
    /// Follows all VMs. Without `since_unix_ms` the first event is the present state of all VMs;
    /// with it, the changes since that time that the daemon still has come first.
    ///
    /// # Errors
    /// Those of the daemon.
    pub async fn vm_events(&self, since_unix_ms: Option<u64>) -> Result<VmEvents, ApiError> {
        let path = match since_unix_ms {
            Some(ms) => format!("{}?since_unix_ms={ms}", routes::EVENTS),
            None => routes::EVENTS.to_owned(),
        };
        let answer = self.answer(Call::get(path), Idempotency::Idempotent).await?;
        let stream = Some((accepted(answer).await?, Parser::default()));
        Ok(VmEvents { client: self.clone(), last: None, ready: VecDeque::new(), stream })
    }
}

async fn accepted(answer: Response<Incoming>) -> Result<Incoming, ApiError> {
    if answer.status().is_success() {
        return Ok(answer.into_body());
    }
    http::accept(answer).await?;
    Err(malformed())
}

impl VmEvents {
    /// The next event. Waits for the next daemon after the end of one and does not start one: the
    /// user may have stopped the daemon.
    ///
    /// # Errors
    /// The daemon refuses the request, or sends malformed events.
    pub async fn next(&mut self) -> Result<VmEvent, ApiError> {
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
        let mut call = Call::get(routes::EVENTS);
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
