//! The events of an operation, each once and in order, across lost connections.

use std::time::Duration;

use banger_api::hint::Kind;
use banger_api::operation::{OpEvent, OpEventKind, OpState};
use banger_api::{ApiError, ErrorCode, Hint, OpId, routes};
use bytes::Buf;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::client::Client;
use crate::http::{self, Call};
use crate::sse::Parser;

/// Maximum number of consecutive connections without a new event.
const MAX_IDLE_TRIES: u32 = 8;
/// Pause before the second of these connections; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The events of one operation up to its last. [`EventStream::next`] is cancel-safe.
pub struct EventStream {
    client: Client,
    operation: OpId,
    /// `seq` of the last event received.
    seen: u64,
    ended: bool,
    ready: std::collections::VecDeque<OpEvent>,
    stream: Option<(Incoming, Parser)>,
    idle_tries: u32,
}

impl EventStream {
    pub(crate) fn new(client: Client, operation: OpId) -> Self {
        Self {
            client,
            operation,
            seen: 0,
            ended: false,
            ready: std::collections::VecDeque::new(),
            stream: None,
            idle_tries: 0,
        }
    }

    /// The operation.
    pub fn operation(&self) -> &OpId {
        &self.operation
    }

    /// The next event; none after the last one.
    ///
    /// # Errors
    /// The daemon does not know the operation, does not answer, or sends malformed events.
    pub async fn next(&mut self) -> Result<Option<OpEvent>, ApiError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.ended = event.what.is_last();
                self.idle_tries = 0;
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            match &mut self.stream {
                None => self.reconnect().await?,
                Some((body, parser)) => match body.frame().await {
                    Some(Ok(frame)) => {
                        let Ok(data) = frame.into_data() else { continue };
                        let events = parser.push(data.chunk()).map_err(|_| malformed())?;
                        self.push_events(&events)?;
                    }
                    // The connection was lost: request the events after the last one received.
                    Some(Err(_)) | None => self.stream = None,
                },
            }
        }
    }

    fn push_events(&mut self, events: &[String]) -> Result<(), ApiError> {
        for data in events {
            let event: OpEvent =
                serde_json::from_str(data).map_err(|error| malformed().caused_by(&error))?;
            // A daemon that was restarted knows only the result of the operation, with a `seq` of
            // its own.
            if event.seq > self.seen || event.what.is_last() {
                self.seen = self.seen.max(event.seq);
                self.ready.push_back(event);
            }
        }
        Ok(())
    }

    async fn reconnect(&mut self) -> Result<(), ApiError> {
        if self.idle_tries >= MAX_IDLE_TRIES {
            let text = format!("the daemon sends no events of `{}`", self.operation);
            return Err(ApiError::new(ErrorCode::DaemonUnavailable, text)
                .in_operation(&self.operation)
                .with_hint(Hint::ShowDaemonLog));
        }
        if self.idle_tries > 0 {
            tokio::time::sleep(FIRST_PAUSE * 2u32.pow(self.idle_tries)).await;
        }
        self.idle_tries += 1;
        let path = routes::fill(routes::OPERATION_EVENTS, "operation", self.operation.as_str());
        let call = Call::get(path)
            .with_header("accept", "text/event-stream")
            .with_header("last-event-id", self.seen.to_string());
        let answer = match self.client.once(call).await {
            Ok(answer) => answer,
            Err(_) => return self.client.ensure_daemon().await.map(|_| ()),
        };
        if answer.status().is_success() {
            self.stream = Some((answer.into_body(), Parser::default()));
            return Ok(());
        }
        match http::accept(answer).await {
            Err(error) if error.code == ErrorCode::NotFound => self.load_result().await,
            Err(error) => Err(error.in_operation(&self.operation)),
            Ok(()) => Ok(()),
        }
    }

    /// Takes the result from the operation's record after its event stream has been dropped.
    async fn load_result(&mut self) -> Result<(), ApiError> {
        let view = match self.client.operation(&self.operation).await {
            Ok(view) => view,
            Err(error) if error.code == ErrorCode::NotFound => {
                let text =
                    format!("the daemon was restarted and does not know `{}`", self.operation);
                return Err(ApiError::new(ErrorCode::Interrupted, text)
                    .in_operation(&self.operation)
                    .with_hint(Hint::List { what: Kind::Vm }));
            }
            Err(error) => return Err(error),
        };
        let what = match (view.state, view.error) {
            (OpState::Running, _) => return Ok(()),
            (OpState::Succeeded, _) => OpEventKind::Succeeded { made: None },
            (OpState::Failed, error) => OpEventKind::Failed {
                error: error.unwrap_or_else(|| {
                    ApiError::new(ErrorCode::Internal, format!("`{}` failed", self.operation))
                }),
            },
        };
        self.ready.push_back(OpEvent { seq: self.seen + 1, at_ms: 0, what });
        Ok(())
    }
}

fn malformed() -> ApiError {
    ApiError::new(ErrorCode::DaemonUnavailable, "the daemon sent malformed events")
}
